"""The bandit study in its small form: tables, claims, pictures, and going on after a kill."""

import os
import signal
import subprocess
import time

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("matplotlib")
pytest.importorskip("tyro")
pytest.importorskip("cvxpy")
pytest.importorskip("sklearn")

import scripts
from scripts import ROOT, sidecar

EXACT = ("bon", "phase", "distance", "rates", "verify", "selfplay")
SAMPLED = ("queries", "seconds", "frontier", "ablation", "robust", "diversity", "logs", "unseen", "pieces")
STUDIES = EXACT + SAMPLED
SLACK = 1 + 1e-9
smoke = scripts.smoke("bandit")


@pytest.fixture(scope="module")
def tables(smoke):
    return {name: pd.read_csv(smoke[0] / f"bandit_{name}.csv") for name in STUDIES}


def test_every_study_leaves_a_table_a_sidecar_and_a_sentence(smoke):
    folder, told = smoke
    assert told.count("=>") >= len(STUDIES)
    for name in STUDIES:
        assert sidecar(folder, f"bandit_{name}")["config"]["smoke"] is True


def test_it_says_first_what_it_will_do_and_last_where_things_are(smoke):
    folder, told = smoke
    first, last = told.split("\n=>")[0], told.splitlines()[-2:]
    where = os.path.relpath(folder)
    assert first.startswith(f"{len(STUDIES)} studies")
    for name in STUDIES:
        assert f"\n  {name} " in first
        assert f"bandit_{name}.csv" in last[1]
    assert first.count(where) == 2
    assert all(where in line for line in last)


def test_a_short_run_ranks_nobody(smoke):
    assert "too short to rank" in smoke[1]
    assert "Best: " not in smoke[1]


def test_a_fingerprint_covers_what_a_study_runs_and_nothing_else():
    from study import HERE, fingerprint, sources

    studies = {HERE / "bandit_studies" / f"{name}.py" for name in STUDIES}
    for path in studies:
        found = set(sources(path))
        assert found & studies == {path}
        assert HERE / "study.py" in found
        assert ROOT / "windgames" / "__init__.py" in found
        assert {p for p in found if "equilibria" in p.parts}
        assert not {p for p in found if "windlm" in p.parts}
    shared = HERE / "bandit_studies" / "learners.py"
    assert shared in sources(HERE / "bandit_studies" / "queries.py")
    assert shared not in sources(HERE / "bandit_studies" / "rates.py")
    assert fingerprint(shared) != fingerprint(HERE / "bandit_studies" / "games.py")
    assert len({fingerprint(*sources(path)) for path in studies}) == len(studies)


def test_every_figure_is_drawn_and_names_its_table(smoke):
    image = pytest.importorskip("PIL.Image")
    for name in set(STUDIES) - {"verify"}:
        with image.open(smoke[0] / f"bandit_{name}.png") as picture:
            assert picture.width > 500
            assert f"bandit_{name}.csv" in picture.info["Source"]


def test_iterative_best_of_n_ends_where_theory_says(tables):
    limit = tables["bon"].query("part == 'limit'")
    power, exact = limit[limit.form == "power"], limit[limit.form == "exact"]
    assert (power.tv_weak < 1e-9).all()
    assert (exact[exact.n == 2].tv_half < 1e-9).all()
    assert (exact.tv_weak > 1e-3).all()
    grain = tables["bon"].query("part == 'atoms' and form == 'exact'").sort_values("largest_atom")
    assert all((np.diff(rows.tv_weak) > 0).all() for _, rows in grain.groupby("n"))


def test_contraction_and_collapse(tables):
    part = dict(iter(tables["phase"].groupby("part")))
    assert (part["contraction"].factor <= part["contraction"].factor_bound * SLACK).all()
    certain = part["map"].query("beta < 1 and collapse_index < 0.95")
    assert len(certain)
    assert (certain.top_from_ref > 0.999).all()
    beyond = part["map"].query("beta < 1 and collapse_index > 1.05")
    assert len(beyond)
    assert (beyond.top_from_ref < 0.999).all()
    assert (beyond.top_from_top > 0.999).all()
    unique = part["map"].query("beta > 1")
    assert np.allclose(unique.top_from_ref, unique.top_from_top, atol=1e-7)
    assert np.allclose(part["map"].top_from_ref, part["map"].top_direct, atol=1e-6)
    example = part["example"]
    assert np.allclose(example.top_from_ref.dropna(), 0.0102, atol=5e-5)
    assert (example.top_from_top.dropna() > 0.999).all()


def test_distance_of_the_two_games_is_within_its_bound(tables):
    table = tables["distance"]
    assert (table.violations == 0).all()
    assert (table.distance <= table.bound * SLACK).all()
    assert (table.plain_error < 1e-12).all()
    smallest = table[table.beta == table.beta.min()]
    assert (smallest.distance < 1e-6).all()


def test_rates_hold_inside_the_theorems(tables):
    rate = tables["rates"].query("part == 'rate'")
    inside = rate[rate.in_theorem.astype(bool)]
    assert len(inside)
    assert (inside.worst_ratio <= SLACK).all()
    assert (inside.factor <= inside.factor_bound * SLACK).all()
    reached = inside[inside.converged.astype(bool)]
    assert (reached.steps <= np.ceil(reached.steps_bound)).all()
    assert reached.step.isin(["largest"]).any()
    beyond = rate[rate.step.str.endswith("x largest")]
    assert not beyond.in_theorem.astype(bool).any()
    curve = tables["rates"].query("part == 'curve'")
    proven = curve.step.isin(["beta/4", "beta", "largest"])
    assert (curve[proven].kl <= curve[proven].kl_bound * SLACK + 1e-13).all()


def test_the_convex_solver_agrees(tables):
    table = tables["verify"]
    assert table.agrees.all()
    assert (table.tv <= 1e-5).all()
    assert (table.gain <= 1e-8).all()


def test_sampled_learners_against_the_equilibrium(tables):
    """What the sampled tables must show at any size: the bound holds, WIND nears, nothing is lost or NaN."""
    queries = tables["queries"]
    curve, bound = queries[queries.part == "curve"], queries[queries.part == "bound"]
    assert set(curve.learner) == {"WIND", "WIND, all responses", "SPPO", "J-BOND"}
    assert np.isfinite(curve[["queries", "kl", "kl_low", "kl_high", "certificate"]]).all(axis=None)
    assert ((curve.kl_low <= curve.kl) & (curve.kl <= curve.kl_high)).all()
    same = curve.merge(bound, on=["world", "learner", "step", "queries"], suffixes=("", "_bound"))
    assert len(same)
    assert (same.kl_mean <= same.kl_bound).all()
    wind = curve[curve.learner == "WIND, all responses"].groupby("step").kl
    assert (wind.last() < 0.6 * wind.first()).all()


def test_frontier_points_lie_on_the_exact_curve(tables):
    table = tables["frontier"]
    exact = table[table.part == "equilibrium"].sort_values("kl_ref")
    closed = table[(table.part == "continuum, game") & (table.kl_ref < 2) & (table.kl_ref > 0.05)]
    assert np.allclose(np.interp(closed.kl_ref, exact.kl_ref, exact.win_rate), closed.win_rate, atol=0.01)
    learned = table[table.part == "WIND"]
    assert np.allclose(np.interp(learned.kl_ref, exact.kl_ref, exact.win_rate), learned.win_rate, atol=0.02)


def test_other_sampled_tables(tables):
    ablation = tables["ablation"]
    known = ablation[ablation.bound.notna()]
    assert len(known)
    assert (known.sampled_mean <= known.bound * 1.2).all()  # a mean over four seeds
    estimate = tables["logs"].query("part == 'estimate'")
    assert np.allclose(estimate.log_bias, estimate.log_bias_exact, atol=0.05)
    assert np.allclose(estimate.bias, 0, atol=0.05)
    ends = tables["logs"].query("part == 'equilibrium'")
    bond = ends[ends.learner == "iterative BOND"].sort_values("opponents")
    assert (np.diff(bond.kl) < 0).all()
    unseen = tables["unseen"]
    assert (unseen.kl < unseen.kl_start).all()
    pieces = tables["pieces"]
    estimation = pieces[pieces.part == "sum"].estimation
    assert (estimation < 0.12).all()
    runs, gaps = pieces[pieces.part == "sum"], pieces[pieces.part == "generalise"]
    assert (runs.kl <= runs.bound_exact_cross * SLACK).all()
    assert (runs.bound_exact_cross <= runs.bound_coverage * SLACK).all()
    assert (gaps.gap - 4 * gaps.gap_error <= gaps.bound).all()
    robust = tables["robust"]
    assert ((robust.win_rate > 0.4) & (robust.win_rate < 1)).all()
    diversity = tables["diversity"]
    assert (np.exp(diversity.entropy) <= diversity.effective_support * SLACK).all()


@pytest.mark.slow
def test_a_dask_cluster_gives_the_same_table(smoke, tmp_path):
    """The same sweep by dask workers in processes of their own."""
    pytest.importorskip("distributed")
    told = scripts.output("bandit", "--study", "queries", "--results", tmp_path, "--no-pictures", "--dask", "local")
    assert "dask: <Client" in told
    ours, theirs = (
        pd.read_csv(folder / "bandit_queries.csv").drop(columns="seconds") for folder in (smoke[0], tmp_path)
    )
    pd.testing.assert_frame_equal(ours, theirs)


def test_a_lost_cell_is_computed_again_and_nothing_else(smoke):
    folder, _ = smoke
    before = (folder / "bandit_bon.csv").read_bytes()
    cells = sorted((folder / ".cells" / "bon").glob("*.json"))
    ages = {cell: cell.stat().st_mtime_ns for cell in cells}
    cells[0].unlink()
    cells[1].write_text("half a fi")
    scripts.output("bandit", "--study", "bon", "--results", folder, "--jobs", 1, "--no-pictures")
    assert (folder / "bandit_bon.csv").read_bytes() == before
    changed = [cell for cell in cells if cell.stat().st_mtime_ns != ages[cell]]
    assert set(changed) == set(cells[:2])


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills a process group")
def test_a_killed_run_goes_on_to_the_same_table(smoke, tmp_path):
    arguments = ("--study", "phase", "--results", tmp_path, "--jobs", 1, "--no-pictures")
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(scripts.command("bandit", *arguments), start_new_session=True, **silent)
    folder, deadline = tmp_path / ".cells" / "phase", time.monotonic() + 60
    while len(list(folder.glob("*.json"))) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    assert not (tmp_path / "bandit_phase.csv").exists()
    kept = {cell: cell.stat().st_mtime_ns for cell in folder.glob("*.json")}
    assert len(kept) >= 3
    scripts.output("bandit", *arguments)
    assert (tmp_path / "bandit_phase.csv").read_bytes() == (smoke[0] / "bandit_phase.csv").read_bytes()
    assert all(cell.stat().st_mtime_ns == age for cell, age in kept.items())

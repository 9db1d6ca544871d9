"""The solvers' study in its small form, and every peer that is installed against windgames."""

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("matplotlib")
pytest.importorskip("tyro")
pytest.importorskip("cvxpy")
pytest.importorskip("mpmath")

import scripts
from scripts import sidecar
from sixty_digits import exact
from solver_studies.games import HARD, Instance
from solver_studies.measure import TIGHT, best_peers, certified, grade
from solver_studies.peers import SOLVERS, Solver, folded
from solver_studies.worker import Result, Worker

import windgames as wg

STUDIES = ("agreement", "grid", "batch", "large", "hard", "choice", "path")
smoke = scripts.smoke("solvers")


@pytest.fixture(scope="module")
def tables(smoke):
    return {name: pd.read_csv(smoke[0] / f"solvers_{name}.csv") for name in STUDIES}


@pytest.fixture(scope="module")
def worker():
    with Worker(one_thread=True) as process:
        yield process


def test_every_study_leaves_a_table_a_sidecar_and_a_sentence(smoke):
    folder, told = smoke
    assert told.count("=>") >= len(STUDIES)
    for name in STUDIES:
        sidecar(folder, f"solvers_{name}")
    assert (folder / "solvers.png").stat().st_size > 10_000
    assert "| beta | m = 10 |" in told


def test_a_peer_that_is_missing_is_named(smoke):
    folder, told = smoke
    missing = [solver.name for solver in SOLVERS if solver.missing]
    assert sorted(missing) == sidecar(folder, "solvers_grid")["config"]["skipped"]
    for name in missing:
        assert f"Skipped: {name}" in told
    assert Solver("nobody", folded, ("no-such-package",)).missing == ["no-such-package"]


def test_every_cell_of_ours_is_certified(tables):
    for name in ("agreement", "grid", "batch"):
        ours = tables[name][tables[name].solver == "windgames"]
        assert len(ours)
        assert certified(ours).all()


def test_the_certificate_bounds_the_distance_of_anybodys_answer(tables):
    known = tables["agreement"].dropna(subset="total_variation")
    assert (known.total_variation <= known.total_variation_proven + 1e-15).all()
    assert known[known.solver == "windgames"].total_variation.max() < 1e-12


def test_hard_cases_are_solved_or_refused_with_a_reason(tables):
    ours = tables["hard"][tables["hard"].solver == "windgames"]
    assert set(ours.kind) == set(HARD)
    solved = ours[ours.status == "answered"]
    assert (solved.residual <= 1e-10).all(), solved[solved.residual > 1e-10]
    refused = ours[ours.status != "answered"]
    assert (refused.status == "refused").all()
    assert refused.reason.str.len().min() > 20


@pytest.mark.parametrize("solver", [s for s in SOLVERS if not s.loop], ids=lambda solver: solver.name)
@pytest.mark.parametrize("kind", ["reward", "Bradley-Terry", "intransitive", "low rank", "tournament"])
def test_peers_agree(worker, solver, kind):
    if solver.missing:
        pytest.skip(f"{', '.join(solver.missing)} not installed")
    instance = Instance(kind, 5, 0.0 if solver.free else 0.5)
    game = instance.make()
    result = worker.ask(solver.name, instance, 60.0)
    assert result.status == "answered", result
    row = grade(game, result, None if solver.free else exact(game, wg.equilibrium(game).log_policy))
    assert row["gap"] < 1e-5
    assert solver.free or row["total_variation"] < 1e-3  # SCS and Clarabel as they come
    if "tight" in solver.name or not solver.packages:
        assert row["accuracy"] != "neither"


def test_a_loop_over_contexts_gives_what_one_call_gives():
    one, loop = (solver for solver in SOLVERS if solver.name.startswith("windgames"))
    for kind in ("reward", "intransitive"):
        game = Instance(kind, 4, 0.1, contexts=3).make()
        assert np.allclose(one(game)[0], loop(game)[0], atol=1e-10)


def test_sixty_digits_agree_with_a_game_that_is_solved_by_hand():
    """All tie: the equilibrium is the reference."""
    game = Instance("hard: all ties", 3, 0.1).make()
    assert np.allclose(exact(game, np.log([0.5, 0.3, 0.2])), game.log_ref, atol=1e-14)


def test_whoever_is_slow_is_stopped_and_the_next_is_served(worker):
    slow = Instance("intransitive", 300, 1e-4)
    assert worker.ask("mirror descent (the paper)", slow, 0.05).status == "over time"
    answer = worker.ask("windgames", Instance("intransitive", 3, 0.1), 60.0)
    assert answer.status == "answered"
    assert answer.log_policy.shape == (3,)


def test_grades_do_not_depend_on_who_answered():
    game = Instance("intransitive", 6, 0.1).make()
    best = wg.equilibrium(game).log_policy
    assert grade(game, Result("answered", log_policy=best))["residual"] < TIGHT
    off = np.log(0.9 * np.exp(best) + 0.1 * np.exp(game.log_ref))
    assert grade(game, Result("answered", log_policy=off))["accuracy"] == "neither"
    assert grade(game, Result("answered", log_policy=np.full(6, np.nan)))["status"] == "refused"


def test_ratios_are_of_peers_at_equal_accuracy():
    where = {"kind": "reward", "m": 3, "contexts": 0, "beta": 0.1, "seed": 0, "threads": "one"}
    rows = [("windgames", 2.0, "tight"), ("A", 1.0, "loose"), ("B", 6.0, "tight"), ("C", 0.1, "neither")]
    table = pd.DataFrame([where | {"solver": s, "seconds": t, "accuracy": a} for s, t, a in rows])
    assert best_peers(table, "tight")[["peer", "ratio"]].iloc[0].tolist() == ["B", 3.0]
    assert best_peers(table, "loose")[["peer", "ratio"]].iloc[0].tolist() == ["A", 0.5]

"""Every finding of benchmarks/README.md is computed anew from the committed tables."""

import re
from functools import cache
from math import isnan

import numpy as np
import pytest

pd = pytest.importorskip("pandas")

from scripts import RESULTS, ROOT

TEXT = " ".join((ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8").split())
FINDINGS = []


@cache
def read(name):
    return pd.read_csv(RESULTS / f"{name}.csv")


def finding(function):
    """Collect a function that yields phrases which the page must contain."""
    FINDINGS.append(function)
    return function


@finding
def bon():
    limit, grain = (read("bandit_bon").query(f"part == '{part}'") for part in ("limit", "atoms"))
    power, exact = limit[limit.form == "power"], limit[limit.form == "exact"]
    yield f"In power form yes, to {power.tv_weak.max():.0e}"
    assert exact[exact.n == 2].tv_half.max() < 1e-12 < exact[exact.n != 2].tv_half.min()
    yield f"{exact.tv_weak.min():.2g} to {exact.tv_weak.max():.2g} away in total variation"
    ends = [g.sort_values("largest_atom").iloc[:2] for _, g in grain[grain.form == "exact"].groupby("n")]
    slopes = [np.diff(np.log(g.tv_weak))[0] / np.diff(np.log(g.largest_atom))[0] for g in ends]
    yield f"power {min(slopes):.2f} to {max(slopes):.2f}"


@finding
def phase():
    part = dict(iter(read("bandit_phase").groupby("part")))
    steps, grid = part["contraction"], part["map"]
    assert (steps.factor <= steps.factor_bound * (1 + 1e-9)).all()
    yield f"in all {len(steps)} runs"
    below = grid[grid.beta < 1]
    right = ((below.top_from_ref > 0.999) == (below.collapse_index < 1)).sum()
    yield f"({right} of {len(below)} references)"
    yield f"({((below.top_from_ref < 0.999) & (below.top_from_top > 0.999)).sum()} points)"


@finding
def distance():
    table = read("bandit_distance")
    assert (table.violations == 0).all()
    yield f"in {table.contexts.sum():,} pairs of equilibria"
    yield f"at beta = {table.beta.min():g} the distance is {table[table.beta == table.beta.min()].distance.max():.1e}"


@finding
def rates():
    rate = read("bandit_rates").query("part == 'rate'")
    inside, beyond = rate[rate.in_theorem.astype(bool)], rate[rate.step.str.endswith("x largest")]
    yield f"({len(inside)} runs, at most {inside.worst_ratio.max():.4f} of it)"
    broken = beyond[beyond.worst_ratio > 1 + 1e-9]
    assert min(int(s.split()[0]) for s in broken.step) == 2
    small = inside[(inside.step == "largest") & (inside.beta == 0.03)].groupby("rule").steps.max()
    yield f"up to {small['WIND']:,.0f} steps, the extragradient {small['extragradient']:.0f}"


@finding
def verify():
    table = read("bandit_verify")
    yield f"cvxpy agrees on {table.agrees.sum()} of {len(table)} games, to a total variation of {table.tv.max():.0e}"


@finding
def selfplay():
    ends = read("bandit_selfplay").query("part == 'end'")
    reward, circle = (ends[ends.share == share].set_index(["method", "step"]) for share in (0, 1))
    assert reward.kl["RLHF"].max() < 1e-20
    assert reward.kl["REINFORCE"].max() < 1e-3
    rlhf = circle.loc["RLHF"].iloc[0]
    yield f"RLHF ends at a divergence of {rlhf.kl:.2f}, where an opponent gains {rlhf.gap:.2f}"
    best = reward.rounds["REINFORCE"].idxmin()
    assert np.isnan(circle.rounds["REINFORCE", best])
    yield f"the step that was best on the reward, {best:g}, never comes below 1e-3"
    quickest, wind = circle.rounds["REINFORCE"].idxmin(), int(circle.rounds["WIND"].iloc[0])
    yield f"with {quickest:g} it takes {circle.rounds['REINFORCE', quickest]:.0f} rounds where WIND's"
    yield f"largest proven step takes {wind}."


def cost(world, learner, threshold):
    """Return the least queries among a learner's steps to stay below a threshold (NaN: never on all seeds)."""
    rows = read("bandit_queries").query(
        f"part == 'reach' and world == '{world}' and learner == '{learner}' and threshold == {threshold}"
    )
    return rows.cost.min()


@finding
def queries():
    yield f"below 0.1 after {cost('reward', 'WIND', 0.1):,.0f} comparisons"
    yield f"below 0.01 after {cost('reward', 'WIND', 0.01):,.0f} (world `reward`)"
    every = [cost("reward", "WIND, all responses", x) for x in (0.1, 0.01)]
    yield f"against one draw costs {every[0]:,.0f} and {every[1]:,.0f}"
    yield f"falling steps of theory 7.7 need {cost('reward', 'WIND, decaying', 0.01):,.0f} for 0.01"
    play = [cost("reward", "REINFORCE, self-play", x) for x in (0.1, 0.01)]
    yield f"({play[0]:,.0f} and {play[1]:,.0f})"
    assert all(isnan(cost("reward", name, 0.1)) for name in ("J-BOND", "iterative BOND"))
    table = read("bandit_queries")
    reach = table[(table.part == "reach") & (table.threshold == 0.01)]
    for world in ("Bradley-Terry", "intransitive"):
        least = reach[(reach.world == world) & reach.cost.notna()]
        assert set(least.learner) <= {"WIND, decaying"}
    same = table[(table.part == "curve") & (table["round"] > 0)].merge(
        table[table.part == "bound"], on=["world", "learner", "step", "queries"], suffixes=("", "_bound")
    )
    yield f"at most {(same.kl_mean / same.kl_bound).max():.2f} of the finite-time bound"


@pytest.mark.parametrize("name", ["queries", "ablation"])
def test_bounds_in_the_committed_tables_are_those_of_the_theory(name):
    """Theory 7.7, 7.11 and 7.12 as they are now; ``bandit.py --full --derive`` computes them anew."""
    from bandit_studies import ablation, queries

    table = read(f"bandit_{name}")
    again = {"queries": queries, "ablation": ablation}[name].with_bounds(table)
    pd.testing.assert_frame_equal(again, table, rtol=1e-6, check_dtype=False)


@finding
def seconds():
    final = read("bandit_seconds").query("part == 'reach'").groupby("learner").final_kl.min()
    assert final.idxmin() == "WIND, decaying"
    falling, own = (f"{final[name]:.1e}".replace("e-0", "e-") for name in ("WIND, decaying", "WIND"))
    yield f"WIND with falling steps is at {falling}, on its own draws at {own}"
    yield f"SPPO comes nearest with {final['SPPO']:.2f}"


@finding
def frontier():
    table = read("bandit_frontier")
    exact = table[table.part == "equilibrium"].sort_values("kl_ref")
    wind = table[table.part == "WIND"]
    apart = (wind.win_rate - np.interp(wind.kl_ref, exact.kl_ref, exact.win_rate)).abs().max()
    yield f"lies within {apart:.3f} of the game's own frontier"
    one = table[(table.part == "REINFORCE") & (table.beta == 0.05)].iloc[0]
    there = np.interp(one.kl_ref, exact.kl_ref, exact.win_rate)
    yield f"(at KL {one.kl_ref:.2f}: {one.win_rate:.3f} against the game's {there:.3f})"
    ends = table[table.part.isin(["SPPO", "J-BOND", "best-of-n distillation"])].groupby("part").tail(1).kl_ref
    yield f"run through to KL {ends.min():.1f} to {ends.max():.1f}"


def test_the_curve_of_best_of_n_has_no_chords():
    """At a KL between those of one and two draws the win rate is that of a real n: 0.574 at 0.040, not 0.535."""
    curve = read("bandit_frontier").query("part == 'best-of-n'").sort_values("kl_ref")
    assert ((curve.beta > 1) & (curve.beta < 2)).sum() >= 4
    assert np.interp(0.040, curve.kl_ref, curve.win_rate) == pytest.approx(0.574, abs=0.003)


@finding
def ablation():
    table = read("bandit_ablation")
    beyond = table[(table.eta > table.largest) & (table.world == "rock-paper-scissors")]
    yield f"at {beyond.exact_steps.isna().sum()} of {len(beyond)} points beyond it"
    known = table[table.bound.notna()]
    yield f"at most {(known.sampled_mean / known.bound).max():.2f} of the bound in {len(known)} points"


@finding
def robust():
    table = read("bandit_robust").query("world == 'forty contexts'").set_index(["learner", "kind", "level"]).win_rate
    wind = "WIND, all responses"
    yield f"falls from {table[wind, 'flip', 0]:.3f} to {table[wind, 'flip', 0.4]:.3f}"
    yield f"it keeps {table['WIND, beta (1 - 2q)', 'flip', 0.4]:.3f}"
    others = [table[name, "flip", 0.4] for name in ("SPPO", "best-of-n distillation")]
    yield f"(SPPO {others[0]:.3f}, best-of-n distillation {others[1]:.3f})"
    yield f"({table[wind, 'bias', 0.1]:.3f} and {table[wind, 'flip', 0.3]:.3f})"
    for name in ("SPPO", "J-BOND", "best-of-n distillation"):
        assert table[name, "bias", 0.1] < table[name, "flip", 0.3]


@finding
def diversity():
    table = read("bandit_diversity")
    last = table.groupby(["learner", "beta"], sort=False).tail(1)
    kept = last[last.learner.str.startswith("WIND")].effective_support
    yield f"effective support of {table.effective_support.iloc[0]:.1f} WIND keeps {kept.min():.2f} to {kept.max():.2f}"
    assert (last[last.learner.isin(["SPPO", "J-BOND", "best-of-n distillation"])].top_mass > 0.99).all()


@finding
def logs():
    table = read("bandit_logs")
    rows = table[table.part == "estimate"]
    worst = rows.loc[rows.log_bias.idxmax()]
    yield f"bias is {worst.log_bias:.1f} at K = {worst.opponents:.0f} for a win rate of {worst.rate:g}"
    end = table[table.part == "equilibrium"].pivot_table(index="opponents", columns="learner", values="kl")
    bond, wind = end["iterative BOND"], end["WIND"]
    yield f"ends {bond.iloc[0]:.2f} (K = 1) to {bond.iloc[-1]:.4f} (K = 128)"
    yield f"unbiased: {wind.iloc[0]:.1e} to {wind.iloc[-1]:.1e}".replace("e-0", "e-")


@finding
def unseen():
    table = read("bandit_unseen")
    last = table[(table.risk == "squared") & (table.part == "unseen") & (table.contexts == 160)].set_index("world")
    one, digits = last.loc["featured"], last.loc["digits"]
    yield f"from {one.kl_start:.3f} to {one.kl:.3f} (class at its best {one.kl_best:.3f})"
    yield f"from {digits.kl_start:.3f} to {digits.kl:.3f}"
    risks = table[(table.world == "featured") & (table.contexts == 40) & (table.part == "seen")]
    yield f"within {np.ptp(risks[risks.risk != 'constant'].kl):.3f} of each other"


@finding
def pieces():
    table = read("bandit_pieces")
    last = table[table.part == "sum"].groupby("dimension").tail(1)
    assert (last.realisability > last.estimation).all()
    exact, coverage = last.bound_exact_cross / last.kl, last.bound_coverage / last.kl
    yield f"by {exact.min():.1f} to {exact.max():.1f} times its value"
    yield f"by {coverage.min():.0f} to {coverage.max():.0f} times"
    rows = table[table.part == "generalise"]
    yield f"is {float(f'{(rows.bound / rows.gap).min():.2g}'):.0f} times its generalisation gap"


@finding
def solvers():
    from solver_studies.grid import markdown
    from solver_studies.measure import best_peers, certified

    grid = read("solvers_grid")
    yield " ".join(markdown(best_peers(grid, "tight")).split())
    ours = grid[grid.solver == "windgames"]
    assert certified(ours).all()
    yield f"All {len(ours)} games, to a million responses, are certified"
    yield f"the residual is at most {ours.residual.max():.1e}"
    yield f"A peer was faster in {(best_peers(grid, 'tight').ratio < 1).sum()}."
    agreement = read("solvers_agreement")
    known = agreement[agreement.total_variation.notna()]
    own = known[known.solver == "windgames"]
    yield f"On {len(own)} random games of up to 30 responses ours is at most {own.total_variation.max():.1e}"
    assert (known.total_variation <= known.total_variation_proven + 1e-15).all()
    yield f"held for all {len(known)} answers"
    hard = read("solvers_hard").query("solver == 'windgames'")
    proven = certified(hard) & (hard.status == "answered")
    yield (
        f"Of {len(hard)} hard cases (`solvers_hard.csv`: beta = 1e-4, references to 1e-300, ties, duplicates by the "
        f"thousand, zeros and ones in log games) {proven.sum()} are certified"
    )
    yield f"{(hard.status != 'answered').sum()} refused with a reason"


@finding
def transformers():
    summary = read("lm_summary").set_index(["method", "judge"])
    for method, words in {
        "WIND": "WIND, squared risk",
        "WIND, KL risk": "WIND, KL risk",
        "WIND, NCE risk": "WIND, NCE risk",
        "extragradient": "extragradient",
        "J-BOND": "J-BOND",
        "SPPO": "SPPO",
        "iterative BOND": "iterative BOND",
        "best-of-n, likelihood": "best-of-n, likelihood",
    }.items():
        cells = []
        for judge in ("reward", "bradley-terry", "intransitive"):
            for column in ("final_fraction", "nearest"):
                x = 100 * summary.loc[method, judge][column]
                cells.append(f"{x:.1f}%" if x < 10 else f"{x:.0f}%")
        yield f"| {words} | " + " | ".join(cells) + " |"
    floor = read("lm_floor").set_index("change").fraction
    yield f"ends at {floor['a quarter of the draws']:.1%}, the standard at {floor['standard']:.1%}"
    memory = read("lm_memory")
    yield f"save {memory.saved_mib.iloc[0]:.0f} MiB"
    yield f"peaks of {memory.peak_mib.iloc[0]:,.0f} and {memory.peak_mib.iloc[1]:,.0f} MiB"


@finding
def language_model():
    table = read("align")
    last = table[table.win_rate.notna()].groupby(["run", "seed"]).tail(1).set_index(["run", "seed"])
    for run, words in {
        "WIND": "WIND, beta 0.05",
        "WIND, beta 0.2": "WIND, beta 0.2",
        "WIND, beta 0.8": "WIND, beta 0.8",
        "SPPO": "SPPO",
        "J-BOND": "J-BOND",
        "best-of-n, likelihood": "best of 4, likelihood",
        "WIND, flipped": "WIND, a quarter of the verdicts wrong",
        "WIND, reward model": "WIND, judged by a reward model",
    }.items():
        r = last.loc[run, 0]
        kl = f"{r.held_kl:.1f}" if r.held_kl >= 1 else f"{r.held_kl:.2f}"
        yield (
            f"| {words} | {r.win_rate:.2f} ({r.win_rate_low:.2f} to {r.win_rate_high:.2f}) | "
            f"{r.possible_win_rate:.2f} | {r.held_reward:.2f} | {kl} |"
        )
    r = last.loc["WIND", 1]
    yield f"WIND {r.win_rate:.2f} ({r.win_rate_low:.2f} to {r.win_rate_high:.2f}) at {r.held_kl:.1f} nats"


@finding
def runtime():
    wind = read("runtime").set_index("method").loc["WIND"]
    yield f"Of a round of WIND {wind.share_training:.0%} is training (two epochs), {wind.share_sampling:.0%} drawing"


@pytest.mark.parametrize("function", FINDINGS, ids=lambda f: f.__name__)
def test_findings(function):
    missing = [phrase for phrase in function() if phrase not in TEXT]
    assert not missing


def test_every_study_is_described_with_its_picture_and_its_limits():
    import bandit

    for name in bandit.STUDIES:
        (section,) = re.findall(rf"### [^#]*?\(`{name}`\)(.*?)(?=##|$)", TEXT)
        for part in ("**Question.**", "**Finding.**", f"--study {name}`", "**What it cannot show.**"):
            assert part in section, (name, part)
        assert name == "verify" or f"figures/bandit_{name}.png" in section, name


def test_the_gallery_shows_every_picture():
    gallery = (ROOT / "figures" / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"\]\((\w+\.png)\)", gallery)
    assert sorted(shown) == sorted(path.name for path in (ROOT / "figures").glob("*.png"))

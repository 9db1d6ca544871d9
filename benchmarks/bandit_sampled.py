r"""The sampled studies: what each learner reaches with how many comparisons, and what stands in its way.

queries    distance to the equilibrium against queries, every learner, three step sizes each
seconds    the same for a fixed time
frontier   win rate against the reference, and what it costs in KL
ablation   beta by eta: speed and final quality, the theorem's region outlined
robust     true win rate under label flips and under a judge with systematic errors
diversity  entropy, effective support and the mass of the best response, along the way
logs       the log of an estimated win rate (iterative BOND) against the win rate itself (WIND)
unseen     log-linear policies on contexts that were never drawn
pieces     what the finite-time guarantee is made of, measured
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import inf, nan
from typing import Any

import numpy as np
import pandas as pd
from _study import Rows, Scale, Study, show
from environments import Bandit, atoms, digits, featured, rock_paper_scissors, synthetic
from scipy.stats import bootstrap

import windgames as wg
from windgames import bounds
from windgames._array import expectation, kl
from windgames.bandits import (
    BestOfN,
    JBond,
    LabelledSamples,
    Learner,
    LogLinear,
    Regression,
    Reinforce,
    Run,
    run,
    sample,
)
from windgames.objectives import centred, implied_payoff, win_rates
from windgames.oracles import Oracle, biased_reward, flipped, judge_panel
from windgames.updates import Stage, wind_step

BETA = 0.1
DRAWS = 8


# -- worlds and learners -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """A game that grades, who answers the questions, and rewards for those who need a number."""

    game: wg.WinRateGame
    oracle: Callable[[], Oracle]
    weak: wg.RewardPreference | None
    """The reward with the ties of iterative best-of-n; None if no reward is behind the preference."""


@cache
def world(name: str, beta: float = BETA) -> World:
    """Return one of the worlds of the study at some regularisation."""
    bandit = {
        "digits": digits(20),
        "two hundred atoms": _row(atoms(200)),
        "forty contexts": synthetic(40, 20, ties=False),
    }.get(name, synthetic(8, 20, ties=name == "ties"))
    reward: np.ndarray | None = bandit.reward
    if name == "Bradley-Terry":
        preference: wg.Preference = wg.BradleyTerryPreference(bandit.reward, scale=0.5 * float(np.std(bandit.reward)))
    elif name == "intransitive":
        rng = np.random.default_rng(1)
        preference = judge_panel([wg.RewardPreference(rng.permuted(bandit.reward, axis=-1)) for _ in range(3)])
        reward = None
    else:
        preference = wg.RewardPreference(bandit.reward)
    if reward is not None:  # a reward learner sees rewards between 0 and 1, as win rates are
        low = reward.min(axis=-1, keepdims=True)
        reward = (reward - low) / (reward.max(axis=-1, keepdims=True) - low)
    weak = wg.RewardPreference(bandit.reward, ties="weak") if isinstance(preference, wg.RewardPreference) else None
    return World(wg.WinRateGame(preference, bandit.ref, beta), lambda: Oracle(preference, reward=reward), weak)


WORLDS = ("reward", "ties", "Bradley-Terry", "intransitive", "digits")


def _row(bandit: Bandit) -> Bandit:
    return Bandit(bandit.name, bandit.reward[None], bandit.ref[None])


@cache
def equilibrium(name: str, beta: float = BETA) -> wg.Solution:
    """Return a world's equilibrium, proven to 1e-10."""
    found = wg.equilibrium(world(name, beta).game)
    assert np.all(found.converged)
    return found


def bond_game(name: str, beta: float, n: float = 4.0) -> tuple[wg.LogWinRateGame, Any]:
    """Return the log-win-rate game and the rule of iterative best-of-n that imply this `beta`."""
    here = world(name, beta)
    assert here.weak is not None
    mix = (n, 1 / (1 + beta * (n - 1)))
    return wg.LogWinRateGame.from_best_of_n(here.weak, here.game.ref, *mix), wg.iterative_bon(*mix)


def decaying(beta: float, interaction: float) -> Callable[[int], Any]:
    return lambda t: wg.wind(float(bounds.wind_decaying_step(t, beta, interaction)))


ALL = {"sampler": "all", "opponents": 1}
LEARNERS: dict[str, tuple[Callable[[float, float], Learner], tuple[float, ...]]] = {
    "WIND": (lambda beta, x: Regression(wg.wind(x * beta), draws=DRAWS), (1, 4, 16)),
    "WIND, independent": (lambda beta, x: Regression(wg.wind(x * beta), draws=DRAWS, opponents=1), (1, 4, 16)),
    "WIND, mixture": (
        lambda beta, x: Regression(wg.wind(x * beta), draws=DRAWS, opponents=1, sampler="mixture"),
        (1, 4, 16),
    ),
    "WIND, unseen = 1/2": (lambda beta, x: Regression(wg.wind(x * beta), draws=DRAWS, unseen="half"), (1, 4, 16)),
    "WIND, reused": (lambda beta, x: Regression(wg.wind(x * beta), draws=DRAWS, opponents=1, reuse=4), (1, 4, 16)),
    "WIND, all responses": (lambda beta, x: Regression(wg.wind(x * beta), **ALL), (1, 4, 16)),
    "WIND, decaying": (lambda beta, x: Regression(decaying(beta, x), **ALL), (0.5, 1)),
    "extragradient": (lambda beta, x: Regression(wg.extragradient(x * beta), **ALL), (1, 4, 16)),
    "Nash-MD": (lambda beta, x: Regression(wg.nash_md(x * beta), **ALL), (0.5, 1, 4)),
    "SPPO": (lambda beta, x: Regression(wg.sppo(x * beta), draws=DRAWS), (1, 4, 16)),
    "J-BOND": (lambda beta, x: JBond(x, draws=DRAWS), (0.2, 1, 5)),
    "best-of-n distillation": (lambda beta, x: BestOfN(4, x), (0.1, 0.5, 2.5)),
    "iterative BOND": (
        lambda beta, x: Regression(wg.iterative_bon(x, 1 / (1 + beta * (x - 1))), draws=DRAWS),
        (1.5, 2, 4),
    ),
    "REINFORCE": (lambda beta, x: Reinforce(x, draws=DRAWS), (0.2, 1, 5)),
    "REINFORCE, self-play": (lambda beta, x: Reinforce(x, draws=DRAWS, signal="comparison"), (0.2, 1, 5)),
}
"""Every learner as a function of beta and one number, its step or what stands for it, with three values to try."""
UNIT = {"iterative BOND": "n", "WIND, decaying": "L", "J-BOND": "rate", "best-of-n distillation": "rate"}
GENTLE = {name: steps[0] for name, (_, steps) in LEARNERS.items()} | {"WIND": 4, "WIND, all responses": 4, "SPPO": 4}


def learn(
    name: str, step: float, where: str, rng: np.random.Generator, *, beta: float = BETA, **settings: Any
) -> Run | None:
    """Run a learner in a world; None if it needs a reward and there is none."""
    here = world(where, beta)
    learner, game = LEARNERS[name][0](beta, step), here.game
    if here.weak is None and name in ("iterative BOND", "REINFORCE"):
        return None
    if name == "iterative BOND":
        game, _ = bond_game(where, beta, step)
    settings.setdefault("oracle", here.oracle())
    return run(
        learner, game, settings.pop("oracle"), rng, judge=here.game, solution=equilibrium(where, beta), **settings
    )


def interval(x: np.ndarray) -> tuple[float, float, float]:
    """Return the median over seeds and its 95 per cent bootstrap interval."""
    x = np.asarray(x, dtype=float)
    if len(x) < 3 or np.ptp(x) == 0 or not np.all(np.isfinite(x)):
        return float(np.median(x)), float(np.min(x)), float(np.max(x))
    found = bootstrap((x,), np.median, n_resamples=999, method="percentile", rng=np.random.default_rng(0))
    return float(np.median(x)), float(found.confidence_interval.low), float(found.confidence_interval.high)


def stays_below(values: np.ndarray, threshold: float, cost: np.ndarray) -> np.ndarray:
    """Return, for each seed, the cost of the first record from which on the values stay below; inf if none."""
    below = np.flip(np.logical_and.accumulate(np.flip(values <= threshold, 0), 0), 0)
    first = np.argmax(below, axis=0)
    return np.where(below[-1], cost[first], inf)


THRESHOLDS = (0.1, 0.01)


def curve_rows(found: Run, key: dict[str, Any], cost: str, every: int = 1) -> Rows:
    """Return a run as rows: the curve of its median seed with intervals, and what it took to stay below thresholds."""
    distance = found.mean("kl_from_solution")
    at = sorted({*range(0, len(found.steps), every), len(found.steps) - 1})
    rows = []
    for i in at:
        middle, low, high = interval(distance[i])
        rows.append(
            key
            | {
                "part": "curve",
                "round": int(found.steps[i]),
                "queries": float(found.queries[i]),
                "draws": float(found.draws[i]),
                "seconds": float(found.seconds[i]),
                "kl": middle,
                "kl_low": low,
                "kl_high": high,
                "kl_mean": float(distance[i].mean()),
                "certificate": float(np.median(found.mean("kl_certificate")[i])),
                "kl_ref": float(np.median(found.mean("kl_ref")[i])),
            }
        )
    for threshold in THRESHOLDS:
        costs = stays_below(distance, threshold, getattr(found, cost))
        reached = np.isfinite(costs)
        middle, low, high = interval(np.where(reached, costs, np.nan)) if reached.all() else (nan, nan, nan)
        first = np.where(
            (distance <= threshold).any(axis=0), getattr(found, cost)[np.argmax(distance <= threshold, axis=0)], inf
        )
        rows.append(
            key
            | {
                "part": "reach",
                "threshold": threshold,
                "share": float(reached.mean()),
                "cost": middle,
                "cost_low": low,
                "cost_high": high,
                "passed": float(np.isfinite(first).mean()),
                "final_kl": float(np.median(distance[-1])),
            }
        )
    return rows


# -- queries and seconds -------------------------------------------------------------------------------------


def queries_configs(scale: Scale) -> list[dict[str, Any]]:
    worlds = scale.pick(("reward",), ("reward", "intransitive"), WORLDS)
    total = scale.pick(6000, 100_000, 400_000)
    names = scale.pick(["WIND", "WIND, all responses", "SPPO", "J-BOND"], list(LEARNERS), list(LEARNERS))
    return [
        {"world": w, "learner": name, "step": x, "queries": total, "seeds": scale.seeds}
        for w in worlds
        for name in names
        for x in LEARNERS[name][1][: scale.pick(2, 3, 3)]
    ]


def queries_cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    found = learn(
        config["learner"],
        config["step"],
        config["world"],
        rng,
        queries=config["queries"],
        replicates=config["seeds"],
        records=60,
    )
    key = {k: config[k] for k in ("world", "learner", "step", "seeds")}
    if found is None:
        return []
    rows = curve_rows(found, key, "queries", every=3)
    if config["learner"] == "WIND, all responses":
        rows += _bound_rows(config, found)
    return rows


def _bound_rows(config: dict[str, Any], found: Run) -> Rows:
    """Return theory 7.7's bound along the run, where the step is inside the theorem."""
    game = world(config["world"]).game
    L = np.broadcast_to(game.preference.interaction, game.batch_shape)
    eta, eps = config["step"] * BETA, np.where(config["world"] in ("Bradley-Terry", "intransitive"), 1.0, L)
    if eta > np.min(wind_step(game)):
        return []
    first = found.trace["kl_from_solution"][0, 0]
    rows = []
    for t, queries in list(zip(found.steps, found.queries, strict=True))[::3]:
        bound = bounds.linear_rate(BETA, eta) ** int(t) * first + bounds.noise_floor(BETA, eta, eps)
        key = {"world": config["world"], "learner": config["learner"], "step": config["step"], "part": "bound"}
        rows.append(key | {"queries": float(queries), "kl": float(bound.mean())})
    return rows


def best_steps(table: pd.DataFrame, over: list[str]) -> pd.DataFrame:
    """Return, for each learner, the rows of the step with the least final distance."""
    final = table[(table.part == "reach") & (table.threshold == THRESHOLDS[-1])]
    best = final.loc[final.groupby([*over, "learner"], sort=False).final_kl.idxmin(), [*over, "learner", "step"]]
    return table.merge(best, on=[*over, "learner", "step"])


def cheapest(table: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Return, for each world and learner, the row of the step that stays below a threshold at least cost."""
    rows = table[(table.part == "reach") & (table.threshold == threshold)].copy()
    rows["order"] = rows.cost.fillna(np.inf)
    rows = rows.sort_values(["order", "final_kl"], kind="stable")
    return rows.groupby(["world", "learner"], sort=False).head(1)


def queries_report(table: pd.DataFrame) -> None:
    for threshold in THRESHOLDS:
        rows = cheapest(table, threshold).copy()
        own = rows[rows.learner == "WIND"].set_index("world").cost
        rows["to_WIND"] = rows.cost / rows.world.map(own)
        rows["interval"] = [
            f"{a:.3g} to {b:.3g}"
            if np.isfinite(c)
            else ("passes, leaves" if p > 0.5 > s else "not all" if s else "never")
            for a, b, c, p, s in zip(rows.cost_low, rows.cost_high, rows.cost, rows.passed, rows.share, strict=True)
        ]
        first = table.world.iloc[0]
        shown = rows[rows.world == first][["learner", "step", "cost", "interval", "share", "to_WIND", "final_kl"]]
        reached = rows[rows.cost.notna()].groupby("world").learner.apply(lambda x: len(x)).to_dict()
        fastest = rows[rows.cost.notna()].sort_values("cost").groupby("world").learner.first().to_dict()
        show(
            f"Queries per seed until KL(pi*||pi) stays below {threshold:g} "
            f"(world: {first}; the best of the steps tried)",
            shown.rename(columns={"cost": "queries"}),
            f"Median of {int(table.seeds.max())} seeds with 95% intervals. Learners that reach it: {reached}; "
            f"first: {fastest}.",
        )
    gone = cheapest(table, 0.1)
    gone = gone[(gone.share < 0.5) & (gone.passed > 0.5)].groupby("learner").world.count()
    bound = table[table.part == "bound"]
    same = table[(table.part == "curve") & (table["round"] > 0)].merge(
        bound, on=["world", "learner", "step", "queries"], suffixes=("", "_bound")
    )
    print(
        f"=> Pass within 0.1 of the equilibrium and leave it again: {gone.to_dict() or 'none'}.\n"
        f"=> SPPO, J-BOND, best-of-n distillation, iterative BOND and REINFORCE on rewards aim elsewhere, and are "
        f"measured from here all the same.\n"
        f"=> After the first round the mean distance was at most {(same.kl_mean / same.kl_bound).max():.3f} of the "
        f"finite-time bound (theory 7.7) in {len(same)} records."
    )


def seconds_configs(scale: Scale) -> list[dict[str, Any]]:
    names = scale.pick(["WIND", "SPPO"], list(LEARNERS), list(LEARNERS))
    return [
        {
            "world": "reward",
            "learner": name,
            "step": x,
            "seconds": scale.pick(0.02, 0.1, 1.0),
            "seeds": scale.pick(2, 3, 5),
        }
        for name in names
        for x in LEARNERS[name][1][: scale.pick(1, 3, 3)]
    ]


def seconds_cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    learn(config["learner"], config["step"], config["world"], rng, rounds=3)  # warm up
    runs = [
        learn(config["learner"], config["step"], config["world"], child, seconds=config["seconds"], replicates=1)
        for child in rng.spawn(config["seeds"])
    ]
    at = np.geomspace(config["seconds"] / 30, config["seconds"], 12)
    distance = np.stack([np.interp(at, r.seconds, r.mean("kl_from_solution")[:, 0]) for r in runs if r], axis=-1)
    key = {k: config[k] for k in ("world", "learner", "step", "seeds")}
    rows = []
    for t, values in zip(at, distance, strict=True):
        middle, low, high = interval(values)
        rows.append(key | {"part": "curve", "seconds": float(t), "kl": middle, "kl_low": low, "kl_high": high})
    per_second = float(np.median([r.queries[-1] / r.seconds[-1] for r in runs if r]))
    rounds = float(np.median([r.steps[-1] / r.seconds[-1] for r in runs if r]))
    final = float(np.median(distance[-1]))
    reach = {"part": "reach", "threshold": THRESHOLDS[-1], "final_kl": final}
    return [*rows, key | reach | {"queries_per_second": per_second, "rounds_per_second": rounds}]


def seconds_report(table: pd.DataFrame) -> None:
    rows = best_steps(table, [])
    rows = rows[rows.part == "reach"].sort_values("final_kl")
    limit = table.seconds.max()
    own = rows[rows.learner == "WIND"].final_kl.iloc[0]
    show(
        f"KL(pi*||pi) after {limit:g} seconds of learning, one core, no replicates (the best of the steps tried)",
        rows[["learner", "step", "final_kl", "rounds_per_second", "queries_per_second"]],
        f"Best: {rows.learner.iloc[0]} at {rows.final_kl.iloc[0]:.2g}; WIND on its own draws {own:.2g}. "
        f"Seconds differ between machines; the order is what to compare.",
    )


# -- frontier: win rate against KL ---------------------------------------------------------------------------

FRONTIER_BETAS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
FRONTIER_WORLD = "two hundred atoms"
TRAJECTORIES = ("SPPO", "J-BOND", "best-of-n distillation")


def frontier_configs(scale: Scale) -> list[dict[str, Any]]:
    total = scale.pick(20_000, 100_000, 400_000)
    betas = FRONTIER_BETAS[::3] if scale.smoke else FRONTIER_BETAS
    cells = [{"part": "WIND", "beta": beta, "queries": total, "seeds": scale.seeds} for beta in betas]
    cells += [{"part": "REINFORCE", "beta": beta, "queries": total, "seeds": scale.seeds} for beta in betas]
    cells += [{"part": name, "beta": BETA, "queries": total, "seeds": scale.seeds} for name in TRAJECTORIES]
    return [*cells, {"part": "exact"}]


def frontier_cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    part = config["part"]
    if part == "exact":
        return _frontier_exact()
    settings: dict[str, Any] = {"queries": config["queries"], "replicates": config["seeds"], "beta": config["beta"]}
    if part == "WIND":
        found = learn("WIND, decaying", 0.5, FRONTIER_WORLD, rng, **settings)
    else:
        found = learn(part, GENTLE[part], FRONTIER_WORLD, rng, records=240, **settings)
    assert found is not None
    at = range(0, len(found.steps), 4) if part in TRAJECTORIES else [-1]
    return [
        {
            "part": part,
            "beta": config["beta"],
            "round": int(found.steps[i]),
            "kl_ref": float(np.median(found.mean("kl_ref")[i])),
            "win_rate": float(np.median(found.mean("win_rate")[i])),
        }
        for i in at
    ]


def _frontier_exact() -> Rows:
    """Return the exact points: both games' equilibria, best-of-n, and the closed forms without atoms."""
    here = world(FRONTIER_WORLD)
    game, rows = here.game, []

    def point(part: str, number: float, log_policy: np.ndarray) -> None:
        rate = expectation(log_policy, game.preference.win_rate(game.log_ref)).mean()
        rows.append(
            {
                "part": part,
                "beta": number,
                "kl_ref": float(kl(log_policy, game.log_ref).mean()),
                "win_rate": float(rate),
            }
        )

    for beta in np.geomspace(0.01, 3, 25):
        point("equilibrium", float(beta), wg.equilibrium(wg.WinRateGame(game.preference, game.ref, beta)).log_policy)
    for n in np.unique(np.geomspace(1, 128, 15).round()):
        point("best-of-n", float(n), wg.best_of_n(game.preference, game.log_ref, float(n)))
    for d in np.geomspace(1e-3, 6, 30):
        for part, policy in zip(
            ("continuum, game", "continuum, best-of-n"),
            (wg.continuum.WinRate.from_kl(d), wg.continuum.BestOfN.from_kl(d)),
            strict=True,
        ):
            rows.append({"part": part, "beta": nan, "kl_ref": float(d), "win_rate": float(policy.win_rate())})
    return rows


def frontier_report(table: pd.DataFrame) -> None:
    exact = table[table.part == "equilibrium"].sort_values("kl_ref")
    best = table[table.part == "best-of-n"].sort_values("kl_ref")
    learned = table[table.part.isin(["WIND", "REINFORCE"])].copy()
    learned["equilibrium"] = np.interp(learned.kl_ref, exact.kl_ref, exact.win_rate)
    learned["best_of_n"] = np.interp(learned.kl_ref, best.kl_ref, best.win_rate)
    game, closed = table[table.part == "continuum, game"], exact
    inside = game[(game.kl_ref > closed.kl_ref.min()) & (game.kl_ref < 2.5)]
    off = np.abs(np.interp(inside.kl_ref, closed.kl_ref, closed.win_rate) - inside.win_rate).max()
    ends = table[table.part.isin(TRAJECTORIES)].groupby("part").tail(1)
    apart = (learned.win_rate - learned.equilibrium)[learned.part == "WIND"].abs().max()
    show(
        "Win rate against the reference at the KL it costs (200 atoms), and what exact policies have at the same KL",
        learned[["part", "beta", "kl_ref", "win_rate", "equilibrium", "best_of_n"]],
        f"WIND's points lie within {apart:.3f} of the "
        f"game's own frontier, which the closed form without atoms gives to {off:.3f}. "
        + "; ".join(f"{r.part} ends at KL {r.kl_ref:.2f}, win rate {r.win_rate:.3f}" for r in ends.itertuples())
        + f" (the largest KL possible here is {float(-np.log(world(FRONTIER_WORLD).game.ref.min())):.2f}).",
    )


# -- ablation: beta by eta -----------------------------------------------------------------------------------


def ablation_configs(scale: Scale) -> list[dict[str, Any]]:
    betas = np.geomspace(0.03, 1.0, scale.pick(3, 7, 11))
    worlds = ("reward", "rock-paper-scissors")
    return [
        {
            "world": w,
            "beta": round(float(b), 5),
            "points": scale.pick(4, 9, 15),
            "rounds": scale.pick(200, 1500, 2500),
            "seeds": scale.seeds,
        }
        for w in worlds
        for b in betas
    ]


def ablation_cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    """Run WIND, exact and sampled, for a range of steps at one beta."""
    beta = config["beta"]
    if config["world"] == "reward":
        game = world("reward", beta).game
    else:
        preference, ref = rock_paper_scissors()
        game = wg.WinRateGame(wg.MatrixPreference(preference.matrix()[None]), ref[None], beta)
    L = float(np.max(game.preference.interaction))
    star = wg.equilibrium(game, tol=1e-11)
    rows = []
    for ratio in np.geomspace(0.1, 1000, config["points"]):  # eta over beta
        eta = float(ratio) * beta
        exact = wg.solve(game, wg.wind(eta), tol=1e-6, max_steps=config["rounds"], reference_solution=star)
        assert exact.trace is not None
        assert exact.trace.kl_from_solution is not None
        sampled = run(
            Regression(wg.wind(eta), **ALL),
            game,
            Oracle(game.preference),
            rng,
            rounds=config["rounds"] // 3,
            replicates=config["seeds"],
            solution=star,
            records=30,
        )
        far = exact.trace.kl_from_solution.mean(axis=-1)
        end = sampled.mean("kl_from_solution")[-1]
        inside = eta <= bounds.wind_max_step(beta, L)
        bound = bounds.linear_rate(beta, eta) ** int(sampled.steps[-1]) * far[0] + bounds.noise_floor(beta, eta, L)
        rows.append(
            {
                "world": config["world"],
                "beta": beta,
                "ratio": round(float(ratio), 6),
                "eta": eta,
                "interaction": L,
                "largest": float(bounds.wind_max_step(beta, L)),
                "exact_steps": float(np.argmax(far <= 1e-6)) if (far <= 1e-6).any() else nan,
                "exact_kl": float(far[-1]),
                "sampled_kl": float(np.median(end)),
                "sampled_mean": float(np.mean(end)),
                "bound": float(bound) if inside else nan,
                "initial_kl": float(far[0]),
            }
        )
    return rows


def ablation_report(table: pd.DataFrame) -> None:
    for name, rows in table.groupby("world", sort=False):
        shown = rows.pivot_table(index="beta", columns="ratio", values="sampled_kl")
        shown = shown.iloc[:: max(1, len(shown) // 6), :: max(1, shown.shape[1] // 7)]
        shown.columns = [f"{c:.3g} beta" for c in shown.columns]
        best = rows.loc[rows.groupby("beta").sampled_kl.idxmin()]
        lost = rows[rows.exact_steps.isna() & (rows.eta > rows.largest)]
        show(
            f"Final KL(pi*||pi) of sampled WIND, beta by eta ({name})",
            shown.reset_index(),
            f"The best eta is {best.ratio.min():.2g} to {best.ratio.max():.2g} times beta. Beyond the theorem's "
            f"{rows.largest.iloc[0] / rows.beta.iloc[0]:.3g} beta exact WIND failed to converge at {len(lost)} of "
            f"{int((rows.eta > rows.largest).sum())} points.",
        )
    known = table[table.bound.notna()]
    print(
        f"=> At the {len(known)} points inside the theorem the mean final distance was at most "
        f"{(known.sampled_mean / known.bound).max():.2f} of the finite-time bound (theory 7.7)."
    )


# -- robustness ----------------------------------------------------------------------------------------------

FLIPS = (0.0, 0.1, 0.2, 0.3, 0.4)
BIASES = (0.0, 0.1, 0.25, 0.5)
CORRECTED = "WIND, beta (1 - 2q)"
"""WIND on all responses with the price that makes up for flips of known probability (theory 7.10)."""
ROBUST = (
    "WIND",
    "WIND, all responses",
    CORRECTED,
    "Nash-MD",
    "SPPO",
    "J-BOND",
    "best-of-n distillation",
    "REINFORCE, self-play",
)


def robust_configs(scale: Scale) -> list[dict[str, Any]]:
    total = scale.pick(20_000, 300_000, 1_000_000)  # forty contexts
    names = ROBUST[::3] if scale.smoke else ROBUST
    worlds = scale.pick(("forty contexts",), ("forty contexts",), ("forty contexts", "digits"))
    kinds = [("flip", x) for x in (FLIPS[::2] if scale.smoke else FLIPS)]
    kinds += [("bias", x) for x in (BIASES[::3] if scale.smoke else BIASES)]
    return [
        {"world": w, "learner": name, "kind": kind, "level": x, "queries": total, "seeds": scale.seeds}
        for w in worlds
        for name in names
        for kind, x in kinds
        if not (name == CORRECTED and kind == "bias")
    ]


def robust_cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    here = world(config["world"])
    reward = here.game.preference.reward
    if config["kind"] == "flip":
        asked: wg.Preference = flipped(here.game.preference, config["level"])
        if config["level"] == 0:
            asked = here.game.preference
    else:  # every learner and seed meets the same systematic errors, other ones in each context
        size = 2 * float(np.std(reward))
        asked = wg.RewardPreference(biased_reward(reward, config["level"], size, np.random.default_rng(7)))
    name, beta = config["learner"], BETA
    if name == CORRECTED:
        name, beta = "WIND, all responses", BETA * (1 - 2 * config["level"])
    learner, game = (
        LEARNERS[name][0](beta, GENTLE[name] * (BETA / beta)),
        wg.WinRateGame(here.game.preference, here.game.ref, beta),
    )
    found = run(
        learner,
        game,
        Oracle(asked),
        rng,
        judge=here.game,
        solution=equilibrium(config["world"]),
        queries=config["queries"],
        replicates=config["seeds"],
        records=10,
    )
    target = wg.equilibrium(wg.WinRateGame(asked, here.game.ref, BETA)).log_policy
    against_ref = here.game.preference.win_rate(here.game.log_ref)
    middle, low, high = interval(found.mean("win_rate")[-1])
    return [
        {k: config[k] for k in ("world", "learner", "kind", "level", "seeds")}
        | {
            "win_rate": middle,
            "low": low,
            "high": high,
            "kl_ref": float(np.median(found.mean("kl_ref")[-1])),
            "kl_true": float(np.median(found.mean("kl_from_solution")[-1])),
            "judge_equilibrium": float(expectation(target, against_ref).mean()),
            "true_equilibrium": float(expectation(equilibrium(config["world"]).log_policy, against_ref).mean()),
        }
    ]


def robust_report(table: pd.DataFrame) -> None:
    for kind, words in (("flip", "probability of a flipped answer"), ("bias", "share of responses judged too well")):
        rows = table[(table.kind == kind) & (table.world == table.world.iloc[0])]
        shown = rows.pivot_table(index="learner", columns="level", values="win_rate", sort=False)
        shown.columns = [f"{c:g}" for c in shown.columns]
        worst = rows[rows.level == rows.level.max()].sort_values("win_rate")
        low, high = worst.iloc[0], worst.iloc[-1]
        judge = rows.groupby("level").judge_equilibrium.first()
        show(
            f"True win rate against the reference, by {words} (world: {table.world.iloc[0]})",
            shown.reset_index(),
            f"At {rows.level.max():g} it is {low.win_rate:.3f} ({low.learner}) to {high.win_rate:.3f} "
            f"({high.learner}); the judge's own equilibrium has {judge.iloc[-1]:.3f}, the true one "
            f"{rows.true_equilibrium.iloc[0]:.3f}.",
        )


# -- diversity -----------------------------------------------------------------------------------------------

DIVERSE = [
    ("WIND, all responses", 0.05),
    ("WIND, all responses", 0.1),
    ("WIND, all responses", 0.3),
    ("WIND, all responses", 1.0),
    ("SPPO", 0.1),
    ("J-BOND", 0.1),
    ("best-of-n distillation", 0.1),
    ("REINFORCE, self-play", 0.1),
]
FACTORS = (0.8, 0.95, 1.05, 1.2)
"""n alpha1 + alpha2 of exact iterative best-of-4, on both sides of the threshold."""


def diversity_configs(scale: Scale) -> list[dict[str, Any]]:
    total = scale.pick(6000, 100_000, 400_000)
    cells: list[dict[str, Any]] = [
        {"learner": name, "beta": beta, "queries": total, "seeds": scale.seeds} for name, beta in DIVERSE
    ]
    return cells + [
        {"learner": "iterative best-of-n", "factor": f, "rounds": scale.pick(30, 300, 1000)} for f in FACTORS
    ]


def diversity_cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    if "factor" in config:
        return _exact_diversity(config)
    found = learn(
        config["learner"],
        GENTLE[config["learner"]],
        "reward",
        rng,
        beta=config["beta"],
        queries=config["queries"],
        replicates=config["seeds"],
        records=30,
    )
    assert found is not None
    return [
        {
            "learner": config["learner"],
            "beta": config["beta"],
            "round": int(found.steps[i]),
            "queries": float(found.queries[i]),
            "entropy": float(np.median(found.mean("entropy")[i])),
            "effective_support": float(np.median(np.exp(found.trace["entropy"][i]).mean(axis=-1))),
            "top_mass": float(np.median(found.mean("top_mass")[i])),
        }
        for i in range(len(found.steps))
    ]


def _exact_diversity(config: dict[str, Any]) -> Rows:
    """Iterative best-of-4 in its exact form, no samples: where it collapses is the operator's doing."""
    here, n = world("reward"), 4
    mix = (n, config["factor"] / n, 0.0)
    game = wg.LogWinRateGame.from_best_of_n(here.weak, here.game.ref, *mix)
    marks = set(np.unique(np.geomspace(1, config["rounds"] + 1, 30).round().astype(int) - 1))
    rows: Rows = []

    def note(step: int, log_policy: np.ndarray) -> None:
        if step not in marks:
            return
        entropy = -expectation(log_policy, np.where(log_policy > -inf, log_policy, 0.0))
        rows.append(
            {
                "learner": f"iterative best-of-n, {config['factor']:g}",
                "beta": float(game.beta),
                "round": step,
                "queries": nan,
                "entropy": float(entropy.mean()),
                "effective_support": float(np.exp(entropy).mean()),
                "top_mass": float(np.sum(np.exp(log_policy) * here.game.preference.top, axis=-1).mean()),
            }
        )

    note(0, game.log_ref)
    wg.solve(game, wg.iterative_bon(*mix), tol=0, max_steps=config["rounds"], callback=note)
    return rows


def diversity_report(table: pd.DataFrame) -> None:
    last = table.groupby(["learner", "beta"], sort=False).tail(1)
    start = table.effective_support.iloc[0]
    fallen = last[last.top_mass > 0.95]
    kept = last[last.learner.str.startswith("WIND")]
    show(
        "Diversity at the end (20 responses)",
        last[["learner", "beta", "entropy", "effective_support", "top_mass"]],
        f"From an effective support of {start:.1f}. Collapsed onto the best response (mass above 0.95): "
        f"{', '.join(f'{r.learner} (beta {r.beta:g})' for r in fallen.itertuples()) or 'none'}. WIND keeps "
        f"{kept.effective_support.min():.2f} to {kept.effective_support.max():.2f} as beta goes from "
        f"{kept.beta.min():g} to {kept.beta.max():g}.",
    )


# -- logs: an estimate and its logarithm ---------------------------------------------------------------------

LOG_RATES = (0.02, 0.1, 0.5, 0.9)
LOG_BETA = 1.5


def logs_configs(scale: Scale) -> list[dict[str, Any]]:
    counts = (2, 16) if scale.smoke else (1, 2, 4, 8, 16, 32, 64, 128)
    cells: list[dict[str, Any]] = [
        {"part": "estimate", "opponents": k, "trials": scale.pick(2000, 20_000, 100_000)} for k in counts
    ]
    return cells + [
        {
            "part": "equilibrium",
            "learner": name,
            "opponents": k,
            "rounds": scale.pick(300, 2000, 8000),
            "seeds": scale.seeds,
        }
        for name in ("WIND", "iterative BOND")
        for k in counts
    ]


def logs_cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    k = config["opponents"]
    if config["part"] == "estimate":
        rows = []
        for w in LOG_RATES:  # what the learners make of k answers of mean w
            answers = (rng.random((config["trials"], 1, k)) < w).astype(float)
            rate = win_rates(answers, "independent")[:, 0]
            logs = np.log((rate * k + 1) / (k + 1))
            bias, deviation = bounds.log_win_rate_error(w, k)
            rows.append(
                {
                    "part": "estimate",
                    "opponents": k,
                    "rate": w,
                    "bias": float(rate.mean() - w),
                    "deviation": float(rate.std()),
                    "log_bias": float(logs.mean() - np.log(w)),
                    "log_deviation": float(logs.std()),
                    "log_bias_exact": float(bias),
                    "log_deviation_exact": float(deviation),
                }
            )
        return rows
    # the same beta, each learner towards the equilibrium of its own game
    here = world("reward", LOG_BETA)
    if config["learner"] == "WIND":
        game: wg.Game = here.game
        rule: Any = wg.wind(0.05)
    else:
        n = 1.1  # eta = (n - 1): small steps average the noise out, and leave the bias
        mix = (n, 1 / (1 + LOG_BETA * (n - 1)))
        game, rule = wg.LogWinRateGame.from_best_of_n(here.weak, here.game.ref, *mix), wg.iterative_bon(*mix)
    learner = Regression(rule, sampler="all", opponents=k)
    found = run(learner, game, here.oracle(), rng, rounds=config["rounds"], replicates=config["seeds"], records=60)
    middle, low, high = interval(found.mean("kl_from_solution")[-8:].mean(axis=0))
    start = float(found.mean("kl_from_solution")[0].mean())
    return [
        {
            "part": "equilibrium",
            "learner": config["learner"],
            "opponents": k,
            "kl": middle,
            "kl_low": low,
            "kl_high": high,
            "kl_start": start,
        }
    ]


def logs_report(table: pd.DataFrame) -> None:
    rows = table[table.part == "estimate"]
    shown = rows[rows.rate.isin(LOG_RATES[::2])][
        ["opponents", "rate", "bias", "log_bias", "log_bias_exact", "log_deviation"]
    ]
    end = table[table.part == "equilibrium"].pivot_table(index="opponents", columns="learner", values="kl", sort=False)
    bond, wind = end["iterative BOND"], end["WIND"]
    show(
        "A win rate estimated from K comparisons, and its logarithm: bias",
        shown.rename(columns={"opponents": "K"}),
        f"The log's bias is largest at K = {int(rows.opponents.min())}: {rows.log_bias.max():.2f} at a win rate of "
        f"{rows.loc[rows.log_bias.idxmax(), 'rate']:g}; the exact sum (theory 7.6) differs from the measured one by at "
        f"most {(rows.log_bias - rows.log_bias_exact).abs().max():.3f}. The win rate's own bias is at most "
        f"{rows.bias.abs().max():.3f}.",
    )
    show(
        f"KL from the learner's own equilibrium after learning with K opponents (beta = {LOG_BETA:g})",
        end.reset_index().rename(columns={"opponents": "K"}),
        f"From {int(end.index.min())} to {int(end.index.max())} opponents iterative BOND's distance falls from "
        f"{bond.iloc[0]:.2g} to {bond.iloc[-1]:.2g}: a bias, which more rounds do not mend; WIND's from "
        f"{wind.iloc[0]:.2g} to {wind.iloc[-1]:.2g}: noise.",
    )


# -- unseen contexts -----------------------------------------------------------------------------------------

UNSEEN_RISKS = ("squared", "kl", "nce", "constant")


def unseen_configs(scale: Scale) -> list[dict[str, Any]]:
    sizes = (10, 40) if scale.smoke else (10, 20, 40, 80, 160)
    worlds = scale.pick(("featured",), ("featured", "digits"), ("featured", "digits"))
    rounds = scale.pick(8, 40, 60)
    cells = [
        {"world": w, "contexts": n, "risk": "squared", "rounds": rounds, "seeds": scale.pick(2, 4, 10)}
        for w in worlds
        for n in sizes
    ]
    cells += [
        {"world": "featured", "contexts": 40, "risk": r, "rounds": rounds, "seeds": scale.pick(2, 4, 10)}
        for r in UNSEEN_RISKS[1:]
    ]
    return cells


def _split(name: str, n: int) -> tuple[Bandit, Bandit]:
    """Return contexts to learn on, and others."""
    if name == "digits":
        whole = digits(400)
        return whole.part(slice(0, n)), whole.part(slice(200, 400))
    whole = featured(400, 20, 32)
    return whole.part(slice(0, n)), whole.part(slice(200, 400))


def unseen_cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    beta = 0.2
    seen, other = _split(config["world"], config["contexts"])
    games = [wg.WinRateGame(wg.RewardPreference(b.reward), b.ref, beta) for b in (seen, other)]
    stars = [wg.equilibrium(game).log_policy for game in games]
    policies = [LogLinear(np.log(b.ref), b.features, ridge=1e-3) for b in (seen, other)]
    constant = config["risk"] == "constant"
    learner = Regression(
        wg.wind(beta),
        draws=DRAWS,
        pairing="constant" if constant else "group",
        risk="squared" if constant else config["risk"],
    )
    found = run(
        learner,
        games[0],
        Oracle(games[0].preference),
        rng,
        rounds=config["rounds"],
        solution=stars[0],
        policy=policies[0],
        replicates=config["seeds"],
        records=20,
    )
    rows = []
    for part, game, policy, star in zip(("seen", "unseen"), games, policies, stars, strict=True):
        log_policy = policy.log_policy(found.theta)
        distance = kl(np.broadcast_to(star, log_policy.shape), log_policy).mean(axis=-1)
        rate = expectation(log_policy, np.broadcast_to(game.preference.win_rate(game.log_ref), log_policy.shape)).mean(
            axis=-1
        )
        middle, low, high = interval(distance)
        rows.append(
            {k: config[k] for k in ("world", "contexts", "risk", "rounds", "seeds")}
            | {
                "part": part,
                "kl": middle,
                "kl_low": low,
                "kl_high": high,
                "kl_start": float(kl(star, game.log_ref).mean()),
                "kl_best": float(kl(star, policy.log_policy(_nearest(policy, star))).mean()),
                "win_rate": float(np.median(rate)),
                "queries": float(found.queries[-1]),
            }
        )
    return rows


def _nearest(policy: LogLinear, star: np.ndarray) -> np.ndarray:
    """Return the parameters of the class that minimise the divergence from the equilibrium on its contexts."""
    from scipy.optimize import minimize

    n = len(star)

    def value(theta: np.ndarray) -> tuple[float, np.ndarray]:
        log_policy = policy.log_policy(theta)
        slope = np.einsum("cm,cmd->d", np.exp(log_policy) - np.exp(star), policy.features) / n
        return float(kl(star, log_policy).mean()) + 1e-6 * theta @ theta, slope + 2e-6 * theta

    return minimize(value, policy.start(), jac=True, method="L-BFGS-B", options={"maxiter": 2000}).x


def unseen_report(table: pd.DataFrame) -> None:
    rows = table[table.risk == "squared"]
    shown = rows.pivot_table(
        index=["world", "contexts"], columns="part", values=["kl", "kl_best", "win_rate"], sort=False
    )
    shown.columns = [f"{a}, {b}" for a, b in shown.columns]
    last = rows[(rows.contexts == rows.contexts.max()) & (rows.part == "unseen")]
    show(
        "Log-linear policies: KL(pi*||pi) on contexts drawn, and on 200 others (kl_best: the class at its best)",
        shown.reset_index(),
        "On contexts never drawn, with the most to learn from: "
        + "; ".join(f"{r.world} {r.kl_start:.3g} -> {r.kl:.3g}, win rate {r.win_rate:.3f}" for r in last.itertuples())
        + ".",
    )
    risks = table[(table.world == "featured") & (table.contexts == 40) & (table.part == "seen")]
    shown, centred_risks = risks[["risk", "rounds", "kl", "kl_best", "win_rate"]], risks[risks.risk != "constant"]
    show(
        "The three risks, and the constant normaliser, on the same class (40 contexts)",
        shown,
        f"Squared, KL and NCE end within {np.ptp(centred_risks.kl):.2g} of each other; "
        f"the constant normaliser at {risks[risks.risk == 'constant'].kl.iloc[0]:.3g}.",
    )


# -- pieces of the guarantee ---------------------------------------------------------------------------------


def pieces_configs(scale: Scale) -> list[dict[str, Any]]:
    dims = (16,) if scale.smoke else (8, 32, 128)
    cells: list[dict[str, Any]] = [
        {"part": "sum", "dimension": d, "rounds": scale.pick(10, 60, 150), "groups": scale.pick(2, 8, 16)} for d in dims
    ]
    sizes = (20, 40) if scale.smoke else (20, 40, 80, 160, 320)
    return cells + [{"part": "generalise", "contexts": n, "trials": scale.pick(4, 20, 60)} for n in sizes]


def pieces_cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    return _sum_of_errors(config, rng) if config["part"] == "sum" else _generalisation(config, rng)


PIECES_BETA = 0.3


def _sample(
    game: wg.WinRateGame, policy: LogLinear, theta: np.ndarray, groups: int, rng: np.random.Generator
) -> list[LabelledSamples]:
    """Return groups of draws of every context with their labels, as `Regression` makes them."""
    oracle, out = Oracle(game.preference), []
    for _ in range(groups):
        y = sample(policy.log_policy(theta), DRAWS, rng)
        outcomes = oracle.compare(np.repeat(y, DRAWS, -1), np.tile(y, DRAWS), rng).reshape(*y.shape, DRAWS)
        out.append(LabelledSamples(slice(None), y, win_rates(outcomes, "group"), None, "group"))
    return out


def _stack(groups: list[LabelledSamples]) -> LabelledSamples:
    """Return groups as so many more contexts: each is centred by itself (theory 7.2)."""
    contexts = np.tile(np.arange(len(groups[0].y)), len(groups))
    return LabelledSamples(
        contexts, np.concatenate([s.y for s in groups]), np.concatenate([s.label for s in groups]), None, "group"
    )


def _sum_of_errors(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    """Run WIND on a log-linear class, splitting each step's error, and add the pieces up to a bound on the final KL."""
    bandit, beta = featured(20, 20, config["dimension"]), PIECES_BETA
    game = wg.WinRateGame(wg.RewardPreference(bandit.reward), bandit.ref, beta)
    policy = LogLinear(np.log(bandit.ref), bandit.features)
    star, eta = wg.equilibrium(game).log_policy, 2 * beta
    stage, theta, rows = Stage(beta, eta), policy.start(), []
    distance = kl(star, policy.log_policy(theta))
    exact_bound, coverage_bound = distance.copy(), distance.copy()
    for t in range(config["rounds"]):
        log_policy = policy.log_policy(theta)
        weight = np.exp(log_policy)
        w = game.payoff(log_policy)
        every = np.broadcast_to(np.arange(w.shape[-1]), w.shape)
        population = LabelledSamples(slice(None), every, w, weight, "independent")
        ideal = policy.least_squares(theta, population, theta, stage)
        seen = _stack(_sample(game, policy, theta, config["groups"], rng))
        new = policy.least_squares(theta, seen, theta, stage)

        def error(x: np.ndarray, lp: np.ndarray = log_policy, u: np.ndarray = w) -> np.ndarray:
            """Return the payoff's error that this step amounts to, of mean zero under the policy."""
            s = implied_payoff(policy.log_policy(x), lp, game.log_ref, beta=beta, eta=eta) - u
            return s - expectation(lp, s)[..., None]

        e, real = error(new), error(ideal)
        after = policy.log_policy(new)
        cross = expectation(after, e) - expectation(np.broadcast_to(star, e.shape), e)
        rms = np.sqrt(expectation(log_policy, e**2))
        cover = np.maximum(*(np.sum(np.exp(2 * q - log_policy), axis=-1) for q in (star, after)))
        exact_bound = (exact_bound + eta * np.maximum(cross, 0)) / (1 + beta * eta)
        coverage_bound = (coverage_bound + 2 * eta * np.sqrt(cover) * rms) / (1 + beta * eta)
        theta = new
        distance = kl(star, policy.log_policy(theta))
        if t % max(1, config["rounds"] // 30) == 0 or t == config["rounds"] - 1:
            rows.append(
                {
                    "part": "sum",
                    "dimension": config["dimension"],
                    "round": t + 1,
                    "kl": float(distance.mean()),
                    "realisability": float(np.sqrt(expectation(log_policy, real**2)).mean()),
                    "estimation": float(np.sqrt(expectation(log_policy, (e - real) ** 2)).mean()),
                    "concentrability": float(np.median(cover)),
                    "bound_exact_cross": float(exact_bound.mean()),
                    "bound_coverage": float(coverage_bound.mean()),
                }
            )
    return rows


def _generalisation(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    """Measure the gap between a step's risk on fresh contexts and on its own, beside the bound of theory 7.9."""
    n, beta, d = config["contexts"], PIECES_BETA, 8
    gaps, curvatures, slopes = [], [], []
    whole = featured(4000, 20, d)
    eta = 2 * beta
    stage, scale = Stage(beta, eta), 1 / eta + beta
    for _ in range(config["trials"]):
        at = rng.choice(4000, size=2 * n, replace=False)
        mine, fresh = (whole.part(at[:n]), whole.part(at[n:]))
        theta = np.zeros(d)
        samples, designs = [], []
        for b in (mine, fresh):
            game = wg.WinRateGame(wg.RewardPreference(b.reward), b.ref, beta)
            policy = LogLinear(np.log(b.ref), b.features)
            seen = _sample(game, policy, theta, 1, rng)[0]
            samples.append((policy, game, seen))
            designs.append(policy.design(seen) * scale)
        found = samples[0][0].least_squares(theta, samples[0][2], theta, stage)

        def losses(k: int, x: np.ndarray, parts: list[Any] = samples) -> tuple[np.ndarray, np.ndarray]:
            policy, game, seen = parts[k]
            lp, start = policy.log_policy(x), policy.log_policy(np.zeros(d))
            raw = implied_payoff(lp, start, game.log_ref, beta=beta, eta=eta)
            r = centred(np.take_along_axis(raw, seen.y, -1), "group") - seen.label
            return np.mean(r**2, axis=-1) / 2, r

        own, residual = losses(0, found)
        other, fresh_residual = losses(1, found)
        gaps.append(other.mean() - own.mean())
        hessian = np.einsum("cki,ckj->ij", designs[0], designs[0]) / (n * DRAWS)
        eigen = np.linalg.eigvalsh(hessian)
        curvatures.append(eigen[eigen > 1e-9 * eigen[-1]][0])
        gradients = [
            np.einsum("cki,ck->ci", x, r) / DRAWS for x, r in zip(designs, (residual, fresh_residual), strict=True)
        ]
        slopes.append(max(np.linalg.norm(g, axis=-1).max() for g in gradients))
    mu, G = float(np.min(curvatures)), float(np.max(slopes))
    return [
        {
            "part": "generalise",
            "contexts": n,
            "gap": float(np.mean(gaps)),
            "gap_error": float(np.std(gaps) / np.sqrt(len(gaps))),
            "curvature": mu,
            "lipschitz": G,
            "bound": float(bounds.stability_bound(G, mu, n)),
        }
    ]


def pieces_report(table: pd.DataFrame) -> None:
    last = table[table.part == "sum"].groupby("dimension").tail(1)
    exact = last.bound_exact_cross / last.kl
    show(
        f"What a step's error is made of (root mean squares), and what the errors add up to (beta = {PIECES_BETA:g})",
        last[
            [
                "dimension",
                "round",
                "realisability",
                "estimation",
                "concentrability",
                "kl",
                "bound_exact_cross",
                "bound_coverage",
            ]
        ],
        f"With the errors as they were, theory 5.2 bounds the final KL by {exact.min():.2g} to {exact.max():.2g} times "
        f"its value; with coverage and root mean squares (theory 7.8) the bound is "
        f"{(last.bound_coverage / last.kl).min():.2g} to {(last.bound_coverage / last.kl).max():.2g} times too large.",
    )
    rows = table[table.part == "generalise"].sort_values("contexts")
    held = int((rows.gap - 3 * rows.gap_error <= rows.bound).sum())
    slope = np.polyfit(np.log(rows.contexts), np.log(np.maximum(rows.gap, 1e-12)), 1)[0]
    show(
        "Generalisation of one step: risk on fresh contexts minus own risk, beside the stability bound (theory 7.9)",
        rows[["contexts", "gap", "gap_error", "curvature", "lipschitz", "bound"]],
        f"The gap falls as n^{slope:.2f}; the bound holds in {held} of {len(rows)} sizes and is "
        f"{(rows.bound / rows.gap).min():.2g} times the gap or more.",
    )


STUDIES = {
    "queries": Study(queries_configs, queries_cell, queries_report),
    "seconds": Study(seconds_configs, seconds_cell, seconds_report, one_job=True),
    "frontier": Study(frontier_configs, frontier_cell, frontier_report),
    "ablation": Study(ablation_configs, ablation_cell, ablation_report),
    "robust": Study(robust_configs, robust_cell, robust_report),
    "diversity": Study(diversity_configs, diversity_cell, diversity_report),
    "logs": Study(logs_configs, logs_cell, logs_report),
    "unseen": Study(unseen_configs, unseen_cell, unseen_report),
    "pieces": Study(pieces_configs, pieces_cell, pieces_report),
}

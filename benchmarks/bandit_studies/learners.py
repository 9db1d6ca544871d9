"""The worlds, learners, and summaries that several sampled studies share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import inf, nan
from typing import Any

import numpy as np
import pandas as pd
from environments import Bandit, atoms, digits, synthetic
from scipy.stats import bootstrap
from study import Rows

import windgames as wg
from windgames import bounds
from windgames.bandits import BestOfN, JBond, Regression, Reinforce, Run, run
from windgames.oracles import Oracle, judge_panel

BETA = 0.1
DRAWS = 8


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


ALL: dict[str, Any] = {"sampler": "all", "opponents": 1}
LEARNERS: dict[str, tuple[Callable[[float, float], Any], tuple[float, ...]]] = {
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
    learner = LEARNERS[name][0](beta, step)
    game: wg.Game = here.game
    if here.weak is None and name in ("iterative BOND", "REINFORCE"):
        return None
    if name == "iterative BOND":
        game, _ = bond_game(where, beta, step)
    settings.setdefault("oracle", here.oracle())
    return run(
        learner,
        game,
        settings.pop("oracle"),
        rng,
        evaluation_game=here.game,
        solution=equilibrium(where, beta),
        **settings,
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


def best_steps(table: pd.DataFrame, over: list[str]) -> pd.DataFrame:
    """Return, for each learner, the rows of the step with the least final distance."""
    final = table[(table.part == "reach") & (table.threshold == THRESHOLDS[-1])]
    best = final.loc[final.groupby([*over, "learner"], sort=False).final_kl.idxmin(), [*over, "learner", "step"]]
    return table.merge(best, on=[*over, "learner", "step"])

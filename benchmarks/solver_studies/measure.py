"""One way to measure for all studies: ask every solver about the same games and grade the answers by the game."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import cache
from math import sqrt
from typing import Any

import numpy as np
import pandas as pd
from sixty_digits import exact
from study import Rows

import windgames as wg
from solver_studies.games import Instance
from solver_studies.peers import OURS, SOLVERS, Solver
from solver_studies.worker import Result, Worker

EXACT = 30
"""Up to this many responses the equilibrium is known to sixty digits."""
TIGHT, LOOSE = 1e-8, 1e-6
"""Tight: log-probabilities up to this residual; loose: probabilities up to this total variation, proven. At
``beta = 0``, where equilibria may be many, both are of the gap."""
TIMES, OURS_AT_MOST = 5, 600.0
"""A peer may take the budget of its cell or so many times our seconds, whichever is more; we may take so many."""
LEVELS = {"tight": f"log-probabilities to {TIGHT:.0e}", "loose": f"probabilities to {LOOSE:.0e}"}
GAME = ["kind", "m", "contexts", "beta", "seed", "threads"]

DIRECT = [s.name for s in SOLVERS if "mirror" not in s.name and "mmd" not in s.name and "one by one" not in s.name]
"""Those who are asked about hard cases: iterations with a step of beta would only use up their seconds."""


def compare(config: dict[str, Any], _rng: np.random.Generator) -> Rows:
    """Ask every solver about the same games, from the smallest on; one that was over time is not asked again."""
    rows, late = [], set()
    for m, contexts in config["sizes"]:
        instance = Instance(config["kind"], m, config["beta"], contexts, config["seed"])
        where = asdict(instance) | {"threads": config["threads"]}
        try:
            game = instance.make()
        except ValueError as error:
            rows.append(where | {"solver": "windgames"} | grade(None, Result("refused", str(error))))
            continue
        sure, patience = reference(game), config["budget"]
        for solver in asked(game, config["only"]):
            if solver.name in late:
                continue
            budget = OURS_AT_MOST if solver.name in OURS else patience
            result = worker(config["threads"]).ask(solver.name, instance, budget)
            if result.status == "over time":
                late.add(solver.name)
            if solver.name == "windgames" and result.status == "answered":
                patience = max(patience, TIMES * result.seconds)
            who = {"solver": solver.name, "version": solver.version, "budget": budget}
            rows.append(where | who | grade(game, result, sure))
    return rows


@cache
def worker(threads: str) -> Worker:
    """Return the process in which solvers run, the same one as long as it lives."""
    return Worker(threads == "one")


def asked(game: wg.Game, only: Iterable[str]) -> list[Solver]:
    return [s for s in SOLVERS if not s.missing and s.takes(game) and (not only or s.name in only)]


def reference(game: wg.Game) -> np.ndarray | None:
    """Return the equilibrium in sixty digits where the game is small enough."""
    small = game.n_responses <= EXACT and game.batch_shape == () and game.beta > 0
    return exact(game, wg.equilibrium(game).log_policy) if small and isinstance(game, wg.WinRateGame) else None


def grade(game: wg.Game | None, result: Result, sure: np.ndarray | None = None) -> dict[str, Any]:
    """Let the game say how good an answer is, in the worst context."""
    row: dict[str, Any] = {"status": result.status, "reason": result.reason}
    row |= {"seconds": result.seconds, "seconds_inside": result.inside, "memory_GB": result.memory / 1e9}
    if result.log_policy is None or game is None:
        return row | {"accuracy": "neither"}
    if not np.all(result.log_policy < np.inf):  # NaN, too
        return row | {"status": "refused", "reason": "the answer holds NaN", "accuracy": "neither"}
    policy, measured = result.log_policy, game.measure(result.log_policy)
    raw = measured["residual"]
    if game.beta > 0:
        again = game.best_response(policy)
        other = game.measure(again)
        better = other["residual"] < raw
        policy = np.where(better[..., None], again, policy)
        measured = {name: np.where(better, other[name], measured[name]) for name in measured}
    worst = {name: float(np.max(value)) for name, value in measured.items()}
    proven = sqrt(worst["kl_certificate"] / 2)
    tight = worst["residual"] <= TIGHT
    loose = (worst["gap"] if game.beta == 0 else proven) <= LOOSE
    return row | {
        "accuracy": "tight" if tight else "loose" if loose else "neither",
        "raw_residual": float(np.max(raw)),
        "residual": worst["residual"],
        "gap": worst["gap"],
        "kl_certificate": worst["kl_certificate"],
        "total_variation_proven": proven,
        "total_variation": np.nan if sure is None else float(np.abs(np.exp(policy) - np.exp(sure)).sum() / 2),
    }


def best_peers(table: pd.DataFrame, level: str) -> pd.DataFrame:
    """Return, for each game, our time, the fastest peer as accurate as `level`, and how many times ours its time is."""
    rows = []
    for key, group in table.groupby(GAME, sort=False):
        good = group[group.accuracy.isin(["tight", level])]
        ours, peers = good[good.solver == "windgames"], good[~good.solver.isin(OURS)]
        if len(ours):
            best = peers.loc[peers.seconds.idxmin()] if len(peers) else None
            one = {"ours_s": ours.seconds.iloc[0], "peer": "nobody" if best is None else best.solver}
            rows.append(dict(zip(GAME, key, strict=True)) | one | {"peer_s": np.nan if best is None else best.seconds})
    out = pd.DataFrame(rows, columns=[*GAME, "ours_s", "peer", "peer_s"])
    out["ratio"] = out.peer_s / out.ours_s
    return out


def cell(kind: str, beta: float, threads: str, sizes: list[tuple[int, int]], **more: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "beta": beta,
        "threads": threads,
        "seed": 0,
        "only": [],
        "budget": 10.0,
        "sizes": sizes,
    } | more


def certified(ours: pd.DataFrame) -> pd.Series:
    """Return where the residual is what was asked for, and a theorem makes it a distance (at beta = 0: the gap)."""
    return (ours.residual <= 1e-10) & ((ours.beta == 0) | np.isfinite(ours.kl_certificate))


def lost(told: pd.DataFrame) -> str:
    """Say how often a peer was faster, and where by most."""
    known = told[told.ratio.notna()]
    if known.empty:
        return "Nobody else gave an answer as good."
    slower, worst = known[known.ratio < 1], known.loc[known.ratio.idxmin()]
    where = f"{worst.kind}, m = {worst.m}, beta = {worst.beta:g}"
    where += f", {worst.contexts} contexts" if worst.contexts else ""
    return (
        f"Of {len(told)} games a peer was faster in {len(slower)}, nobody else gave an answer as good in "
        f"{len(told) - len(known)}. Least ratio {worst.ratio:.2g} ({worst.peer}: {where}, threads {worst.threads}); "
        f"median {known.ratio.median():.2g}."
    )


def shortest(run: Callable[[], Any], times: int = 3) -> tuple[float, Any]:
    """Return the shortest time of a few, and the result."""
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        result = run()
        took.append(time.perf_counter() - begun)
    return min(took), result

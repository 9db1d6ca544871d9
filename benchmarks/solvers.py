"""`equilibrium` over sizes and regularisations, against cvxpy, a sort, and a loop over contexts.

    python benchmarks/solvers.py            about two minutes
    python benchmarks/solvers.py --smoke    seconds

Prints one table a question and writes them to benchmarks/results/solvers_*.csv. Times are of this machine; the ratios
are what to compare.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
from _study import RESULTS, show, write_table
from tqdm import tqdm

import windgames as wg
from windgames.testing import random_matrix
from windgames.verify import VerificationError


@dataclass(frozen=True)
class Config:
    """What to measure."""

    smoke: bool = False
    """Small sizes, for tests."""
    seed: int = 0
    results: Path = RESULTS


def timed(call: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    """Return the shortest time of a few calls, and the last result."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - start)
    return min(times), result


def preference(kind: str, m: int, rng: np.random.Generator) -> wg.Preference:
    if kind == "reward":
        return wg.RewardPreference(rng.normal(size=m))
    if kind == "bradley-terry":
        return wg.BradleyTerryPreference(2 * rng.normal(size=m))
    return wg.MatrixPreference(random_matrix(kind, m, rng))


def grid(config: Config) -> pd.DataFrame:
    """Residual, Newton steps and time in every cell; the residual is recomputed here."""
    rows = []
    sizes = [2, 10, 50] if config.smoke else [2, 10, 100, 300, 1000]
    for m in tqdm(sizes, desc="grid", leave=False):
        for kind in ("logistic", "tournament", "bradley-terry", "reward"):
            rng = np.random.default_rng([config.seed, m])
            p, ref = preference(kind, m, rng), rng.dirichlet(np.ones(m))
            for beta in (10, 1, 0.1, 0.01, 0.001):
                game = wg.WinRateGame(p, ref, beta)
                seconds, found = timed(lambda g=game: wg.equilibrium(g))
                d = found.log_policy - np.log(ref) - p.matrix() @ found.policy / beta
                steps, converged = int(found.steps), bool(found.converged)
                rows.append([kind, m, beta, d.max() - d.min(), converged, steps, seconds])
    return pd.DataFrame(rows, columns=["kind", "m", "beta", "residual", "converged", "newton_steps", "seconds"])


def against_cvxpy(config: Config) -> pd.DataFrame:
    """The same games by the most accurate conic solver that cvxpy reaches, and by ours, in one run."""
    rows = []
    m = 40 if config.smoke else 300
    for kind in tqdm(("logistic", "bradley-terry", "reward"), desc="cvxpy", leave=False):
        rng = np.random.default_rng([config.seed, 1])
        game = wg.WinRateGame(preference(kind, m, rng), rng.dirichlet(np.ones(m)), 0.01)
        ours, found = timed(lambda g=game: wg.equilibrium(g), 5)
        for solver in ("ECOS",) if config.smoke else ("ECOS", "CLARABEL"):
            try:
                theirs, check = timed(lambda g=game, f=found, s=solver: wg.verify(g, f, solvers=[s]))
            except VerificationError:
                rows.append([kind, m, 0.01, solver, ours, np.nan, np.nan, np.nan])
                continue
            rows.append([kind, m, 0.01, solver, ours, theirs, theirs / ours, float(check.distance)])
    names = ["kind", "m", "beta", "solver", "ours_s", "cvxpy_s", "ratio", "total_variation"]
    return pd.DataFrame(rows, columns=names)


def large(config: Config) -> pd.DataFrame:
    """A reward over many responses, against one sort of the same size."""
    m = 10**4 if config.smoke else 10**6
    rng = np.random.default_rng([config.seed, 2])
    reward, ref = rng.normal(size=m), rng.dirichlet(np.ones(m))
    sort, _ = timed(lambda: np.argsort(reward), 3)
    rows = []
    for beta in tqdm((10, 1, 0.1, 0.01, 0.001), desc="large", leave=False):
        game = wg.WinRateGame(wg.RewardPreference(reward), ref, beta)
        seconds, found = timed(lambda g=game: wg.equilibrium(g))
        rows.append(["win-rate", m, beta, float(found.residual), int(found.steps), seconds, sort])
    for beta in (10, 2, 1.1):
        game = wg.LogWinRateGame(wg.RewardPreference(reward, ties="weak"), ref, beta)
        seconds, found = timed(lambda g=game: wg.equilibrium(g))
        rows.append(["log-win-rate", m, beta, float(found.residual), int(found.steps), seconds, sort])
    table = pd.DataFrame(rows, columns=["game", "m", "beta", "residual", "newton_steps", "seconds", "argsort_s"])
    table["over_15_sorts_plus_1s"] = table.seconds / (15 * table.argsort_s + 1)
    table["peak_memory_GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return table


def batched(config: Config) -> pd.DataFrame:
    """One batched call against a loop over contexts."""
    contexts, m = (50, 20) if config.smoke else (1000, 100)
    rng = np.random.default_rng([config.seed, 3])
    refs = rng.dirichlet(np.ones(m), contexts)
    reward = rng.normal(size=(contexts, m))
    matrix = np.stack([random_matrix("logistic", m, rng) for _ in range(contexts)])
    rows = []
    for kind, make, data in (("reward", wg.RewardPreference, reward), ("dense", wg.MatrixPreference, matrix)):
        together, found = timed(lambda f=make, d=data: wg.equilibrium(wg.WinRateGame(f(d), refs, 0.1)))
        loop, _ = timed(
            lambda f=make, d=data: [
                wg.equilibrium(wg.WinRateGame(f(x), ref, 0.1)) for x, ref in zip(d, refs, strict=True)
            ]
        )
        rows.append([kind, contexts, m, float(found.residual.max()), together, loop, loop / together])
    return pd.DataFrame(rows, columns=["kind", "contexts", "m", "residual", "batch_s", "loop_s", "ratio"])


def agreement(config: Config) -> pd.DataFrame:
    """Total variation to the solver's policy over random games of every kind."""
    rows = []
    kinds = ("logistic", "uniform", "tournament", "cycle", "bradley-terry", "reward", "duplicates")
    games = 7 if config.smoke else 105
    for i in tqdm(range(games), desc="agreement", leave=False):
        rng = np.random.default_rng([config.seed, 4, i])
        kind, m, beta = kinds[i % len(kinds)], int(rng.integers(2, 40)), float(10 ** rng.uniform(-2, 1))
        game = wg.WinRateGame(wg.MatrixPreference(random_matrix(kind, m, rng)), rng.dirichlet(np.ones(m)), beta)
        found = wg.equilibrium(game)
        check = wg.verify(game, found)
        rows.append([kind, m, beta, float(found.residual), float(check.distance), check.solver[0], bool(check)])
    return pd.DataFrame(rows, columns=["kind", "m", "beta", "residual", "total_variation", "solver", "agrees"])


def statement(name: str, table: pd.DataFrame) -> str:
    """Return what the table shows, in a sentence computed from it."""
    if name == "grid":
        return f"largest residual {table.residual.max():.1e}; {int((~table.converged).sum())} cells not converged."
    if name == "cvxpy":
        accurate = table[table.solver == "ECOS"]
        return f"{accurate.ratio.min():.0f} to {accurate.ratio.max():.0f} times faster than the most accurate solver."
    if name == "large":
        game = table[table.game == "win-rate"]
        return (
            f"win-rate game: at most {game.over_15_sorts_plus_1s.max():.2f} of the time of 15 sorts and a second, "
            f"residual at most {game.residual.max():.1e}, peak memory {table.peak_memory_GB.max():.2f} GB."
        )
    if name == "batch":
        ratio = table.set_index("kind").ratio
        return (
            f"a batch is {ratio['reward']:.0f} times faster than a loop for rewards, {ratio['dense']:.1f} for matrices."
        )
    agree = int(table.agrees.sum())
    return f"{len(table)} games, {agree} agree; largest total variation {table.total_variation.max():.1e}."


def main(config: Config) -> None:
    config.results.mkdir(parents=True, exist_ok=True)
    studies = {"grid": grid, "cvxpy": against_cvxpy, "large": large, "batch": batched, "agreement": agreement}
    for name, study in studies.items():
        started = time.perf_counter()
        table = study(config)
        short = table.groupby("kind", as_index=False).max(numeric_only=True) if name == "agreement" else table
        show(str(study.__doc__), short, statement(name, table))
        write_table(table, f"solvers_{name}", config.results, asdict(config), started)


if __name__ == "__main__":
    main(tyro.cli(Config))

"""What equilibrium, equilibrium_path and sensitivity share: contexts in chunks, and the certificate of an answer."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from math import inf

import numpy as np
from threadpoolctl import ThreadpoolController

from .._array import (
    batch_size,
    like,
    to_numpy,
)
from .._validation import positive_number
from ..games import Game, WinRateGame, check_game
from ..preferences import LowRankPreference, RewardPreference
from ..solve import Solution
from .dense import DenseProblem
from .low_rank import LowRankProblem
from .problems import Problem
from .sorted import SortedProblem
from .winners import winners

ENTRIES = 2**22
"""Largest number of matrix entries that one batch of dense Newton steps holds at a time, on each core."""


SMALL = 400
"""Up to this many responses a dense system is factorised in one thread, and contexts share the cores."""


def check_arguments(game: Game, tol: float) -> float:
    """Return `tol` as a float after checking it and the game."""
    check_game(game)
    return positive_number(tol, "tol")


def flat_beta(local: Game) -> np.ndarray:
    """Return beta with one entry per context."""
    return np.broadcast_to(np.asarray(local.beta, dtype=float), local.batch_shape).reshape(-1)


def method_name(local: Game) -> str:
    """Return what `Solution.method` says of Newton on this game."""
    return f"Newton ({problem_class(local).name})"


def solve_unregularised(local: Game, rows: np.ndarray, out: np.ndarray) -> str:
    """Fill in the winners at ``beta = 0`` and return the method's name."""
    p, said = local.preference, [""]
    if isinstance(p, RewardPreference):
        return winners(local, rows, out)
    if p.batch_shape == ():  # its winners are found once for all references
        with _threads().limit(limits=1 if local.n_responses <= SMALL else None, user_api="blas"):
            return winners(local, rows, out)
    in_chunks(DenseProblem, local, rows, lambda chunk: said.append(winners(local, chunk, out)))
    return said[-1]


def in_chunks(kind: type[Problem], local: Game, rows: np.ndarray, run: Callable[[np.ndarray], None]) -> None:
    """Call `run` on chunks of contexts, as many together as memory and cores suggest."""
    m = local.n_responses
    if kind is SortedProblem:
        run(rows)
        return
    entries = m * (m if kind is DenseProblem else local.preference.embedding.shape[-1])  # type: ignore[attr-defined]
    if m > SMALL:
        width = 1 if kind is DenseProblem else max(1, ENTRIES // entries)
        for chunk in np.split(rows, range(width, rows.size, width)):
            run(chunk)
        return
    # Many small systems: one thread a chunk of contexts, and none inside the factorisations, where on a busy
    # machine threads wait for each other longer than they work.
    cores = os.cpu_count() or 1
    width = max(1, min(ENTRIES // entries, -(-rows.size // cores)))
    chunks = np.split(rows, range(width, rows.size, width))
    with _threads().limit(limits=1, user_api="blas"):
        if len(chunks) == 1:
            run(rows)
        else:
            with ThreadPoolExecutor(cores) as pool:
                list(pool.map(run, chunks))


@cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()


def certify(
    game: Game,
    local: Game,
    log_policy: np.ndarray,
    steps: np.ndarray,
    tol: float,
    method: str,
    origin: str = "the reference",
) -> Solution:
    """Let the game judge the answer, after one more best response where that improves it."""
    log_policy, steps = log_policy.reshape(*game.batch_shape, -1), steps.reshape(game.batch_shape)
    measured = local.measure(log_policy)
    if np.all(to_numpy(local.beta) > 0):
        again = local.best_response(log_policy)
        other = local.measure(again)
        better = other["residual"] < measured["residual"]
        log_policy = np.where(better[..., None], again, log_policy)
        measured = {name: np.where(better, other[name], value) for name, value in measured.items()}
    finite = np.where(log_policy > -inf, log_policy, 0.0)
    beta = np.broadcast_to(np.asarray(to_numpy(local.beta), dtype=float), game.batch_shape)
    price = np.where(beta > 0, beta, 1.0)
    # a log-probability of size z is itself known to eps z only, and a payoff of size one to eps/2
    eps = np.finfo(float).eps
    proven = measured["residual"] + eps * np.max(np.abs(finite), axis=-1) + np.where(beta > 0, eps / price / 2, 0.0)
    converged = proven <= tol
    worst, count = float(np.max(measured["residual"])), int(np.sum(~converged))
    sentence = f"Converged: residual {worst:.2e}, asked {tol:.0e}."
    if count:
        where = f" in {count} of {converged.size} contexts" if batch_size(game.batch_shape) > 1 else ""
        sentence = (
            f"Not converged{where}: residual {worst:.2e}, asked {tol:.0e}; log-probabilities go down to "
            f"{finite.min():.1e}."
        )
        rounding = 1e-14 * (1 + 1 / price) + 1e-15 * np.max(np.abs(finite), axis=-1)
        if np.all(proven[~converged] <= rounding[~converged]):
            sentence += " That is the rounding of double precision: raise tol."
        elif isinstance(game, WinRateGame):
            sentence += " An equilibrium exists: raise beta, or go on with solve(game, extragradient(), start=...)."
        else:
            sentence += (
                " At the critical beta of a log-win-rate game (theory 3.8) best responses converge slower than "
                "geometrically; with a matrix they may cycle, and the path in beta may fold. Raise beta."
            )
    if np.any(beta == 0) and np.all(converged[beta == 0]):
        sentence += (
            " At beta = 0: the winner nearest to the reference in KL, as far as double precision tells winners from "
            "others; what the gap proves is that nobody gains more than it."
        )
    if not isinstance(game, WinRateGame) and np.any(np.isinf(local.certificate_factor) & (beta > 0)):
        sentence += (
            f" beta is not above the contraction constant (theory 3.7): other equilibria may exist. This is the one "
            f"that best responses reach from {origin} (where they cycle: the path in beta, then random starts), "
            f"and the residual is all that proves it."
        )
    return Solution(
        game=game,
        log_policy=like(log_policy, game.log_ref),
        gap=measured["gap"],
        kl_certificate=measured["kl_certificate"],
        residual=measured["residual"],
        converged=np.asarray(converged),
        steps=steps,
        status=sentence,
        method=method,
        settings={"tol": tol},
    )


def problem_class(local: Game) -> type[Problem]:
    """Return the way to solve the Newton system of a game on numpy arrays."""
    if isinstance(local.preference, RewardPreference):
        return SortedProblem
    return (
        LowRankProblem
        if isinstance(local.preference, LowRankPreference) and isinstance(local, WinRateGame)
        else DenseProblem
    )


def make_problem(local: Game, rows: np.ndarray, beta: np.ndarray) -> Problem:
    """Return some contexts of a game on numpy arrays as a problem for Newton."""
    return problem_class(local)(local, rows, beta)

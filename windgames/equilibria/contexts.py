"""How the contexts of a game are solved: by which Newton system, how many at a time, in how many threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController

from ..games import Game, WinRateGame
from ..preferences import LowRankPreference, RewardPreference
from .dense import DenseProblem
from .low_rank import LowRankProblem
from .problems import Problem
from .sorted import SortedProblem

CHUNK_ENTRIES = 2**22
"""Largest number of matrix entries in one chunk of contexts (32 MiB), for each core."""
ONE_THREAD = 400
"""Up to this many responses a dense system is factorised in one thread, and contexts share the cores."""


def problem_class(game: Game) -> type[Problem]:
    """Return the kind of Newton system for a game on numpy arrays."""
    if isinstance(game.preference, RewardPreference):
        return SortedProblem
    if isinstance(game.preference, LowRankPreference) and isinstance(game, WinRateGame):
        return LowRankProblem
    return DenseProblem


def make_problem(game: Game, rows: np.ndarray, beta: np.ndarray) -> Problem:
    """Return some contexts of a game on numpy arrays as a problem for Newton's method."""
    return problem_class(game)(game, rows, beta)


def method_name(game: Game) -> str:
    """Return what `Solution.method` says of Newton's method on this game."""
    return f"Newton ({problem_class(game).name})"


def beta_of_contexts(game: Game) -> np.ndarray:
    """Return beta with one entry per context, as a flat array."""
    return np.broadcast_to(np.asarray(game.beta, dtype=float), game.batch_shape).reshape(-1)


def in_chunks(kind: type[Problem], game: Game, rows: np.ndarray, run: Callable[[np.ndarray], None]) -> None:
    """Call `run` on chunks of contexts, as large as memory and cores suggest."""
    m = game.n_responses
    if kind is SortedProblem:
        run(rows)
        return
    entries = m * (m if kind is DenseProblem else game.preference.embedding.shape[-1])  # type: ignore[attr-defined]
    if m > ONE_THREAD:
        width = 1 if kind is DenseProblem else max(1, CHUNK_ENTRIES // entries)
        for chunk in np.split(rows, range(width, rows.size, width)):
            run(chunk)
        return
    # Many small systems: chunks share the cores, and a factorisation has one thread. On a busy machine its threads
    # would wait for each other longer than they work.
    cores = os.cpu_count() or 1
    width = max(1, min(CHUNK_ENTRIES // entries, -(-rows.size // cores)))
    chunks = np.split(rows, range(width, rows.size, width))
    with threads().limit(limits=1, user_api="blas"):
        if len(chunks) == 1:
            run(rows)
        else:
            with ThreadPoolExecutor(cores) as pool:
                list(pool.map(run, chunks))


@cache
def threads() -> ThreadpoolController:
    """Return the controller of BLAS threads, which takes a millisecond to make."""
    return ThreadpoolController()

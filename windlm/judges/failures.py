"""A judge that raises: it is asked again, and the response at which it fails is named or counts as the worst."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

from .base import JudgeUnavailable, UnusableVerdict

RETRY_SECONDS = 1.0
"""Pause before a judge is asked again; it doubles each time."""

Ask = Callable[[Sequence[int], Sequence[int]], np.ndarray]
"""Returns the verdicts on some responses to some prompts, by position: rewards ``(B, K)`` or matrices ``(B, K, K)``."""


def verdicts(
    ask: Ask,
    rows: Sequence[int],
    k: int,
    name: Callable[[int, int], str],
    matrix: bool,
    retries: int = 0,
    count_as_worst: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Ask a judge about all `k` responses to some prompts.

    If it raises, halves of the prompts are asked about, down to one prompt. That is tried again `retries` times; then
    its responses are asked about alone and in pairs, to find those at which the judge fails.

    Parameters
    ----------
    ask : callable
    rows : sequence of B int
    k : int
    name : callable
        Returns what messages call a response.
    matrix : bool
        Whether the verdicts are a matrix.
    retries : int
    count_as_worst : bool
        Whether a response at which the judge fails loses against all others, with a reward of NaN, instead of the
        exception being raised.

    Returns
    -------
    verdicts : ndarray, shape ``(B, K)`` or ``(B, K, K)``
    failed : ndarray of bool, shape ``(B, K)``

    Raises
    ------
    Exception
        The judge's own one, with a note that names the response.
    """
    found, error = attempt(ask, rows, range(k))
    if error is None:
        assert found is not None
        return found, np.zeros((len(rows), k), dtype=bool)
    if len(rows) > 1:
        half = len(rows) // 2
        parts = [verdicts(ask, part, k, name, matrix, retries, count_as_worst) for part in (rows[:half], rows[half:])]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    for n in range(retries):
        time.sleep(RETRY_SECONDS * 2**n)
        found, error = attempt(ask, rows, range(k))
        if error is None:
            assert found is not None
            return found, np.zeros((1, k), dtype=bool)
    errors = failing(ask, rows[0], k)
    for j in errors if not isinstance(error, UnusableVerdict) else ():
        error.add_note(f"It was {name(rows[0], j)}.")
    kept = [j for j in range(k) if j not in errors]
    found, left = attempt(ask, rows, kept) if kept else (None, None)
    if not count_as_worst or left is not None:
        if not errors:
            error.add_note(
                f"It fails at no response alone and at no pair; the first of the group was {name(rows[0], 0)}."
            )
        raise error
    failed = np.isin(np.arange(k), [*errors])
    return with_worst(found, failed, matrix)[None], failed[None]


def attempt(ask: Ask, rows: Sequence[int], responses: Sequence[int]) -> tuple[np.ndarray | None, Exception | None]:
    """Return the verdicts, or the exception."""
    try:
        return ask(rows, responses), None
    except JudgeUnavailable:
        raise  # whatever is asked
    except Exception as error:
        return None, error


def failing(ask: Ask, row: int, k: int) -> dict[int, Exception]:
    """Return the responses to a prompt at which the judge fails, alone or as what failing pairs have in common."""
    alone = {j: attempt(ask, [row], [j])[1] for j in range(k)}
    found = {j: error for j, error in alone.items() if error is not None}
    rest = [j for j in range(k) if j not in found]
    if attempt(ask, [row], rest)[1] is None:
        return found
    asked = {pair: attempt(ask, [row], pair)[1] for pair in combinations(rest, 2)}
    pairs = {pair: error for pair, error in asked.items() if error is not None}
    while pairs:
        counts = Counter(j for pair in pairs for j in pair)
        most = max(counts, key=lambda j: (counts[j], j))
        found[most] = next(error for pair, error in pairs.items() if most in pair)
        pairs = {pair: error for pair, error in pairs.items() if most not in pair}
    return found


def with_worst(found: np.ndarray | None, failed: np.ndarray, matrix: bool) -> np.ndarray:
    """Return the verdicts on a prompt's responses, given those on the responses that did not fail."""
    kept = np.flatnonzero(~failed)
    if matrix:
        out = np.where(failed[:, None] == failed, 0.5, np.where(failed[:, None], 0.0, 1.0))
    else:
        out = np.full(len(failed), np.nan)
    if found is not None:
        out[np.ix_(kept, kept) if matrix else kept] = found[0]
    return out

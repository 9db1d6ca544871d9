"""Preferences estimated from counted comparisons."""

from __future__ import annotations

from math import inf
from typing import Any

from .._array import (
    array_namespace,
    device_of,
    scalar,
    to_numpy,
)
from .._validation import as_float, first_index, is_frame, positive_number
from .comparisons import Comparisons
from .matrix import MatrixPreference


def from_counts(wins: Any, prior: float = 0.0) -> MatrixPreference:
    r"""Estimate a constant-sum preference from counted comparisons.

    :math:`P_{ij} = (w_{ij} + a)/(w_{ij} + w_{ji} + 2a)` with `a` the prior count; 1/2 on the diagonal.

    Parameters
    ----------
    wins : array or DataFrame, shape ``(..., m, m)``
        ``wins[..., i, j]`` counts how often ``i`` beat ``j``; half counts record ties. A DataFrame is aligned by label,
        as in `Comparisons.from_counts`.
    prior : float
        Pseudo-count added to both sides of every pair.

    Raises
    ------
    ValueError
        If a count is negative or NaN, if a response was compared with itself, or if `prior` is 0 and a pair was never
        compared; the message names the first such pair and how many there are.
    """
    if is_frame(wins):
        return Comparisons.from_counts(wins).empirical(prior)
    wins = as_float(wins, "wins")
    if wins.ndim < 2 or wins.shape[-1] != wins.shape[-2] or 0 in wins.shape:
        raise ValueError(f"wins must have shape (..., m, m), but its shape is {tuple(wins.shape)}.")
    prior = positive_number(prior, "prior", zero=True)
    xp = array_namespace(wins)
    wins = xp.astype(wins, xp.float64)  # sums of counts leave a narrow type
    where = first_index(~((wins >= 0) & (wins < inf)))
    if where is not None:
        raise ValueError(f"wins must hold non-negative finite counts, but entry {where} is {scalar(wins[where])}.")
    m = wins.shape[-1]
    diagonal = xp.eye(m, dtype=wins.dtype, device=device_of(wins)) > 0
    where = first_index(diagonal & (wins > 0))
    if where is not None:
        raise ValueError(
            f"A response is not compared with itself, but entry {where} of wins is {scalar(wins[where])}: set the "
            f"diagonal to 0, it says nothing."
        )
    wins = wins / max(1.0, scalar(xp.max(wins)) / 1e300)  # sums of the largest counts stay finite
    total = wins + xp.matrix_transpose(wins) + 2 * prior
    missing = (total == 0) & ~diagonal
    where = first_index(missing)
    if where is not None:
        pairs = int(to_numpy(missing).sum()) // 2
        raise ValueError(
            f"Responses {where[-2]} and {where[-1]} were never compared (index {where}; {pairs} such pairs in all). "
            f"Compare them, or pass prior > 0 to count every pair as that many wins on both sides."
        )
    off = diagonal | (total == 0)
    half = 0.5 * xp.ones_like(wins)
    out = MatrixPreference(xp.where(off, half, (wins + prior) / xp.where(off, xp.ones_like(total), total)))
    out.win_counts = xp.where(diagonal, xp.zeros_like(wins), wins)
    return out

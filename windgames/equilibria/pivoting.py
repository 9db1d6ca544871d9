r"""The only winner of small constant-sum games by principal pivoting, many games at a time (theory 6.9).

With :math:`A=P-\frac12` skew, a winner solves the linear complementarity problem of the skew matrix

.. math:: s = -Ax - v\mathbf 1 \ge 0,\quad w = \mathbf 1^\top x - 1 \ge 0,\quad x, v \ge 0,\quad x^\top s + vw = 0 .

With :math:`\theta d` added to the right-hand sides, :math:`d>0`, the solution for :math:`\theta\ge1` is :math:`x=0`. As
:math:`\theta` falls to 0, two pairs of variables change places whenever one reaches zero. This is Dantzig's self-dual
simplex method, and the tableau stays skew. The solution that it ends in is refined and then proven.
"""

from __future__ import annotations

import numpy as np

CHUNK_ENTRIES = 2**18
"""Largest number of tableau entries of the games that take their pivots together."""
CACHED_ENTRIES = 2**16
"""Largest number of tableau entries that are updated together: they and their change should fit into a core's cache."""
TINY = 1e-12
"""Tableau entries up to this count as zero."""
SINGULAR = 1e-12
"""Equations with a smaller reciprocal condition number are taken to have several solutions."""
ROUNDING = 1e-14
"""A gain, relative to the largest entry of `A`, or a probability up to this counts as none."""


def only_winners(A: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the winners of the games that have one only, as far as pivoting can prove it.

    Parameters
    ----------
    A : array, shape ``(n, m, m)``
        Skew, with largest entry 1.

    Returns
    -------
    x : array, shape ``(n, m)``
        Winners, where proven.
    proven : array of bool, shape ``(n,)``
    pivots : array of int, shape ``(n,)``
    """
    n, m = A.shape[:2]
    x, proven, pivots = np.zeros((n, m)), np.zeros(n, dtype=bool), np.zeros(n, dtype=int)
    width = max(1, CHUNK_ENTRIES // (m + 3) ** 2)
    for start in range(0, n, width):
        rows = slice(start, start + width)
        x[rows], proven[rows], pivots[rows] = _solve(A[rows])
    return x, proven, pivots


def _solve(A: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n, m = A.shape[:2]
    mean = np.mean(A, axis=-1)
    T = np.zeros((n, m + 1, m + 3))  # the columns of the skew matrix, then the right-hand side, then d
    np.negative(A, out=T[:, :m, :m])
    T[:, :m, m], T[:, m, :m], T[:, m, m + 1], T[:, m, m + 2] = -1, 1, -1, 1
    # the first response in play is the best against the uniform policy; the last term breaks ties
    T[:, :m, m + 2] = 0.1 + np.max(mean, axis=-1, keepdims=True) - mean + 1e-3 * (np.arange(m) * 0.618034 % 1)
    basic = np.zeros((n, m + 1), dtype=bool)  # whether x_k, or v in the last place, is basic, and not its complement
    # where it ends: the inverse of the equations and their solution, as far as they are basic
    inverse, z, ended = np.zeros((n, m + 1, m + 1)), np.zeros((n, m + 1)), np.zeros((n, m + 1), dtype=bool)
    pivots, index, i = np.zeros(n, dtype=int), np.arange(n), np.arange(n)
    few = max(1, CACHED_ENTRIES // T[0].size)
    for _ in range(4 * m + 10):
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            q, d = T[:, :, m + 1], T[:, :, m + 2]
            zero_at = np.where(d > TINY, -q / d, 0.0)
            k = np.argmax(zero_at, axis=1)
            theta = zero_at[i, k]
            column = T[i, :, k]
            ratio = np.where(column < -TINY, (q + theta[:, None] * d) / -column, np.inf)
            ratio[i, k] = np.inf
            j = np.argmin(ratio, axis=1)
            arrived = theta <= TINY
            going = ~arrived & np.isfinite(ratio[i, j])
        if not np.all(going):
            done = index[arrived]
            inverse[done], z[done], ended[done] = T[arrived, :, : m + 1], q[arrived], basic[arrived]
            if not np.any(going):
                break
            T, basic, index, k, j, column = (a[going] for a in (T, basic, index, k, j, column))
            i = np.arange(len(index))
        pivots[index] += 1
        p = T[i, k, j][:, None]
        other, row_k, row_j = T[i, :, j] / p, T[i, k] / p, T[i, j] / p
        column = column / p
        left, right = np.stack([column * p, -other * p], axis=-1), np.stack([row_j, row_k], axis=1)
        for start in range(0, len(i), few):
            T[start : start + few] += left[start : start + few] @ right[start : start + few]
        T[i, :, k], T[i, :, j], T[i, k], T[i, j] = other, -column, row_j, -row_k
        T[i, k, k] = T[i, j, j] = 0.0
        T[i, k, j], T[i, j, k] = -1 / p[:, 0], 1 / p[:, 0]
        basic[i, k] ^= True
        basic[i, j] ^= True
    return *_prove(A, inverse, z, ended), pivots


def _prove(A: np.ndarray, inverse: np.ndarray, z: np.ndarray, basic: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the basic solutions, refined once, and which of them theory 6.7.3 proves to be the only winners."""
    z, inverse = np.where(basic, z, 0.0), np.where(basic[:, :, None] & basic[:, None, :], inverse, 0.0)

    def equations(z: np.ndarray) -> np.ndarray:
        x, v = z[:, :-1], z[:, -1:]
        return np.concatenate([(A @ -x[..., None])[..., 0] - v, np.sum(x, axis=-1, keepdims=True) - 1], axis=-1)

    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        z = z - (inverse @ np.where(basic, equations(z), 0.0)[..., None])[..., 0]
        x, support = z[:, :-1], basic[:, :-1]
        x = x / np.sum(x, axis=-1, keepdims=True)
        gains = (A @ x[..., None])[..., 0]
        inside = np.where(support, np.abs(gains), 0.0)
        # entries of A are at most 1, which bounds the norm of the equations
        condition = (np.sum(support, axis=-1) + 1) * np.max(np.sum(np.abs(inverse), axis=-2), axis=-1)
        proven = (
            basic[:, -1]
            & (condition < 1 / SINGULAR)
            & (np.max(inside, axis=-1) <= ROUNDING)
            & np.all(np.where(support, x > ROUNDING, gains < -ROUNDING), axis=-1)
        )
    return x, proven

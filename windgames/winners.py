"""Equilibria at ``beta = 0``: of all winners the KL projection of the reference (theory 2.6)."""

from __future__ import annotations

from itertools import pairwise
from math import inf

import numpy as np
from scipy.linalg.lapack import dgecon, dgetrf, dgetrs

from ._array import log_normalize
from .central import central_path
from .games import Game
from .preferences import RewardPreference

CLEAR = 1e-7
"""A share, or a slack relative to the largest entry, above which it is taken to be positive."""
END, SINGULAR = 1e-13, 1e-12
"""The sum of share times slack at which the central path ends; the reciprocal condition from which on equations are
taken to have many solutions."""


def winners(game: Game, rows: np.ndarray, out: np.ndarray) -> str:
    """Fill in the winners of the contexts `rows` of a game on numpy arrays, and return the method's name."""
    batch, m = game.batch_shape, game.n_responses
    log_ref = np.broadcast_to(game.log_ref, (*batch, m)).reshape(-1, m)[rows]
    p = game.preference
    if isinstance(p, RewardPreference):
        top = np.broadcast_to(p.top, (*batch, m)).reshape(-1, m)[rows]
        out[rows] = log_normalize(np.where(top, log_ref, -inf))
        return "best responses of the reward"
    if not p.is_constant_sum:
        raise ValueError(
            "At beta = 0 a log-win-rate game with a matrix that is not constant-sum is a general bimatrix game, whose "
            "symmetric equilibria are not computed here. Take beta > 0 or a constant-sum preference."
        )
    matrix = np.asarray(p.matrix())
    matrix = matrix[None] if p.batch_shape == () else np.broadcast_to(matrix, (*batch, m, m)).reshape(-1, m, m)[rows]
    A = (matrix - matrix.swapaxes(-1, -2)) / 2  # P - 1/2, skew to the last bit
    A /= np.maximum(np.max(np.abs(A), axis=(-2, -1), keepdims=True), 1e-300)
    against_all = np.argmax(np.sum(A > 0, axis=-1), axis=-1)  # a Condorcet winner wins alone
    faces: dict[int, tuple[np.ndarray, np.ndarray | None]] = {
        k: (against_all[[k]], np.zeros(1)) for k in range(len(A)) if np.sum(A[k, against_all[k]] > 0) == m - 1
    }
    left = np.setdiff1d(np.arange(len(A)), list(faces))
    zeros = np.zeros(left.size)
    x, t, _ = central_path(A[left], np.zeros((left.size, m)), zeros, zeros + END)
    faces |= {int(k): _face(A[k], *one) for k, *one in zip(left, x, t, strict=True)}
    for k, row in enumerate(rows):
        one = 0 if len(A) == 1 else k
        support, masses = faces[one]
        if masses is None:
            masses = _nearest(A[one], support, log_ref[k])
        out[row] = -inf
        out[row, support] = masses
    return "central path and KL projection"


def _face(A: np.ndarray, x: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the largest support of a winner, and the log-probabilities on it if there is one winner only."""
    clear = float(np.sum(x * t)) <= 10 * END and np.all(np.maximum(x, t) > CLEAR)
    support = np.flatnonzero(x > t if clear else _largest_support(A))
    return support, _only_winner(A, support)


def _only_winner(A: np.ndarray, support: np.ndarray) -> np.ndarray | None:
    """Return the winner with this support if its equations have one solution and nobody else ties with it."""
    k = support.size
    equations = np.ones((k + 1, k + 1))
    equations[:k, :k], equations[k, k] = A[np.ix_(support, support)], 0.0
    lu, pivots, _ = dgetrf(equations)
    if not dgecon(lu, float(np.max(np.sum(np.abs(equations), axis=0))))[0] > SINGULAR:
        return None
    masses = dgetrs(lu, pivots, np.append(np.zeros(k), 1.0))[0][:k]
    others = np.setdiff1d(np.arange(len(A)), support)
    if np.min(masses) <= 0 or np.max(A[np.ix_(others, support)] @ masses, initial=-inf) >= 0:
        return None
    return np.log(masses / masses.sum())


def _nearest(A: np.ndarray, support: np.ndarray, log_ref: np.ndarray) -> np.ndarray:
    r"""Return the log-probabilities, on the support, of the KL projection of the reference onto the winners.

    The dual :math:`\log\sum\rho\,e^{-B^\top x}` has free multipliers for the responses in play, where
    :math:`P\pi=\frac12`, and non-negative ones for the rest. A quasi-Newton method finds which of those bind; Newton
    gives the digits. A lopsided reference is approached through its powers, from the uniform one on.
    """
    others = np.setdiff1d(np.arange(len(A)), support)
    B = np.concatenate([A[np.ix_(support, support)], A[np.ix_(others, support)]])
    log_rho = log_normalize(log_ref[support])
    x = np.zeros(len(B))
    stages = np.linspace(0, 1, 2 + int(np.ptp(log_rho) / 10))
    for before, share in pairwise(stages):
        x = _project(B, log_normalize(share * log_rho), x * share / before if before else x, support.size)
    return log_normalize(log_rho - B.T @ x)


def _project(B: np.ndarray, log_rho: np.ndarray, x: np.ndarray, free: int) -> np.ndarray:
    """Return the multipliers of the projection, the first `free` of any sign, from the guess `x`."""
    from scipy.optimize import minimize  # here, since it would double the time of `import windgames`

    def dual(x: np.ndarray) -> tuple[float, np.ndarray]:
        logits = log_rho - B.T @ x
        top = logits.max()
        p = np.exp(logits - top)
        return float(top + np.log(p.sum())), -B @ (p / p.sum())

    bounds = [(None, None)] * free + [(0.0, None)] * (len(B) - free)
    options = {"maxiter": 5000, "maxfun": 20_000, "ftol": 0.0, "gtol": 1e-12, "maxcor": 30}
    for _ in range(10):  # it may stop on a poor line search; started again it forgets its curvature and goes on
        x = minimize(dual, x, jac=True, bounds=bounds, method="L-BFGS-B", options=options).x
        if _infeasibility(dual(x)[1], x, free) < 1e-6:
            break
    best, best_error = x, _infeasibility(dual(x)[1], x, free)
    for _ in range(50):
        value, gradient = dual(x)
        # a multiplier that is small and wants to fall is taken to zero; Newton moves the others
        small = 1e-3 * (1 + float(np.max(np.abs(x))))
        tight = np.concatenate([np.ones(free, dtype=bool), (x[free:] > small) | (gradient[free:] < 0)])
        p = np.exp(log_normalize(log_rho - B.T @ x))
        centred = (B + gradient[:, None])[tight]
        step = np.where(tight, 0.0, -x)
        step[tight] = -np.linalg.lstsq((centred * p) @ centred.T, gradient[tight], rcond=1e-14)[0]
        size = 1.0
        slack = 1e-14 * (1 + abs(value) + float(np.max(np.abs(log_rho))))  # the dual's own rounding
        while size > 1e-8 and not dual(_clipped(x + size * step, free))[0] <= value + slack:
            size /= 2
        x = _clipped(x + size * step, free)
        error = _infeasibility(dual(x)[1], x, free)
        if not error < 0.9 * best_error:
            break
        best, best_error = x, error
    return best


def _clipped(x: np.ndarray, free: int) -> np.ndarray:
    return np.concatenate([x[:free], np.maximum(x[free:], 0.0)])


def _infeasibility(gradient: np.ndarray, x: np.ndarray, free: int) -> float:
    """Return how far the dual's first-order conditions are from being met."""
    pulled = np.where(x[free:] > 0, np.abs(gradient[free:]), np.maximum(-gradient[free:], 0.0))
    return float(np.max(np.concatenate([np.abs(gradient[:free]), pulled]), initial=0.0))


def _largest_support(A: np.ndarray) -> np.ndarray:
    """Return the largest support of a winner: Tucker's strictly complementary solution, by a linear program."""
    from scipy.optimize import linprog  # here, since it would double the time of `import windgames`

    m = len(A)
    rows, limits = np.vstack([A, A - np.eye(m)]), np.concatenate([np.zeros(m), -np.ones(m)])
    result = linprog(np.ones(m), A_ub=rows, b_ub=limits, method="highs")
    if not result.success:
        raise RuntimeError(f"HiGHS could not solve the linear program of theory 2.6: {result.message}")
    return result.x > -A @ result.x

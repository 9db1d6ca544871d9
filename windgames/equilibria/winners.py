"""Equilibria at ``beta = 0``: of all winners the KL projection of the reference (theory 2.6)."""

from __future__ import annotations

from itertools import pairwise
from math import inf

import numpy as np
from scipy.linalg.lapack import dgecon, dgetrf, dgetrs

from .._array import log_normalize
from ..games import Game
from ..preferences import RewardPreference
from ..preferences.base import ties_tol
from .central_path import central_path
from .contexts import ONE_THREAD, in_chunks, threads
from .dense import DenseProblem
from .sorted import reference_on_top

EARLY, LATE, PLAIN = 1e-13, 1e-26, 1e3
"""The sums of share times slack at which the central path is looked at, and how many times larger than the other one of
the two must be at the later to be taken for positive."""
SINGULAR, ROUNDING, ENOUGH, NEARLY = 1e-12, 1e-14, 1e-11, 1e-4
"""The reciprocal condition from which on equations are taken to have many solutions; what is no gain, relative to the
largest payoff; what is no violation of the projection's conditions, and what is a small one."""
PRICE = 1e-7
"""At which the equilibrium is near the projection of the reference."""


def solve_winners(game: Game, rows: np.ndarray, out: np.ndarray, systems: np.ndarray) -> str:
    """Fill in the winners of the contexts `rows` of a game on numpy arrays and the number of linear systems.

    Returns
    -------
    str
        The name of the method.

    Raises
    ------
    ValueError
        If the preference is neither constant-sum nor a reward's.
    """
    m, p = game.n_responses, game.preference
    if isinstance(p, RewardPreference):
        out[rows] = reference_on_top(game).reshape(-1, m)[rows]
        return "best responses of the reward"
    if not p.is_constant_sum:
        raise ValueError(
            "At beta = 0 a log-win-rate game with a matrix that is not constant-sum is a general bimatrix game, whose "
            "symmetric equilibria are not computed here. Use beta > 0 or a constant-sum preference."
        )
    if p.batch_shape == ():  # the winners of one matrix are found once for all references
        with threads().limit(limits=1 if m <= ONE_THREAD else None, user_api="blas"):
            _solve(game, rows, out, systems)
    else:
        in_chunks(DenseProblem, game, rows, lambda chunk: _solve(game, chunk, out, systems))
    return "central path and KL projection"


def _solve(game: Game, rows: np.ndarray, out: np.ndarray, systems: np.ndarray) -> None:
    batch, m = game.batch_shape, game.n_responses
    log_ref = np.broadcast_to(game.log_ref, (*batch, m)).reshape(-1, m)[rows]
    p = game.preference
    matrix = np.asarray(p.matrix())
    matrix = matrix[None] if p.batch_shape == () else np.broadcast_to(matrix, (*batch, m, m)).reshape(-1, m, m)[rows]
    A = (matrix - matrix.swapaxes(-1, -2)) / 2  # P - 1/2, skew to the last bit
    A[np.abs(A) <= ties_tol(matrix) / 2] = 0.0
    A /= np.maximum(np.max(np.abs(A), axis=(-2, -1), keepdims=True), 1e-300)
    against_all = np.argmax(np.sum(A > 0, axis=-1), axis=-1)  # a Condorcet winner wins alone
    faces: dict[int, tuple[np.ndarray, np.ndarray | None]] = {
        k: (against_all[[k]], np.zeros(1)) for k in range(len(A)) if np.sum(A[k, against_all[k]] > 0) == m - 1
    }
    left = np.setdiff1d(np.arange(len(A)), list(faces))
    x, t, counts = _central(A[left], EARLY)
    systems[rows if len(A) == 1 else rows[left]] = counts if left.size else 0
    faces |= {int(k): _face(A[k], *one) for k, *one in zip(left, x, t, strict=True)}
    for k, row in enumerate(rows):
        one = 0 if len(A) == 1 else k
        support, masses = faces[one]
        if masses is None:
            masses = _nearest(A[one], support, log_ref[k])
        out[row] = -inf
        out[row, support] = masses


def _central(A: np.ndarray, end: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    zeros = np.zeros(len(A))
    return central_path(A, np.zeros(A.shape[:2]), zeros, zeros + end)


def _face(A: np.ndarray, x: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the largest support of a winner, and the log-probabilities on it if there is one winner only.

    Most often the support is plain early on the central path, and a solution of its equations proves it (theory 6.7.3).
    Else the path is followed further, and shares or slacks that are still alike there are settled by a linear program.
    """
    for later in (False, True):
        if later:
            x, t = (one[0] for one in _central(A[None], LATE)[:2])
        support = np.flatnonzero(x > t)
        masses = _only_winner(A, support)
        if masses is not None:
            return support, masses
    if not np.all(np.maximum(x, t) > PLAIN * np.minimum(x, t)):
        program = _largest_support(A)
        if program is None:  # payoffs below its tolerance: nobody gains more than the path's end leaves
            return support, log_normalize(np.log(x[support]))
        support = program
    return support, _only_winner(A, support)


def _only_winner(A: np.ndarray, support: np.ndarray) -> np.ndarray | None:
    """Return the winner with this support if its equations have one solution and everybody else loses to it."""
    k = support.size
    equations = np.ones((k + 1, k + 1))
    equations[:k, :k], equations[k, k] = A[np.ix_(support, support)], 0.0
    lu, pivots, _ = dgetrf(equations)
    if not dgecon(lu, float(np.max(np.sum(np.abs(equations), axis=0))))[0] > SINGULAR:
        return None
    masses = dgetrs(lu, pivots, np.append(np.zeros(k), 1.0))[0][:k]
    gains = A[:, support] @ masses
    others = np.ones(len(A), dtype=bool)
    others[support] = False
    if np.min(masses) <= 0 or np.max(np.abs(gains[support])) > ROUNDING or np.any(gains[others] > -ROUNDING):
        return None
    return np.log(masses / masses.sum())


def _nearest(A: np.ndarray, support: np.ndarray, log_ref: np.ndarray) -> np.ndarray:
    r"""Return the log-probabilities, on the support, of the KL projection of the reference onto the winners.

    The dual :math:`\log\sum\rho\,e^{-B^\top x}` has free multipliers for the responses in play, where
    :math:`P\pi=\frac12`, and non-negative ones for the rest. The equilibrium at a tiny price is near the projection
    (theory 2.6), and from the multipliers that it suggests Newton has few steps to go. Failing that, a quasi-Newton
    method finds which of them bind, along the powers of the reference from the uniform one on.
    """
    others = np.setdiff1d(np.arange(len(A)), support)
    B = np.concatenate([A[np.ix_(support, support)], A[np.ix_(others, support)]])
    log_rho, free = log_normalize(log_ref[support]), support.size
    x = central_path(A[None], log_ref[None], np.array([PRICE]), np.array([1e-6 * PRICE]))[0][0]
    near = log_normalize(log_ref + A @ x / PRICE)  # a best response has the small shares right, too
    loose = np.exp(near[others]) / PRICE
    wanted = log_rho - near[support] - B[free:].T @ loose
    equations = np.concatenate([B[:free].T, np.ones((free, 1))], axis=1)
    guess = np.concatenate([np.linalg.lstsq(equations, wanted, rcond=1e-12)[0][:free], loose])
    x, error = _polish(B, log_rho, guess, free)
    if ENOUGH < error < NEARLY:
        x, error = _project(B, log_rho, x, free)
    if not error <= ENOUGH:
        x = np.zeros(len(B))
        stages = np.linspace(0, 1, 2 + int(np.ptp(log_rho) / 10))
        for before, share in pairwise(stages):
            x = _project(B, log_normalize(share * log_rho), x * share / before if before else x, free)[0]
    return log_normalize(log_rho - B.T @ x)


def _project(B: np.ndarray, log_rho: np.ndarray, x: np.ndarray, free: int) -> tuple[np.ndarray, float]:
    """Return the projection's multipliers, the first `free` of any sign, from a guess, and how far off they are."""
    from scipy.optimize import minimize  # here, since it would double the time of `import windgames`

    bounds = [(None, None)] * free + [(0.0, None)] * (len(B) - free)
    options = {"maxiter": 5000, "maxfun": 20_000, "ftol": 0.0, "gtol": 1e-12, "maxcor": 30}
    for _ in range(10):  # it may stop on a poor line search; started again it forgets its curvature and goes on
        x = minimize(_dual, x, (B, log_rho), jac=True, bounds=bounds, method="L-BFGS-B", options=options).x
        if _infeasibility(_dual(x, B, log_rho)[1], x, free) < 1e-6:
            break
    return _polish(B, log_rho, x, free)


def _dual(x: np.ndarray, B: np.ndarray, log_rho: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the dual and its gradient."""
    with np.errstate(over="ignore", invalid="ignore"):  # multipliers that run away are no optimum
        logits = log_rho - B.T @ x
        top = logits.max()
        p = np.exp(logits - top)
        return float(top + np.log(p.sum())), -B @ (p / p.sum())


def _polish(B: np.ndarray, log_rho: np.ndarray, x: np.ndarray, free: int) -> tuple[np.ndarray, float]:
    """Return multipliers after Newton steps, as long as those help, and how far they are from optimal."""
    best, best_error = x, _infeasibility(_dual(x, B, log_rho)[1], x, free)
    for _ in range(50):
        value, gradient = _dual(x, B, log_rho)
        # a multiplier smaller than what it bounds is slack is taken to zero; Newton moves the others
        tight = np.concatenate([np.ones(free, dtype=bool), x[free:] > gradient[free:]])
        p = np.exp(log_normalize(log_rho - B.T @ x))
        centred = (B + gradient[:, None])[tight]
        step = np.where(tight, 0.0, -x)
        step[tight] = -np.linalg.lstsq((centred * p) @ centred.T, gradient[tight], rcond=1e-14)[0]
        size = 1.0
        slack = 1e-14 * (1 + abs(value) + float(np.max(np.abs(log_rho))))  # the dual's own rounding
        while size > 1e-8 and not _dual(_clipped(x + size * step, free), B, log_rho)[0] <= value + slack:
            size /= 2
        x = _clipped(x + size * step, free)
        error = _infeasibility(_dual(x, B, log_rho)[1], x, free)
        if not error < 0.9 * best_error:
            break
        best, best_error = x, error
    return best, best_error


def _clipped(x: np.ndarray, free: int) -> np.ndarray:
    return np.concatenate([x[:free], np.maximum(x[free:], 0.0)])


def _infeasibility(gradient: np.ndarray, x: np.ndarray, free: int) -> float:
    """Return how far the dual's first-order conditions are from being met."""
    pulled = np.where(x[free:] > 0, np.abs(gradient[free:]), np.maximum(-gradient[free:], 0.0))
    return float(np.max(np.concatenate([np.abs(gradient[:free]), pulled]), initial=0.0))


def _largest_support(A: np.ndarray) -> np.ndarray | None:
    """Return the largest support of a winner by a linear program (theory 2.6.1), if its tolerances allow that."""
    from scipy.optimize import linprog  # here, since it would double the time of `import windgames`

    m = len(A)
    rows, limits = np.vstack([A, A - np.eye(m)]), np.concatenate([np.zeros(m), -np.ones(m)])
    result = linprog(np.ones(m), A_ub=rows, b_ub=limits, method="highs")
    return np.flatnonzero(result.x > -A @ result.x) if result.success else None

r"""Equilibria at ``beta = 0``: of all winners the KL projection of the reference (theory 2.6).

Responses with equal rows are one response. A Condorcet winner wins alone. Most other games have a single winner, too.
Its support is found by pivoting in small games (theory 6.9), and on the central path in large ones. The equations of
the support are solved, and the solution proves itself (theory 6.7.3). Where there are several winners, the central path
ends in their largest support, and the reference is projected onto the winners with that support.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import inf

import numpy as np
from scipy.linalg.lapack import dgecon, dgetrf, dgetrs

from .._array import log_normalize, logsumexp, safe_log
from ..games import Game
from ..preferences import RewardPreference
from ..preferences.base import ties_tol
from .central_path import central_path
from .contexts import ONE_THREAD, in_chunks, threads
from .dense import DenseProblem
from .pivoting import ROUNDING, SINGULAR, only_winners
from .sorted import reference_on_top

PIVOT_ALONE, PIVOT_TOGETHER = 32, 64
"""Number of responses up to which a single game, and at least eight together, are tried by pivoting."""
EARLY_END, LATE_END = 1e-13, 1e-26
"""Sums of probability times slack at which the central path ends first, and where it leaves the support unclear."""
CLEAR = 1e3
"""Ratio of a probability to its slack, or the reverse, from which on the late end decides whether it is positive."""
PROJECTED, NEARLY_PROJECTED = 1e-13, 1e-4
"""Errors of the projection's optimality conditions at which it is accepted, and at which Newton's method is near."""
STALLED = 10
"""Newton steps without a smaller error after which no more are taken; tiny masses need a step for each factor e."""
DEPENDENT = 1e-11
"""Size up to which an entry of eliminated equations, or a relative singular value, counts as zero."""
SMALL_BETA = 1e-7
"""Value of beta whose equilibrium is near the projection of the reference."""


@dataclass(frozen=True)
class Face:
    """The largest support of a winner of one game, and the only winner's log-probabilities there, or None if many."""

    support: np.ndarray
    log_policy: np.ndarray | None


def solve_winners(game: Game, rows: np.ndarray, out: np.ndarray, systems: np.ndarray) -> str:
    """Write the winners of the contexts `rows` of a game on numpy arrays to `out`, and what they took to `systems`.

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
    return "winners"


def _solve(game: Game, rows: np.ndarray, out: np.ndarray, systems: np.ndarray) -> None:
    batch, m = game.batch_shape, game.n_responses
    p, shared = game.preference, game.preference.batch_shape == ()
    log_ref = np.broadcast_to(game.log_ref, (*batch, m)).reshape(-1, m)[rows]
    matrix = np.asarray(p.matrix())
    matrix = matrix[None] if shared else np.broadcast_to(matrix, (*batch, m, m)).reshape(-1, m, m)[rows]
    A = (matrix - matrix.swapaxes(-1, -2)) / 2  # P - 1/2, skew to the last bit
    A[np.abs(A) <= ties_tol(matrix) / 2] = 0.0
    A /= np.maximum(np.max(np.abs(A), axis=(-2, -1), keepdims=True), 1e-300)
    repeated = _has_equal_rows(A)
    plain = np.flatnonzero(np.broadcast_to(~repeated, len(rows)))
    if plain.size:
        out[rows[plain]], systems[rows[plain]] = _winners(A if shared else A[plain], log_ref[plain])
    for k in np.flatnonzero(repeated):
        contexts = np.arange(len(rows)) if shared else np.array([k])
        first, label = _classes(A[k])
        merged = np.stack(
            [logsumexp(np.where(label == c, log_ref[contexts], -inf)) for c in range(len(first))], axis=-1
        )
        z, systems[rows[contexts]] = _winners(A[k][np.ix_(first, first)][None], merged)
        out[rows[contexts]] = z[:, label] - merged[:, label] + log_ref[contexts]


def _has_equal_rows(A: np.ndarray) -> np.ndarray:
    """Return which matrices may have two equal rows: weighted row sums that agree."""
    sums = np.sort(np.sum(A * np.sin(1.0 + np.arange(A.shape[-1])), axis=-1), axis=-1)
    return np.any(sums[:, 1:] == sums[:, :-1], axis=-1)


def _classes(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a representative of each class of equal rows, and the class of each row."""
    order = np.argsort(np.sum(A * np.sin(1.0 + np.arange(len(A))), axis=-1), kind="stable")
    new = np.append(True, np.any(A[order[1:]] != A[order[:-1]], axis=-1))
    label = np.empty(len(A), dtype=int)
    label[order] = np.cumsum(new) - 1
    return order[new], label


def _winners(A: np.ndarray, log_ref: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the log-policy for each reference, of one game for all or of one each, and the linear systems."""
    alone, supports, systems = _faces(A)
    out = np.broadcast_to(alone, log_ref.shape).copy()
    for k in range(len(log_ref)) if len(A) == 1 else supports:
        support = supports.get(0 if len(A) == 1 else k)
        if support is not None:
            out[k, support] = _nearest(A[0 if len(A) == 1 else k], support, log_ref[k])
    return out, np.broadcast_to(systems, len(log_ref))


def _faces(A: np.ndarray) -> tuple[np.ndarray, dict[int, np.ndarray], np.ndarray]:
    """Return the only winners, the largest supports where there are many, and the linear systems or pivots."""
    n, m = A.shape[:2]
    out, systems = np.full((n, m), -inf), np.zeros(n, dtype=int)
    beats = np.sum(A > 0, axis=-1)
    condorcet = np.max(beats, axis=-1) == m - 1
    out[condorcet, np.argmax(beats[condorcet], axis=-1)] = 0.0
    left = np.flatnonzero(~condorcet)
    if left.size and (m <= PIVOT_ALONE or (m <= PIVOT_TOGETHER and left.size >= 8)):
        x, proven, systems[left] = only_winners(A[left])
        out[left[proven]] = safe_log(x[proven])
        left = left[~proven]
    faces: dict[int, Face] = {}
    if left.size:
        x, t, count = _ends_of_paths(A[left], left, faces)
        systems[left] += count
        for one, x_end, t_end in zip(left.tolist(), x, t, strict=True):
            face = faces[one] = faces.get(one) or _face(A[one], x_end, t_end)
            if face.log_policy is not None:
                out[one, face.support] = face.log_policy
    return out, {k: face.support for k, face in faces.items() if face.log_policy is None}, systems


def _ends_of_paths(
    A: np.ndarray, names: np.ndarray, faces: dict[int, Face]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Follow the central paths; one whose support is seen twice, and proven to be the only winner's, ends there."""
    n, m = A.shape[:2]
    last, seen = np.zeros((n, m), dtype=bool), np.zeros(n, dtype=int)

    def proven(i: np.ndarray, x: np.ndarray, t: np.ndarray) -> np.ndarray:
        played = x > t
        seen[i] = np.where(np.all(played == last[i], axis=-1), seen[i] + 1, 0)
        last[i] = played
        done = np.zeros(len(i), dtype=bool)
        for k in np.flatnonzero(seen[i] == 1):
            support = np.flatnonzero(played[k])
            log_policy = _only_winner(A[i[k]], support)
            if log_policy is not None:
                faces[int(names[i[k]])], done[k] = Face(support, log_policy), True
        return done

    zeros = np.zeros(n)
    return central_path(A, np.zeros((n, m)), zeros, zeros + EARLY_END, proven)


def _face(A: np.ndarray, x: np.ndarray, t: np.ndarray) -> Face:
    """Return the largest support of a winner from the end of the central path.

    Where the equations of the support have no single solution that proves itself, the path is followed further.
    Probabilities and slacks that are still alike there are settled by a linear program (theory 2.6.1).
    """
    support = np.flatnonzero(x > t)
    log_policy = _only_winner(A, support)
    if log_policy is not None:
        return Face(support, log_policy)
    m = len(A)
    x, t = (one[0] for one in central_path(A[None], np.zeros((1, m)), np.zeros(1), np.array([LATE_END]))[:2])
    support = np.flatnonzero(x > t)
    if not np.all(np.maximum(x, t) > CLEAR * np.minimum(x, t)):
        program = _largest_support(A)
        if program is None:  # payoffs below the program's tolerance: the end of the path is a winner as far as it goes
            return Face(support, log_normalize(np.log(x[support])))
        support = program
    return Face(support, _only_winner(A, support))


def _only_winner(A: np.ndarray, support: np.ndarray) -> np.ndarray | None:
    """Return the winner with this support if its equations have one solution and all other responses lose to it."""
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
    if np.min(masses) <= ROUNDING or np.max(np.abs(gains[support])) > ROUNDING or np.any(gains[others] > -ROUNDING):
        return None
    return np.log(masses / masses.sum())


def _nearest(A: np.ndarray, support: np.ndarray, log_ref: np.ndarray) -> np.ndarray:
    r"""Return the log-probabilities, on the support, of the KL projection of the reference onto the winners.

    The dual :math:`\log\sum\rho\,e^{-B^\top x}` has free multipliers for the responses in the support, where
    :math:`P\pi=\frac12`, and non-negative ones for the others. The equilibrium at a tiny beta is near the projection
    (theory 2.6), and from the multipliers that it suggests Newton's method takes few steps. Where it fails, a
    quasi-Newton method finds which multipliers are positive, along powers of the reference that start at the uniform
    one.
    """
    others = np.setdiff1d(np.arange(len(A)), support)
    x = central_path(A[None], log_ref[None], np.array([SMALL_BETA]), np.array([1e-6 * SMALL_BETA]))[0][0]
    near = log_normalize(log_ref + A @ x / SMALL_BETA)  # a best response has the small probabilities right, too
    log_rho, multipliers = log_normalize(log_ref[support]), np.exp(near[others]) / SMALL_BETA
    B, free = _echelon(A[np.ix_(support, support)], A[np.ix_(others, support)], near[support])
    wanted = log_rho - near[support] - B[free:].T @ multipliers
    equations = np.concatenate([B[:free].T, np.ones((len(support), 1))], axis=1)
    guess = np.concatenate([np.linalg.lstsq(equations, wanted, rcond=1e-12)[0][:free], multipliers])
    x, error = _polish(B, log_rho, guess, free)
    if PROJECTED < error < NEARLY_PROJECTED:
        x, error = min((x, error), _project(B, log_rho, x, free), key=lambda found: found[1])
    if not error <= PROJECTED:
        staged = np.zeros(len(B))
        stages = np.linspace(0, 1, 2 + int(np.ptp(log_rho) / 10))
        for before, share in pairwise(stages):
            start = staged * share / before if before else staged
            staged, last = _project(B, log_normalize(share * log_rho), start, free)
        x = staged if last < error else x
    z = log_normalize(log_rho - B.T @ x)
    tight = np.append(np.ones(free, dtype=bool), x[free:] > 0)
    for _ in range(3):  # the sum over multipliers rounds to the size of log_rho; these steps do not
        after = log_normalize(z - B[tight].T @ _newton_step(B[tight], np.exp(z)))
        if not np.sum(np.abs(B[tight] @ np.exp(after))) < np.sum(np.abs(B[tight] @ np.exp(z))):
            break
        z = after
    return z


def _echelon(equations: np.ndarray, inequalities: np.ndarray, log_mass: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the equations in reduced echelon form, above the inequalities reduced by them, and their number.

    Pivots are the columns of largest mass, so that what the equations say of tiny masses alone has rows of its own.
    """
    left = equations.copy()
    pivots: list[int] = []
    for column in np.argsort(-log_mass, kind="stable"):
        rank = len(pivots)
        if rank == len(left):
            break
        row = rank + int(np.argmax(np.abs(left[rank:, column])))
        if abs(left[row, column]) < DEPENDENT:
            left[rank:, column] = 0.0
            continue
        left[[rank, row]] = left[[row, rank]]
        left[rank] /= left[rank, column]
        factors = left[:, column].copy()
        factors[rank] = 0.0
        left -= factors[:, None] * left[rank]
        left[np.abs(left) < DEPENDENT] = 0.0
        pivots.append(int(column))
    rank = len(pivots)
    reduced = inequalities - inequalities[:, pivots] @ left[:rank]
    reduced[np.abs(reduced) < DEPENDENT] = 0.0
    return np.concatenate([left[:rank], reduced]), rank


def _project(B: np.ndarray, log_rho: np.ndarray, x: np.ndarray, free: int) -> tuple[np.ndarray, float]:
    """Return the projection's multipliers, the first `free` of any sign, from a guess, and how far off they are."""
    from scipy.optimize import minimize  # imported here: it would double the time of `import windgames`

    bounds = [(None, None)] * free + [(0.0, None)] * (len(B) - free)
    options = {"maxiter": 5000, "maxfun": 20_000, "ftol": 0.0, "gtol": 1e-12, "maxcor": 30}
    for _ in range(10):  # it may stop on a poor line search; started again it forgets its curvature and goes on
        x = minimize(_dual, x, (B, log_rho), jac=True, bounds=bounds, method="L-BFGS-B", options=options).x
        if _infeasibility(B, np.exp(log_normalize(log_rho - B.T @ x)), x[free:]) < 1e-6:
            break
    # a small multiplier may stand for none: its response may lose by a tiny probability only
    dropped = np.where((np.arange(len(x)) >= free) & (x < NEARLY_PROJECTED), 0.0, x)
    return min((_polish(B, log_rho, start, free) for start in (x, dropped)), key=lambda found: found[1])


def _dual(x: np.ndarray, B: np.ndarray, log_rho: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the dual and its gradient."""
    with np.errstate(over="ignore", invalid="ignore"):  # multipliers that run away are no optimum
        logits = log_rho - B.T @ x
        top = logits.max()
        p = np.exp(logits - top)
        return float(top + np.log(p.sum())), -B @ (p / p.sum())


def _polish(B: np.ndarray, log_rho: np.ndarray, x: np.ndarray, free: int) -> tuple[np.ndarray, float]:
    """Return multipliers after Newton steps, as long as those help, and how far they are from optimal."""
    with np.errstate(over="ignore", invalid="ignore"):
        p = np.exp(log_normalize(log_rho - B.T @ x))
        best, best_error, since = x, _infeasibility(B, p, x[free:]), 0
        for _ in range(100):
            value, gradient = _dual(x, B, log_rho)
            # a multiplier smaller than the slack of its inequality, relative to the terms of that, is taken to zero
            slack = gradient[free:] / np.maximum(np.abs(B[free:]) @ p, 1e-300)
            tight = np.concatenate([np.ones(free, dtype=bool), x[free:] > slack])
            while True:
                step = np.where(tight, 0.0, -x)
                step[tight] = _newton_step(B[tight], p)
                loosened = tight & (x == 0) & (step < 0)
                loosened[:free] = False
                if not np.any(loosened):
                    break
                tight &= ~loosened  # a multiplier that is zero and would become negative stays zero
            stride = 1.0
            rounding = 1e-14 * (1 + abs(value) + float(np.max(np.abs(log_rho))))
            while stride > 1e-8 and not _dual(_clipped(x + stride * step, free), B, log_rho)[0] <= value + rounding:
                stride /= 2
            x = _clipped(x + stride * step, free)
            p = np.exp(log_normalize(log_rho - B.T @ x))
            error = _infeasibility(B, p, x[free:])
            since = 0 if error < 0.99 * best_error else since + 1
            if error < best_error:
                best, best_error = x, error
            if since == STALLED:
                break
    return best, best_error


def _newton_step(B: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return the change of multipliers that takes `B p` to zero, to first order; the smallest one if there are many.

    What is made linear is the logarithm of the positive terms of a row less that of the negative ones: so an equation
    between tiny masses counts like the others, and between two masses the step is exact.
    """
    terms = B * p
    plus, minus = np.maximum(terms, 0.0), np.maximum(-terms, 0.0)
    gain, loss = (np.sum(x, axis=1, keepdims=True) for x in (plus, minus))
    y, usable = np.zeros(len(B)), (gain > 0)[:, 0] & (loss > 0)[:, 0]
    if np.any(usable):
        weights = (plus / np.where(gain > 0, gain, 1) - minus / np.where(loss > 0, loss, 1))[usable]
        wanted = (np.log(np.where(gain > 0, gain, 1)) - np.log(np.where(loss > 0, loss, 1)))[usable, 0]
        y[usable] = np.linalg.lstsq(weights @ B[usable].T, wanted, rcond=DEPENDENT)[0]
    return y


def _clipped(x: np.ndarray, free: int) -> np.ndarray:
    return np.concatenate([x[:free], np.maximum(x[free:], 0.0)])


def _infeasibility(B: np.ndarray, p: np.ndarray, multipliers: np.ndarray) -> float:
    """Return the largest violation of equations and of inequalities, the last rows of `B`.

    Where none is above rounding, it is less than that, and in proportion to the largest one relative to its terms.
    """
    value, size = B @ p, np.maximum(np.abs(B) @ p, 1e-300)
    free = len(B) - len(multipliers)
    value[free:] = np.where(multipliers > 0, value[free:], np.maximum(value[free:], 0.0))
    largest = float(np.max(np.abs(value), initial=0.0))
    return largest if largest > PROJECTED else PROJECTED * float(np.max(np.abs(value) / size, initial=0.0))


def _largest_support(A: np.ndarray) -> np.ndarray | None:
    """Return the largest support of a winner by a linear program (theory 2.6.1), if its tolerances allow that."""
    from scipy.optimize import linprog  # imported here: it would double the time of `import windgames`

    m = len(A)
    rows, limits = np.vstack([A, A - np.eye(m)]), np.concatenate([np.zeros(m), -np.ones(m)])
    result = linprog(np.ones(m), A_ub=rows, b_ub=limits, method="highs")
    return np.flatnonzero(result.x > -A @ result.x) if result.success else None

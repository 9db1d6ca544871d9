r"""equilibrium(game): direct, fast, and never called converged beyond what its residual proves.

One Newton method serves every game with ``beta > 0``. The unknown is :math:`z=\log\pi`, the residual
:math:`r(z) = z - \log\rho - u(z)/\beta` up to a constant, and a step solves (theory 6.1)

.. math:: \left(I - \tfrac1\beta(I - 1q^\top)M\right)dz = -(r - q^\top r), \qquad q=\pi,\; M = \partial u/\partial z.

Preferences differ only in how the system is solved: dense by an LU factorisation, rewards by a bidiagonal
recursion in the cumulative masses (theory 6.2). Where Newton fails from the reference, the path in
:math:`\tau = 1/\beta` is followed from :math:`\tau=0`, whose equilibrium is the reference, with adaptive steps; where
that fails too, the rule with a theorem runs until Newton takes over. All contexts advance in lock-step, each on its
own path.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from math import inf
from typing import Any

import numpy as np
from scipy.linalg.lapack import dtbtrs
from threadpoolctl import ThreadpoolController

from ._array import (
    array_namespace,
    batch_size,
    cumulative_sum,
    hilbert,
    like,
    log_cumulative_sum,
    log_normalize,
    logsumexp,
    to_numpy,
)
from .games import BestOfNGame, Game, WinRateGame, check_game, log_ratio_of_powers
from .preferences import MatrixPreference, Preference, RewardPreference
from .solve import Solution
from .updates import extragradient_step, target

ENTRIES = 2**22
"""Largest number of matrix entries that one batch of dense Newton steps holds at a time, on each core."""
SMALL = 400
"""Up to this many responses a dense system is factorised in one thread, and contexts share the cores."""


def equilibrium(game: Game, tol: float = 1e-10) -> Solution:
    r"""Return the equilibrium of a game, with the proof of how close it is.

    - Win-rate game, ``beta > 0``: the unique equilibrium (theory 2.1). The certificates bound the distance to it.
    - Log-win-rate games, ``beta`` above the contraction constant: the unique equilibrium of full support (theory 3.7).
    - Log-win-rate games at smaller ``beta``: the equilibrium that the best-response map reaches from the reference,
      for weak ties the one nearest to it (theory 3.10), with its support; where best responses cycle, the one at the
      end of the path in beta. Others may exist; the status says so, and `converged` rests on the residual alone.
    - ``beta = 0``: of all winners (:math:`P\pi\le\frac12`) the KL projection of the reference, the limit of the
      regularised equilibria of the win-rate game (theory 2.6); with a uniform reference that of maximum entropy. For
      a reward that is the reference restricted to the best responses.

    Parameters
    ----------
    game : Game
        Contexts are solved together, without a Python loop over them where ``beta > 0``.
    tol : float
        Residual :math:`h(\pi, BR(\pi))` in log space at which a context counts as converged; at ``beta = 0`` the gap.

    Returns
    -------
    Solution
        In the array library and on the device of the game, float64. `steps` counts linear solves.

    Raises
    ------
    ValueError
        If ``beta = 0`` in a log-win-rate game whose matrix is not constant-sum: a symmetric equilibrium of a general
        bimatrix game is not computed here.
    """
    check_game(game)
    if not 0 < tol < inf:
        raise ValueError(f"tol must be a positive number, but it is {tol}.")
    batch, m = game.batch_shape, game.n_responses
    local = _numpy_game(game)
    beta = np.broadcast_to(np.asarray(to_numpy(game.beta), dtype=float), batch).reshape(-1)
    n_contexts = beta.size
    log_policy = np.empty((n_contexts, m))
    steps = np.zeros(n_contexts, dtype=int)
    methods = []
    free = np.flatnonzero(beta == 0)
    if free.size:
        methods.append(_solve_free(local, free, log_policy))
    rows = np.flatnonzero(beta > 0)
    if rows.size:
        sorted_ = isinstance(local.preference, RewardPreference)
        make = _Sorted if sorted_ else _Dense

        def solve_chunk(chunk: np.ndarray) -> None:
            problem = make(local, chunk, beta[chunk])
            z, steps[chunk] = _solve(problem, tol)
            log_policy[chunk] = problem.expand(z)

        if sorted_ or m > SMALL:
            for chunk in [rows] if sorted_ else np.split(rows, rows.size):
                solve_chunk(chunk)
        else:
            # Many small systems: one thread a chunk of contexts, and none inside the factorisations, where on a busy
            # machine threads wait for each other longer than they work.
            cores = os.cpu_count() or 1
            width = max(1, min(ENTRIES // m**2, -(-rows.size // cores)))
            with _threads().limit(limits=1, user_api="blas"), ThreadPoolExecutor(cores) as pool:
                list(pool.map(solve_chunk, np.split(rows, range(width, rows.size, width))))
        methods.append(f"Newton ({'sorted' if sorted_ else 'dense'})")
    return _judge(game, local, log_policy.reshape(*batch, m), steps.reshape(batch), tol, " and ".join(methods))


@cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()


def _numpy_game(game: Game) -> Game:
    """Return the same game on numpy arrays in float64."""
    p = game.preference
    if isinstance(p.example, np.ndarray) and p.example.dtype == np.float64:
        return game
    if isinstance(p, RewardPreference):
        preference: Preference = RewardPreference(to_numpy(p.reward).astype(float), ties=p.ties)
    else:
        assert isinstance(p, MatrixPreference)
        preference = MatrixPreference(to_numpy(p._cast(array_namespace(p.example).float64)))
    ref, beta = np.exp(to_numpy(game.log_ref)), np.asarray(to_numpy(game.beta), dtype=float)
    if isinstance(game, BestOfNGame):
        return BestOfNGame(preference, ref, game.n, beta)
    return type(game)(preference, ref, beta)


def _judge(game: Game, local: Game, log_policy: np.ndarray, steps: np.ndarray, tol: float, method: str) -> Solution:
    """Let the game judge the answer, after one more best response where that improves it."""
    measured = local.measure(log_policy)
    if np.all(to_numpy(local.beta) > 0):
        again = local.best_response(log_policy)
        other = local.measure(again)
        better = other["residual"] < measured["residual"]
        log_policy = np.where(better[..., None], again, log_policy)
        measured = {name: np.where(better, other[name], value) for name, value in measured.items()}
    converged = measured["residual"] <= tol
    worst, count = float(np.max(measured["residual"])), int(np.sum(~converged))
    sentence = f"Converged: residual {worst:.2e}, asked {tol:.0e}."
    if count:
        where = f" in {count} of {converged.size} contexts" if batch_size(game.batch_shape) > 1 else ""
        sentence = (
            f"Not converged{where}: residual {worst:.2e}, asked {tol:.0e}. Raise tol or beta: rounding alone leaves "
            f"about 1e-15/beta."
        )
        if not isinstance(game, WinRateGame):
            sentence += (
                " At the critical beta of a log-win-rate game (theory 3.8) best responses converge slower than "
                "geometrically."
            )
    beta = np.asarray(to_numpy(local.beta))
    if np.any(beta == 0):
        sentence += " At beta = 0: the winner nearest to the reference in KL; other winners may exist."
    if not isinstance(game, WinRateGame) and np.any(np.isinf(local.certificate_factor) & (beta > 0)):
        sentence += (
            " beta is not above the contraction constant (theory 3.7): other equilibria may exist. This is the one "
            "that best responses reach from the reference (where they cycle: the path in beta), and the residual is "
            "all that proves it."
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


# -- two ways to solve the Newton system -------------------------------------------------------------------


class _Problem:
    """What Newton needs of a game: contexts as rows, a payoff and the solution of the Newton system."""

    game: Game
    rows: np.ndarray
    beta: np.ndarray
    log_ref: np.ndarray
    log_payoff: bool
    guess: np.ndarray | None = None

    def payoff(self, z: np.ndarray, rows: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def direction(self, z: np.ndarray, u: np.ndarray, r: np.ndarray, beta: np.ndarray, rows: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def expand(self, z: np.ndarray) -> np.ndarray:
        """Return the policy over responses."""
        raise NotImplementedError

    @cached_property
    def max_step(self) -> np.ndarray:
        return extragradient_step(self.game).reshape(-1)[self.rows]

    @cached_property
    def unique(self) -> np.ndarray:
        """Contexts in which a theorem makes the equilibrium unique (theory 2.1, 3.7)."""
        if not self.log_payoff or np.all(self.beta > 1):
            return np.ones(len(self.rows), dtype=bool)
        return self.beta > np.reshape(self.game.contraction, -1)[self.rows]  # type: ignore[attr-defined]


class _Dense(_Problem):
    """Contexts as rows; the payoff's derivative is a matrix, the system an LU factorisation."""

    def __init__(self, game: Game, rows: np.ndarray, beta: np.ndarray) -> None:
        m = game.n_responses
        batch = game.batch_shape
        matrix = np.broadcast_to(game.preference.matrix(), (*batch, m, m)).reshape(-1, m, m)
        self.shared = game.preference.batch_shape == () or matrix.shape[0] == 1
        self.matrix = matrix[:1] if self.shared else matrix[rows]
        self.log_ref = np.broadcast_to(game.log_ref, (*batch, m)).reshape(-1, m)[rows]
        self.beta = beta
        self.log_payoff = not isinstance(game, WinRateGame)
        self.game, self.rows = game, rows

    def _matrix(self, rows: np.ndarray) -> np.ndarray:
        return self.matrix if self.shared else self.matrix[rows]

    def payoff(self, z: np.ndarray, rows: np.ndarray) -> np.ndarray:
        p = np.exp(z)
        if self.shared:
            win = p @ self.matrix[0].T
        else:
            win = (self.matrix[rows] @ p[..., None])[..., 0]
        if not self.log_payoff:
            return win
        if win.min() > 1e-280:  # nothing that underflowed above could have counted
            return np.log(win)
        with np.errstate(divide="ignore"):
            return logsumexp(np.log(self._matrix(rows)) + z[:, None, :])

    def direction(self, z: np.ndarray, u: np.ndarray, r: np.ndarray, beta: np.ndarray, rows: np.ndarray) -> np.ndarray:
        q = np.exp(z)
        if self.log_payoff:
            alive = np.isfinite(u)
            M = self._matrix(rows) * np.exp(
                np.where(alive[..., None], z[:, None, :] - np.where(alive, u, 0.0)[..., None], -inf)
            )
        else:
            M = self._matrix(rows) * q[:, None, :]
        A = (q[:, None, :] @ M - M) / beta[:, None, None]
        index = np.arange(z.shape[1])
        A[:, index, index] += 1
        rhs = np.sum(q * r, axis=-1, keepdims=True) - r
        try:
            return np.linalg.solve(A, rhs[..., None])[..., 0]
        except np.linalg.LinAlgError:
            return np.full_like(z, np.nan)

    def expand(self, z: np.ndarray) -> np.ndarray:
        return z


class _Sorted(_Problem):
    """Contexts as rows, classes of equal reward as columns, worst first; absent classes have no mass."""

    def __init__(self, game: Game, rows: np.ndarray, beta: np.ndarray) -> None:
        p = game.preference
        assert isinstance(p, RewardPreference)
        batch, m = game.batch_shape, game.n_responses
        log_ref = np.broadcast_to(game.log_ref, (*batch, m)).reshape(-1, m)[rows]
        order = np.broadcast_to(p._order_numpy, (*batch, m)).reshape(-1, m)[rows]
        starts = np.broadcast_to(p._starts, (*batch, m)).reshape(-1, m)[rows]
        ordered = np.take_along_axis(log_ref, order, -1)
        self.log_ref_in, self.order = log_ref, order
        if starts.all():
            self.label, self.log_ref = None, ordered
        else:
            self.label = np.cumsum(starts, axis=-1) - 1
            k = int(self.label.max()) + 1
            n = len(rows)
            cell = self.label + np.arange(n)[:, None] * k
            top = np.full(n * k, -inf)
            np.maximum.at(top, cell.ravel(), ordered.ravel())
            mass = np.bincount(cell.ravel(), np.exp(ordered.ravel() - top[cell.ravel()]), minlength=n * k)
            with np.errstate(divide="ignore", invalid="ignore"):
                self.log_ref = np.where(mass > 0, top + np.log(mass), -inf).reshape(n, k)
        self.beta = beta
        self.log_payoff = not isinstance(game, WinRateGame)
        self.ties = "n" if isinstance(game, BestOfNGame) else p.ties
        self.n = getattr(game, "n", 2.0)
        self.game, self.rows = game, rows
        self.guess = self._continuum()

    def _continuum(self) -> np.ndarray:
        """Start from the closed form without atoms (theory 3.11)."""
        beta = self.beta[:, None]
        if self.log_payoff:
            above = np.maximum(beta, 1 + 1e-3)
            log_u = log_cumulative_sum(self.log_ref)[:, 1:]
            return log_normalize(self.log_ref + log_u / (above - 1))
        u = np.minimum(cumulative_sum(np.exp(self.log_ref)), 1.0)
        # F = -beta log(1 - c u) with 1 - c u = (1 - u) + u exp(-1/beta)
        with np.errstate(divide="ignore"):
            F = -beta * np.logaddexp(np.log1p(-u), np.log(u) - 1 / beta)
        return log_normalize(self.log_ref + (F[:, 1:] + F[:, :-1]) / (2 * beta))

    def payoff(self, z: np.ndarray, rows: np.ndarray) -> np.ndarray:
        if not self.log_payoff:
            F = cumulative_sum(np.exp(z))
            return (F[:, 1:] + F[:, :-1]) / 2
        F = log_cumulative_sum(z)
        up, low = F[:, 1:], F[:, :-1]
        if self.ties == "weak":
            return up
        if self.ties == "half":
            return np.logaddexp(up, low) - np.log(2)
        return up + log_ratio_of_powers(self._log_gap(z, up), self.n) / (self.n - 1)

    @staticmethod
    def _log_gap(z: np.ndarray, up: np.ndarray) -> np.ndarray:
        """Return ``log F_k - log F_{k-1}`` from the share of the class, without cancellation."""
        with np.errstate(divide="ignore"):
            return -np.log1p(-np.exp(np.minimum(_minus(z, up), 0.0)))

    def direction(self, z: np.ndarray, u: np.ndarray, r: np.ndarray, beta: np.ndarray, rows: np.ndarray) -> np.ndarray:
        beta = beta[:, None]
        if not self.log_payoff:
            q = np.exp(z)
            a = q / (2 * beta)
            # downwards: (1 + a_k) d_{k-1} - (1 - a_k) d_k = -q_k (lambda - r_k), d_m = 0, and lambda makes d_0 = 0
            x = _bidiagonal(1 + a, a - 1, np.stack([q * r, -q]), lower=False)
            multiplier = -x[0, :, :1] / x[1, :, :1]
            d = x[0] + multiplier * x[1]
            d = np.concatenate([d, np.zeros_like(d[:, :1])], axis=1)
            return (d[:, 1:] + d[:, :-1]) / (2 * beta) + multiplier - r
        up = log_cumulative_sum(z)[:, 1:]
        p = np.exp(np.minimum(_minus(z, up), 0.0))
        above, below = self._weights(z, up, p)
        # upwards, relative: y_k (1 - p a/beta) = (1 - p + p b/beta) y_{k-1} + p (lambda - r), and lambda makes y_m = 0
        x = _bidiagonal(1 - p * above / beta, p - 1 - p * below / beta, np.stack([-p * r, p]), lower=True)
        multiplier = -x[0, :, -1:] / x[1, :, -1:]
        y = x[0] + multiplier * x[1]
        before = np.concatenate([np.zeros_like(y[:, :1]), y[:, :-1]], axis=1)
        return (above * y + below * before) / beta + multiplier - r

    def _weights(self, z: np.ndarray, up: np.ndarray, p: np.ndarray) -> tuple[Any, Any]:
        r"""Return the derivatives of the payoff by :math:`\log F_k` and :math:`\log F_{k-1}`; they sum to one."""
        if self.ties == "weak":
            return 1.0, 0.0
        if self.ties == "half":
            return 1 / (2 - p), (1 - p) / (2 - p)
        d, n = self._log_gap(z, up), self.n
        series = 0.5 - (n + 1) * d / 12
        small = d * n < 1e-4
        safe = np.where(small, 1.0, np.minimum(d, 700.0 / n))
        exact = (1 / np.expm1(safe) - n / np.expm1(n * safe)) / (n - 1)
        below = np.where(small, series, np.where(p >= 1, 0.0, exact))
        return 1 - below, below

    def expand(self, z: np.ndarray) -> np.ndarray:
        """Return the policy over responses: within a class it is proportional to the reference."""
        tilt = _minus(z, self.log_ref)
        if self.label is not None:
            tilt = np.take_along_axis(tilt, self.label, -1)
        out = np.empty_like(self.log_ref_in)
        np.put_along_axis(out, self.order, tilt, -1)
        return log_normalize(out + self.log_ref_in)


def _minus(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return ``a - b``, ``-inf`` wherever `a` is."""
    dead = a == -inf
    return np.where(dead, -inf, a - np.where(dead, 0.0, b))


def _bidiagonal(diagonal: np.ndarray, off: np.ndarray, rhs: np.ndarray, *, lower: bool) -> np.ndarray:
    """Solve the recursions of all contexts at once, as one bidiagonal system with uncoupled blocks."""
    n, k = diagonal.shape
    band = np.zeros((2, n * k), order="F")
    off = off.copy()
    if lower:  # off[:, j] multiplies the unknown j - 1
        off[:, 0] = 0
        band[0] = diagonal.ravel()
        band[1, :-1] = off.ravel()[1:]
    else:  # off[:, j] multiplies the unknown j + 1
        off[:, -1] = 0
        band[1] = diagonal.ravel()
        band[0, 1:] = off.ravel()[:-1]
    x, info = dtbtrs(band, rhs.reshape(len(rhs), -1).T, uplo="L" if lower else "U")
    if info != 0:
        return np.full_like(rhs, np.nan)
    return x.T.reshape(rhs.shape)


# -- Newton on the path ------------------------------------------------------------------------------------


def _residual(problem: _Problem, z: np.ndarray, u: np.ndarray, beta: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return :math:`z - log rho - u/beta` up to a constant, zero outside the support."""
    dead = z == -inf
    r = np.where(dead, 0.0, z) - np.where(dead, 0.0, problem.log_ref[rows] + np.where(dead, 0.0, u) / beta[:, None])
    middle = np.sum(np.exp(z) * r, axis=-1, keepdims=True)
    return np.where(dead, 0.0, r - middle)


def _span(r: np.ndarray, dead: np.ndarray) -> np.ndarray:
    return np.max(np.where(dead, -inf, r), axis=-1) - np.min(np.where(dead, inf, r), axis=-1)


def _solve(problem: _Problem, tol: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the equilibria of all contexts of a problem and the number of linear solves of each."""
    everyone = np.arange(len(problem.beta))
    z = problem.log_ref.copy()
    steps = np.zeros(len(everyone), dtype=int)
    unique = problem.unique
    done = ~unique
    if np.any(unique):
        rows = everyone[unique]
        z[rows], done[rows], steps[rows] = _follow(problem, rows, tol)
    for row in everyone[~done]:
        z[row], more = _fall_back(problem, row, z[row], tol)
        steps[row] += more
    if np.any(~unique):
        rows = everyone[~unique]
        z[rows], steps[rows] = _from_reference(problem, rows, tol)
    return z, steps


def _follow(problem: _Problem, rows: np.ndarray, tol: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Follow the path in tau = 1/beta for the given contexts; return policies, success and linear solves.

    Each context has its own state: `good` solves at `tau`, `z` is being improved at `trial`. In every round a context
    either accepts `trial` and goes further, gives up and tries a shorter stride, halves its Newton step, or takes one.
    """
    goal = 1 / problem.beta[rows]
    n = len(rows)
    good = problem.log_ref[rows]  # solves at tau
    tau = np.zeros(n)
    growth = np.full(n, 10.0)
    if problem.guess is None:
        z, trial = good.copy(), np.minimum(goal, 2.0)
    else:
        z, trial = problem.guess[rows].copy(), goal.copy()
    base, step, size = z.copy(), np.zeros_like(z), np.ones(n)
    before = np.full(n, inf)
    tries = np.zeros(n, dtype=int)
    solves = np.zeros(n, dtype=int)
    active = np.arange(n)
    best, best_z = np.full(n, inf), z.copy()
    for _ in range(2000):
        if not active.size:
            break
        i = active
        with np.errstate(over="ignore", invalid="ignore"):
            u = problem.payoff(z[i], rows[i])
            r = _residual(problem, z[i], u, 1 / trial[i], rows[i])
            span = _span(r, z[i] == -inf)
        span = np.where(np.isnan(span), inf, span)
        final = trial[i] == goal[i]
        better = final & (span < best[i])
        best[i[better]], best_z[i[better]] = span[better], z[i[better]]
        # A step that does not lower the residual is halved; a few halvings in vain end the attempt.
        worse = ~(span < (1 - 0.1 * size[i]) * before[i])
        # At the goal: stop when the tolerance is met and a further step no longer helps.
        arrived = final & (best[i] <= tol) & (worse | (span == 0))
        passed = ~final & (span <= 0.3)
        failed = ~arrived & ~passed & ((worse & (size[i] <= 1 / 8)) | (tries[i] >= 25))
        halve = worse & ~arrived & ~passed & ~failed
        newton = ~(arrived | passed | failed | halve)

        if np.any(passed):
            j = i[passed]
            tau[j], good[j] = trial[j], z[j]
            quick = tries[j] <= 3
            growth[j] = np.where(quick, np.minimum(growth[j] ** 1.5, 1e3), growth[j])
            trial[j] = np.minimum(goal[j], tau[j] * growth[j])
            base[j], step[j], before[j], size[j], tries[j] = z[j], 0, inf, 1, 0
        if np.any(failed):
            j = i[failed]
            growth[j] = growth[j] ** 0.5
            shorter = np.where(tau[j] == 0, np.minimum(trial[j] / 4, 2.0), tau[j] * growth[j])
            trial[j] = np.minimum(goal[j], shorter)
            z[j] = base[j] = good[j]
            step[j], before[j], size[j], tries[j] = 0, inf, 1, 0
        if np.any(halve):
            j = i[halve]
            size[j] /= 2
            z[j] = log_normalize(base[j] + size[j][:, None] * step[j])
        if np.any(newton):
            j = i[newton]
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                step[j] = problem.direction(z[j], u[newton], r[newton], 1 / trial[j], rows[j])
            base[j], before[j], size[j] = z[j], span[newton], 1
            sane = np.all(np.isfinite(step[j]) | (z[j] == -inf), axis=-1)
            step[j] = np.where(z[j] == -inf, 0.0, np.where(sane[:, None], step[j], 0.0))
            z[j] = log_normalize(z[j] + step[j])
            tries[j] += 1
            solves[j] += 1
        stuck = failed & ((growth[i] < 1.01) | (trial[i] < 1e-8) | (best[i] <= tol))
        active = i[~(arrived | stuck)]
    return np.where(np.isfinite(best)[:, None], best_z, good), best <= tol, solves


def _newton_at_goal(problem: _Problem, row: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, float, int]:
    """Take plain Newton steps at the context's own beta while they lower the residual."""
    beta = problem.beta[row]
    best, best_z, count = inf, z, 0
    while count < 30:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            u = problem.payoff(z, row)
            r = _residual(problem, z, u, beta, row)
            span = float(_span(r, z == -inf)[0])
            if not span < 0.9 * best:
                break
            best, best_z = span, z
            if span == 0:
                break
            step = problem.direction(z, u, r, beta, row)
            step = np.where(z == -inf, 0.0, step)
        if not np.all(np.isfinite(step)):
            break
        z = log_normalize(z + step)
        count += 1
    if span < best:
        best, best_z = span, z
    return best_z, best, count


def _fall_back(problem: _Problem, row: int, z: np.ndarray, tol: float) -> tuple[np.ndarray, int]:
    """Run the rule with a theorem (extragradient, or best responses) and let Newton finish."""
    one = np.asarray([row])
    z, beta, total = z[None], problem.beta[row], 0
    for _ in range(40):
        for _ in range(500):
            z = _proven_step(problem, one, z, beta)
        done, span, count = _newton_at_goal(problem, one, z)
        total += count
        if span <= tol:
            return done[0], total
    return z[0], total


def _proven_step(problem: _Problem, row: np.ndarray, z: np.ndarray, beta: float) -> np.ndarray:
    log_ref = problem.log_ref[row]
    if problem.log_payoff:
        return log_normalize(log_ref + problem.payoff(z, row) / beta)
    eta = float(problem.max_step[row[0]])
    half = log_normalize(target(z, log_ref, problem.payoff(z, row), beta=beta, eta=eta))
    return log_normalize(target(z, log_ref, problem.payoff(half, row), beta=beta, eta=eta))


# -- log games where no theorem gives uniqueness -----------------------------------------------------------


def _from_reference(problem: _Problem, rows: np.ndarray, tol: float) -> tuple[np.ndarray, np.ndarray]:
    """Return where best responses lead from the reference (theory 3.10), all contexts in lock-step.

    The iteration itself decides which equilibrium that is; Newton only finishes once the residual is small, and its
    answer is taken only if it lies next to the iterate. Where best responses do not converge (only a matrix that is no
    reward's can make them cycle) the path in beta is followed instead.
    """
    z = problem.log_ref[rows].copy()
    beta = problem.beta[rows][:, None]
    steps, wait = np.zeros(len(rows), dtype=int), np.full(len(rows), 1e-3)
    active = np.arange(len(rows))
    for _ in range(5000 if isinstance(problem, _Sorted) else 2000):
        if not active.size:
            break
        i = active
        with np.errstate(over="ignore"):
            after = log_normalize(problem.log_ref[rows[i]] + problem.payoff(z[i], rows[i]) / beta[i])
        span = hilbert(z[i], after)
        falling = _minus(z[i], after) > 1e-3
        z[i] = after
        for k in np.flatnonzero(np.any((after < -800) & (after > -inf), axis=-1)):
            z[i[k]] = _bury(problem, rows[i[k : k + 1]], after[k : k + 1], falling[k : k + 1])[0]
        for k in np.flatnonzero((span <= wait[i]) & (span > 0)):
            one, near = rows[i[k : k + 1]], z[i[k : k + 1]]
            done, residual, count = _newton_at_goal(problem, one, near)
            steps[i[k]] += count
            wait[i[k]] = span[k] / 10
            if residual <= tol and float(hilbert(done, near)[0]) <= 0.1:
                z[i[k]], span[k] = done[0], 0.0
        active = i[span > tol / 10]
    if active.size and not isinstance(problem, _Sorted):
        path, success, solves = _follow(problem, rows[active], tol)
        steps[active] += solves
        z[active] = np.where(success[:, None], path, z[active])
    return z, steps


def _bury(problem: _Problem, row: np.ndarray, z: np.ndarray, falling: np.ndarray) -> np.ndarray:
    """Take out of play the responses that are dying and that nothing alive feeds: their payoff is ``-inf``."""
    dying = (z < -800) & (z > -inf) & falling
    while np.any(dying):
        rest = log_normalize(np.where(dying, -inf, z))
        fed = dying & (problem.payoff(rest, row) > -inf)
        if not np.any(fed):
            return rest
        dying &= ~fed
    return z


# -- beta = 0 ----------------------------------------------------------------------------------------------


def _solve_free(game: Game, rows: np.ndarray, out: np.ndarray) -> str:
    """Fill in the winners at beta = 0 and return the method's name."""
    batch, m = game.batch_shape, game.n_responses
    log_ref = np.broadcast_to(game.log_ref, (*batch, m)).reshape(-1, m)
    p = game.preference
    if isinstance(p, RewardPreference):
        top = np.broadcast_to(p.top, (*batch, m)).reshape(-1, m)[rows]
        out[rows] = log_normalize(np.where(top, log_ref[rows], -inf))
        return "best responses of the reward"
    if not p.is_constant_sum:
        raise ValueError(
            "At beta = 0 a log-win-rate game with a matrix that is not constant-sum is a general bimatrix game, whose "
            "symmetric equilibria are not computed here. Take beta > 0 or a constant-sum preference."
        )
    matrix = np.broadcast_to(p.matrix(), (*batch, m, m)).reshape(-1, m, m)
    for row in rows:
        out[row] = _winner(matrix[row], log_ref[row])
    return "linear program (HiGHS) and KL projection"


def _winner(matrix: np.ndarray, log_ref: np.ndarray) -> np.ndarray:
    r"""Return the KL projection of the reference onto the winners :math:`\{\pi: P\pi\le\frac12\}` (theory 2.6)."""
    A = (matrix - matrix.T) / 2  # P - 1/2, skew to the last bit
    m = len(A)
    support = _largest_support(A)
    S, T = np.flatnonzero(support), np.flatnonzero(~support)
    log_rho = log_normalize(log_ref[S])
    # (P pi)_S = 1/2 holds for every winner; of the inequalities (P pi)_T <= 1/2 find those that bind.
    active: list[int] = []
    multiplier = np.zeros(len(S))
    for _ in range(4 * m):
        rows = np.concatenate([S, np.asarray(active, dtype=int)])
        log_pi, multiplier = _project(A[np.ix_(rows, S)], log_rho, multiplier)
        excess = A[np.ix_(T, S)] @ np.exp(log_pi)
        excess[np.isin(T, active)] = -inf
        pulled = multiplier[len(S) :]
        if len(pulled) and pulled.min() < 0:
            drop = int(np.argmin(pulled))
            active.pop(drop)
            multiplier = np.delete(multiplier, len(S) + drop)
        elif len(T) and excess.max() > 1e-14:
            active.append(int(T[np.argmax(excess)]))
            multiplier = np.append(multiplier, 0.0)
        else:
            break
    out = np.full(m, -inf)
    out[S] = log_pi
    return out


def _project(B: np.ndarray, log_rho: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Return the KL projection of `rho` onto :math:`\{\pi: B\pi = 0\}` and its multipliers, from the guess `x`.

    Newton with backtracking on the dual :math:`\log\sum\rho\,e^{-B^\top x}`, whose gradient is :math:`-B\pi`.
    """

    def dual(x: np.ndarray) -> float:
        return float(logsumexp(log_rho - B.T @ x))

    for _ in range(200):
        log_pi = log_normalize(log_rho - B.T @ x)
        pi = np.exp(log_pi)
        gradient = -B @ pi
        if np.max(np.abs(gradient)) < 1e-16:
            break
        centred = B + gradient[:, None]
        step = -np.linalg.lstsq((centred * pi) @ centred.T, gradient, rcond=1e-13)[0]
        slope, size = float(gradient @ step), 1.0
        if not slope < 0:
            break
        while size > 1e-8 and dual(x + size * step) > dual(x) + 1e-4 * size * slope + 1e-15:
            size /= 2
        if size <= 1e-8:
            break
        x = x + size * step
    return log_pi, x


def _largest_support(A: np.ndarray) -> np.ndarray:
    """Return the largest support of a winner: Tucker's strictly complementary solution, by a linear program."""
    from scipy.optimize import linprog  # here, since it would double the time of `import windgames`

    m = len(A)
    rows, limits = np.vstack([A, A - np.eye(m)]), np.concatenate([np.zeros(m), -np.ones(m)])
    result = linprog(np.ones(m), A_ub=rows, b_ub=limits, method="highs")
    if not result.success:
        raise RuntimeError(f"HiGHS could not solve the linear program of theory 2.6: {result.message}")
    return result.x > -A @ result.x

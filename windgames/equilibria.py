r"""equilibrium(game): direct, fast, and never called converged beyond what its residual proves.

One Newton method serves every game with ``beta > 0``. The unknown is :math:`z=\log\pi`, the residual
:math:`r(z) = z - \log\rho - u(z)/\beta` up to a constant, and a step solves (theory 6.1)

.. math:: \left(I - \tfrac1\beta(I - 1q^\top)M\right)dz = -(r - q^\top r), \qquad q=\pi,\; M = \partial u/\partial z.

Preferences differ only in how the system is solved: dense by an LU factorisation, rewards by a bidiagonal
recursion in the cumulative masses (theory 6.2), low-rank scores in as many dimensions as they have (theory 6.5), one
large dense context by a few products with the matrix, where a few do (theory 6.7).
Where Newton fails from the reference, the path in :math:`\tau = 1/\beta` is followed from :math:`\tau=0`, whose
equilibrium is the reference, with adaptive steps; dense games of low price begin near the equilibrium instead, at the
end of the central path (theory 6.7); where all that fails, the rule with a theorem runs until Newton takes over. All
contexts advance in lock-step, each on its own path.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import cache, cached_property
from math import inf, sqrt
from typing import Any

import numpy as np
from scipy.linalg.lapack import dgetrf, dgetrs, dtbtrs
from threadpoolctl import ThreadpoolController

from . import bounds
from ._array import (
    Array,
    array_namespace,
    batch_size,
    cumulative_sum,
    hilbert,
    kl,
    like,
    log_cumulative_sum,
    log_normalize,
    logsumexp,
    number,
    to_numpy,
)
from .central import ITERATED, central_path, few_products, gains
from .games import BestOfNGame, Game, WinRateGame, check_game, log_ratio_of_powers
from .preferences import BradleyTerryPreference, LowRankPreference, MatrixPreference, Preference, RewardPreference
from .solve import Solution
from .updates import target
from .winners import winners

ENTRIES = 2**22
"""Largest number of matrix entries that one batch of dense Newton steps holds at a time, on each core."""
SMALL = 400
"""Up to this many responses a dense system is factorised in one thread, and contexts share the cores."""
FORCING = 1e-3
"""Share of the residual that is left when a step is iterated and not factorised."""
FLOOR = 4e-15
"""Divided by beta, the residual that double precision may leave: where `tol` asks for less, this ends a search."""
LOW, CLOSE = 0.05, 0.01
"""Below this price, a tenth of it where systems are iterated, the central path is followed first, until the sum of
share times slack is so small a part of the price."""


def equilibrium(game: Game, tol: float = 1e-10, start: Array | Solution | None = None) -> Solution:
    r"""Return the equilibrium of a game, with the proof of how close it is.

    - Win-rate game, ``beta > 0``: the unique equilibrium (theory 2.1). The certificates bound the distance to it.
    - Log-win-rate games, ``beta`` above the contraction constant: the unique equilibrium of full support (theory 3.7).
    - Log-win-rate games at smaller ``beta``: the equilibrium that the best-response map reaches from the reference,
      for weak ties the one nearest to it (theory 3.10), with its support; where best responses cycle, the one at the
      end of the path in beta, and where that folds, the nearest to the reference that Newton finds from random
      policies. Others may exist; the status says so, and `converged` rests on the residual alone.
    - ``beta = 0``: of all winners (:math:`P\pi\le\frac12`) the KL projection of the reference, the limit of the
      regularised equilibria of the win-rate game (theory 2.6); with a uniform reference that of maximum entropy. For
      a reward that is the reference restricted to the best responses.

    Parameters
    ----------
    game : Game
        Contexts are solved together, without a Python loop over them where ``beta > 0``.
    tol : float
        Residual :math:`h(\pi, BR(\pi))` in log space at which a context counts as converged; at ``beta = 0`` the gap.
    start : array, shape ``(..., m)``, or Solution, optional
        Normalised log-probabilities near the equilibrium, or the solution of a similar game: saves steps, and changes
        nothing else where the equilibrium is unique. Where others may exist, best responses start from here and not
        from the reference; at ``beta = 0`` it is not used. For many values of beta see `equilibrium_path`.

    Returns
    -------
    Solution
        In the array library and on the device of the game, float64. `steps` counts linear systems.

    Raises
    ------
    ValueError
        If `start` is not a policy of the game, or if ``beta = 0`` in a log-win-rate game whose matrix is not
        constant-sum: a symmetric equilibrium of a general bimatrix game is not computed here.
    """
    tol = _check(game, tol)
    local = _numpy_game(game)
    start = getattr(start, "log_policy", start)
    given = None if start is None else to_numpy(game.check_policy(start, "start")).astype(float)
    beta = _flat_beta(local)
    out, steps = np.empty((beta.size, game.n_responses)), np.zeros(beta.size, dtype=int)
    methods = []
    free, rows = np.flatnonzero(beta == 0), np.flatnonzero(beta > 0)
    if free.size:
        methods.append(_solve_free(local, free, out))
    if rows.size:

        def solve_chunk(chunk: np.ndarray) -> None:
            problem = make_problem(local, chunk, beta[chunk])
            if given is not None:
                problem.start_from(given.reshape(-1, game.n_responses)[chunk])
            z, steps[chunk] = _solve(problem, tol)
            out[chunk] = problem.expand(z)

        in_chunks(problem_class(local), local, rows, solve_chunk)
        methods.append(_method(local))
    origin = "the reference" if start is None else "the start"
    return _judge(game, local, out, steps, tol, " and ".join(methods), origin)


def _check(game: Game, tol: float) -> float:
    check_game(game)
    tol = number(tol, "tol")
    if not 0 < tol < inf:
        raise ValueError(f"tol must be a positive number, but it is {tol}.")
    return tol


def _flat_beta(local: Game) -> np.ndarray:
    return np.broadcast_to(np.asarray(local.beta, dtype=float), local.batch_shape).reshape(-1)


def _method(local: Game) -> str:
    return f"Newton ({problem_class(local).name})"


def _solve_free(local: Game, rows: np.ndarray, out: np.ndarray) -> str:
    """Fill in the winners at ``beta = 0`` and return the method's name."""
    p, said = local.preference, [""]
    if isinstance(p, RewardPreference):
        return winners(local, rows, out)
    if p.batch_shape == ():  # its winners are found once for all references
        with _threads().limit(limits=1 if local.n_responses <= SMALL else None, user_api="blas"):
            return winners(local, rows, out)
    in_chunks(_Dense, local, rows, lambda chunk: said.append(winners(local, chunk, out)))
    return said[-1]


def in_chunks(kind: type[_Problem], local: Game, rows: np.ndarray, run: Callable[[np.ndarray], None]) -> None:
    """Call `run` on chunks of contexts, as many together as memory and cores suggest."""
    m = local.n_responses
    if kind is _Sorted:
        run(rows)
        return
    entries = m * (m if kind is _Dense else local.preference.embedding.shape[-1])  # type: ignore[attr-defined]
    if m > SMALL:
        width = 1 if kind is _Dense else max(1, ENTRIES // entries)
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


def _numpy_game(game: Game) -> Game:
    """Return the same game on numpy arrays in float64."""
    p = game.preference
    if isinstance(p.example, np.ndarray) and p.example.dtype == np.float64:
        return game
    if isinstance(p, RewardPreference):
        preference: Preference = RewardPreference(to_numpy(p.reward).astype(float), ties=p.ties)
    elif isinstance(p, BradleyTerryPreference):
        preference = BradleyTerryPreference(to_numpy(p.reward).astype(float), p.scale)
    elif isinstance(p, LowRankPreference):
        preference = p.to_numpy()
    else:
        assert isinstance(p, MatrixPreference)
        preference = MatrixPreference(to_numpy(p._cast(array_namespace(p.example).float64)))
    ref, beta = np.exp(to_numpy(game.log_ref)), np.asarray(to_numpy(game.beta), dtype=float)
    return game.replace(preference=preference, ref=ref, beta=beta)


def _judge(
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


# -- three ways to solve the Newton system -----------------------------------------------------------------

System = Callable[..., np.ndarray]
r"""A Newton system that is set up: ``system(t)`` solves :math:`\mathcal A x = t - \langle q,t\rangle`, and
``system(g, transposed=True)`` is the transpose of that map, applied to `g` (theory 6.4)."""
Newton = Callable[[np.ndarray], np.ndarray]


class _Problem:
    """What Newton needs of a game: contexts as rows, a payoff and the solution of the Newton system."""

    name: str
    repeats = 1
    """How many steps a system is used for when `equilibrium_path` corrects a guess."""
    game: Game
    rows: np.ndarray
    beta: np.ndarray
    log_ref: np.ndarray
    log_payoff: bool
    guess: np.ndarray | None = None
    begin: np.ndarray | None = None
    """Where best responses start if not at the reference."""

    def __init__(self, game: Game, rows: np.ndarray, beta: np.ndarray) -> None:
        self.game, self.rows, self.beta = game, rows, beta
        self.log_payoff = not isinstance(game, WinRateGame)
        self.log_ref = self._context(game.log_ref)

    def _context(self, x: np.ndarray, axes: int = 1) -> np.ndarray:
        """Return this problem's contexts of an array with `axes` axes per context."""
        shape = x.shape[x.ndim - axes :]
        return np.broadcast_to(x, (*self.game.batch_shape, *shape)).reshape(-1, *shape)[self.rows]

    def at(self, beta: np.ndarray) -> _Problem:
        """Return the same contexts at other values of beta."""
        other = copy(self)
        other.beta, other.guess = beta, None
        for name in ("max_step", "unique"):
            other.__dict__.pop(name, None)
        return other

    def payoff(self, z: np.ndarray, rows: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def system(self, z: np.ndarray, u: np.ndarray, beta: np.ndarray, rows: np.ndarray) -> System:
        """Set up the Newton system of some contexts at some policies."""
        raise NotImplementedError

    def newton(self, z: np.ndarray, u: np.ndarray, beta: np.ndarray, rows: np.ndarray) -> Newton:
        """Return Newton's step as a function of the residual; it may be good to a few digits only."""
        system = self.system(z, u, beta, rows)
        return lambda r: system(-r)

    def direction(self, z: np.ndarray, u: np.ndarray, r: np.ndarray, beta: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return Newton's step for a residual."""
        return self.newton(z, u, beta, rows)(r)

    def reach(self, tol: float) -> np.ndarray:
        """Return the residual that can be asked for in each context."""
        return np.maximum(tol, FLOOR / self.beta)

    low = 0.0
    """At prices below this one, `near` is asked where to begin."""

    def near(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return policies near the equilibria of some contexts, and the number of systems that they took."""
        raise NotImplementedError

    def start_from(self, log_policy: np.ndarray) -> None:
        """Begin at a policy over responses; one without full support is replaced by the best response to it."""
        self.begin = z = self.merge(log_normalize(log_policy))
        with np.errstate(over="ignore"):
            u = self.payoff(z, np.arange(len(z)))
            response = log_normalize(self.log_ref + u / self.beta[:, None])
        lost = np.any((z == -inf) & (self.log_ref > -inf), axis=-1, keepdims=True)
        self.guess = np.where(lost & ~np.isnan(response), response, z)

    # Columns are responses unless a subclass merges some.

    def merge(self, log_policy: np.ndarray) -> np.ndarray:
        """Return log-masses of columns from log-probabilities of responses."""
        return log_policy

    def sums(self, x: np.ndarray) -> np.ndarray:
        """Return, for each column, the sum of `x` over its responses."""
        return x

    def spread(self, x: np.ndarray) -> np.ndarray:
        """Return, for each response, the entry of its column."""
        return x

    @property
    def share(self) -> Any:
        """The mass of each response within its column."""
        return 1.0

    def expand(self, z: np.ndarray) -> np.ndarray:
        """Return the policy over responses."""
        return z

    @cached_property
    def max_step(self) -> np.ndarray:
        interaction = np.broadcast_to(self.game.preference.interaction, self.game.batch_shape).reshape(-1)[self.rows]
        return np.asarray(bounds.extragradient_max_step(self.beta, interaction))

    @cached_property
    def unique(self) -> np.ndarray:
        """Contexts in which a theorem makes the equilibrium unique (theory 2.1, 3.7)."""
        if not self.log_payoff or np.all(self.beta > 1):
            return np.ones(len(self.rows), dtype=bool)
        return self.beta > np.reshape(self.game.contraction, -1)[self.rows]  # type: ignore[attr-defined]


class _Dense(_Problem):
    """The payoff's derivative is a matrix, the system an LU factorisation, or a few products where they do."""

    name = "dense"
    repeats = 12
    patient = True
    """Whether conjugate gradients have kept within their limit so far; systems get harder along the path."""

    def __init__(self, game: Game, rows: np.ndarray, beta: np.ndarray) -> None:
        super().__init__(game, rows, beta)
        p, m = game.preference, game.n_responses
        self.shared = p.batch_shape == () or len(rows) == np.prod(game.batch_shape) == 1
        matrix, self.log_matrix = np.asarray(p.matrix()), None
        if self.log_payoff:
            logs = np.asarray(p.log_matrix(matrix.dtype))
            self.log_matrix = logs.reshape(1, m, m) if self.shared else self._context(logs, 2)
        else:
            matrix = matrix - 0.5
        self.matrix = matrix.reshape(1, m, m) if self.shared else self._context(matrix, 2)

    def _rows(self, matrix: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return matrix if self.shared else matrix[rows]

    def payoff(self, z: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return log win rates, or win rates less a half."""
        win = gains(self._rows(self.matrix, rows), np.exp(z))
        if not self.log_payoff:
            return win
        if win.min() > 1e-280:  # nothing that underflowed above could have counted
            return np.log(win)
        assert self.log_matrix is not None
        return logsumexp(self._rows(self.log_matrix, rows) + z[:, None, :])

    def _matrix(self, z: np.ndarray, u: np.ndarray, beta: np.ndarray, rows: np.ndarray) -> np.ndarray:
        r"""Return :math:`\mathcal A` of theory 6.1; of a win-rate game :math:`I-AD/\beta` with the skew part alone.

        The latter lacks the centring, for which a second right-hand side makes up: passes over the matrix less.
        """
        q = np.exp(z)
        if self.log_payoff:
            assert self.log_matrix is not None
            dead = (u == -inf)[..., None]
            logs = self._rows(self.log_matrix, rows) + z[:, None, :] - np.where(dead, 0.0, u[..., None])
            M = np.where(dead, 0.0, np.exp(np.where(dead, 0.0, logs)))
            A = (q[:, None, :] @ M - M) / beta[:, None, None]
        else:
            A = self._rows(self.matrix, rows) * (-q / beta[:, None])[:, None, :]
        index = np.arange(z.shape[1])
        A[:, index, index] += 1
        return A

    def system(self, z: np.ndarray, u: np.ndarray, beta: np.ndarray, rows: np.ndarray) -> System:
        q = np.exp(z)
        # a singular matrix has a zero pivot, and its solutions are not finite
        factors = [dgetrf(A)[:2] for A in self._matrix(z, u, beta, rows)]

        def inverse(t: np.ndarray, transposed: bool = False) -> np.ndarray:
            return np.stack([dgetrs(*lu, b, trans=transposed)[0] for lu, b in zip(factors, t, strict=True)])

        ones = None if self.log_payoff else inverse(np.ones_like(q))
        slope = None if ones is None else np.sum(q * ones, axis=-1, keepdims=True)

        def solve(t: np.ndarray, transposed: bool = False) -> np.ndarray:
            if ones is None:
                x = inverse(t if transposed else _centred(q, t), transposed)
                return x - q * np.sum(x, axis=-1, keepdims=True) if transposed else x
            if transposed:
                return inverse(t - q * np.sum(ones * t, axis=-1, keepdims=True) / slope, True)
            x = inverse(_centred(q, t))
            return x - ones * np.sum(q * x, axis=-1, keepdims=True) / slope

        return solve

    def newton(self, z: np.ndarray, u: np.ndarray, beta: np.ndarray, rows: np.ndarray) -> Newton:
        factorised: list[System] = []

        def step(r: np.ndarray) -> np.ndarray:
            if self._iterates(len(r)) and not factorised:
                found = self._few_products(z[0], r[0], float(beta[0]), rows)
                if found is not None:
                    return found[None]
                self.patient = False
            if not factorised:
                factorised.append(self.system(z, u, beta, rows))
            return factorised[0](-r)

        return step

    def direction(self, z: np.ndarray, u: np.ndarray, r: np.ndarray, beta: np.ndarray, rows: np.ndarray) -> np.ndarray:
        if len(z) == 1:
            return self.newton(z, u, beta, rows)(r)
        q = np.exp(z)
        t = -_centred(q, r)
        right = t[..., None] if self.log_payoff else np.stack([t, np.ones_like(t)], axis=-1)
        try:  # many small systems in one call
            x = np.linalg.solve(self._matrix(z, u, beta, rows), right)
        except np.linalg.LinAlgError:
            return np.full_like(z, np.nan)
        if self.log_payoff:
            return x[..., 0]
        along = (q[:, None, :] @ x)[:, 0]
        return x[..., 0] - x[..., 1] * (along[:, :1] / along[:, 1:])

    def _iterates(self, contexts: int) -> bool:
        return contexts == 1 and self.patient and not self.log_payoff and self.log_ref.shape[-1] >= ITERATED

    def _few_products(self, z: np.ndarray, r: np.ndarray, beta: float, row: np.ndarray) -> np.ndarray | None:
        """Return Newton's step to a few digits, or None where conjugate gradients are slow."""
        A, root = self._rows(self.matrix, row)[0], np.exp(z / 2)
        b = -root * r
        b -= root * (root @ b)
        # an error of y = D^(1/2) dz moves dz by at most half of it over beta
        enough = FORCING * 2 * min(beta, 0.5) * float(_span(r, z == -inf))
        y = few_products(A, root / sqrt(beta), b, enough, normal=root)
        if y is None:
            return None
        # what has next to no mass does not show in y: it follows from the rest
        t = A @ (root * y) / beta - r
        return t - root**2 @ t

    @property
    def low(self) -> float:  # type: ignore[override]
        return 0.0 if self.log_payoff else LOW / 10 if self._iterates(len(self.rows)) else LOW

    def near(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        beta = self.beta[rows]
        matrix = self._rows(self.matrix, rows)
        x, _, systems = central_path(matrix, self.log_ref[rows], beta, CLOSE * beta)
        z = self.log_ref[rows] + self.payoff(np.log(x), rows) / beta[:, None]
        return log_normalize(z), systems


class _LowRank(_Problem):
    """The payoff depends on the policy through the mean of `k` numbers, and the system has that size (theory 6.5)."""

    name = "low rank"

    def __init__(self, game: Game, rows: np.ndarray, beta: np.ndarray) -> None:
        super().__init__(game, rows, beta)
        p = game.preference
        assert isinstance(p, LowRankPreference)
        self.shared = p.embedding.ndim == 2
        self.embedding = p.embedding[None] if self.shared else self._context(p.embedding, 2)
        self.skew = self._context(p.skew, 2)

    def _rows(self, rows: np.ndarray) -> np.ndarray:
        return self.embedding if self.shared else self.embedding[rows]

    def _means(self, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the sums of embeddings with given weights, shape ``(contexts, k)``."""
        return x @ self.embedding[0] if self.shared else (x[:, None, :] @ self.embedding[rows])[:, 0]

    def _tilt(self, mean: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the scores of all responses against a mean embedding."""
        against = (self.skew[rows] @ mean[..., None])[..., 0]
        return against @ self.embedding[0].T if self.shared else (self.embedding[rows] @ against[..., None])[..., 0]

    def payoff(self, z: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return 0.5 + self._tilt(self._means(np.exp(z), rows), rows)

    def system(self, z: np.ndarray, u: np.ndarray, beta: np.ndarray, rows: np.ndarray) -> System:
        q, price = np.exp(z), beta[:, None]
        mean = self._means(q, rows)
        spread = self._rows(rows) - mean[:, None, :]
        covariance = spread.swapaxes(-1, -2) @ (q[..., None] * spread)
        turn = covariance @ self.skew[rows] / beta[:, None, None]
        one = np.eye(turn.shape[-1])

        def solve(t: np.ndarray, transposed: bool = False) -> np.ndarray:
            t = t - q * np.sum(t, axis=-1, keepdims=True) if transposed else _centred(q, t)
            # the mean embedding of t: with it, the rest is explicit
            w = self._means(t if transposed else q * t, rows)
            w = np.linalg.solve(one + turn if transposed else one - turn, w[..., None])[..., 0]
            moved = _centred(q, self._tilt(w, rows)) / price
            return t - q * moved if transposed else t + moved

        return solve


class _Sorted(_Problem):
    """Classes of equal reward as columns, worst first; absent classes have no mass."""

    name = "sorted"

    def __init__(self, game: Game, rows: np.ndarray, beta: np.ndarray) -> None:
        super().__init__(game, rows, beta)
        p = game.preference
        assert isinstance(p, RewardPreference)
        self.log_ref_in, self.order = self.log_ref, self._context(p._order_numpy)
        starts = self._context(p._starts)
        self.label = None if starts.all() else np.cumsum(starts, axis=-1) - 1
        self.log_ref = self.merge(self.log_ref_in)
        self.ties = "n" if isinstance(game, BestOfNGame) else p.ties
        self.n = getattr(game, "n", 2.0)
        self.guess = self._continuum()

    def merge(self, log_policy: np.ndarray) -> np.ndarray:
        ordered = np.take_along_axis(log_policy, self.order, -1)
        if self.label is None:
            return ordered
        n, k, cell = self._cells()
        top = np.full(n * k, -inf)
        np.maximum.at(top, cell, ordered.ravel())
        lowest = np.where(top == -inf, 0.0, top)
        mass = np.bincount(cell, np.exp(ordered.ravel() - lowest[cell]), minlength=n * k)
        with np.errstate(divide="ignore"):
            return (lowest + np.log(mass)).reshape(n, k)

    def _cells(self) -> tuple[int, int, np.ndarray]:
        """Return the numbers of contexts and of classes, and the flat index of each response's class."""
        assert self.label is not None
        n, k = len(self.rows), int(self.label.max()) + 1
        return n, k, (self.label + np.arange(n)[:, None] * k).ravel()

    def sums(self, x: np.ndarray) -> np.ndarray:
        ordered = np.take_along_axis(x, self.order, -1)
        if self.label is None:
            return ordered
        n, k, cell = self._cells()
        return np.bincount(cell, ordered.ravel(), minlength=n * k).reshape(n, k)

    def spread(self, x: np.ndarray) -> np.ndarray:
        out = np.empty_like(self.log_ref_in)
        np.put_along_axis(out, self.order, x if self.label is None else np.take_along_axis(x, self.label, -1), -1)
        return out

    @property
    def share(self) -> Any:
        return np.exp(self.log_ref_in - self.spread(self.log_ref))

    def expand(self, z: np.ndarray) -> np.ndarray:
        """Return the policy over responses: within a class it is proportional to the reference."""
        return log_normalize(self.spread(_minus(z, self.log_ref)) + self.log_ref_in)

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

    def system(self, z: np.ndarray, u: np.ndarray, beta: np.ndarray, rows: np.ndarray) -> System:
        beta = beta[:, None]
        return self._log_system(z, beta) if self.log_payoff else self._win_rate_system(z, beta)

    @staticmethod
    def _win_rate_system(z: np.ndarray, beta: np.ndarray) -> System:
        q = np.exp(z)
        a = q / (2 * beta)

        def solve(t: np.ndarray, transposed: bool = False) -> np.ndarray:
            if transposed:
                # x_k = t_k + multiplier q_k - a_k (d_k + d_{k-1}) with d the sums of x: upwards from d_0 = 0
                x = _bidiagonal(1 + a, a - 1, np.stack([t, q]), lower=True)
                multiplier = -x[0, :, -1:] / x[1, :, -1:]
                d = x[0] + multiplier * x[1]
                return t + multiplier * q - a * (d + np.concatenate([np.zeros_like(d[:, :1]), d[:, :-1]], axis=1))
            # downwards: (1 + a_k) d_{k-1} - (1 - a_k) d_k = -q_k (lambda + t_k), d_m = 0, and lambda makes d_0 = 0
            x = _bidiagonal(1 + a, a - 1, np.stack([-q * t, -q]), lower=False)
            multiplier = -x[0, :, :1] / x[1, :, :1]
            d = x[0] + multiplier * x[1]
            d = np.concatenate([d, np.zeros_like(d[:, :1])], axis=1)
            return (d[:, 1:] + d[:, :-1]) / (2 * beta) + multiplier + t

        return solve

    def _log_system(self, z: np.ndarray, beta: np.ndarray) -> System:
        q, up = np.exp(z), log_cumulative_sum(z)[:, 1:]
        p = np.exp(np.minimum(_minus(z, up), 0.0))
        above, below = (np.broadcast_to(w, p.shape) for w in self._weights(z, up, p))
        diagonal, off = 1 - p * above / beta, p - 1 - p * below / beta

        def later(x: np.ndarray) -> np.ndarray:
            return np.concatenate([x[:, 1:], np.zeros_like(x[:, :1])], axis=1)

        def solve(t: np.ndarray, transposed: bool = False) -> np.ndarray:
            if transposed:
                # x_k = t_k - lambda q_k + p_k e_k/beta, downwards, and lambda makes the sum of x vanish
                fed = [above * s + later(below * s) for s in (t, q)]
                e = p * _bidiagonal(diagonal, later(off), np.stack(fed), lower=False) / beta
                free, slope = t + e[0], q + e[1]
                return free - slope * (free.sum(axis=-1, keepdims=True) / slope.sum(axis=-1, keepdims=True))
            # upwards, relative: y_k (1 - p a/beta) = (1 - p + p b/beta) y_{k-1} + p (lambda + t), lambda: y_m = 0
            x = _bidiagonal(diagonal, off, np.stack([p * t, p]), lower=True)
            multiplier = -x[0, :, -1:] / x[1, :, -1:]
            y = x[0] + multiplier * x[1]
            before = np.concatenate([np.zeros_like(y[:, :1]), y[:, :-1]], axis=1)
            return (above * y + below * before) / beta + multiplier + t

        return solve

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


def problem_class(local: Game) -> type[_Problem]:
    """Return the way to solve the Newton system of a game on numpy arrays."""
    if isinstance(local.preference, RewardPreference):
        return _Sorted
    return _LowRank if isinstance(local.preference, LowRankPreference) and isinstance(local, WinRateGame) else _Dense


def make_problem(local: Game, rows: np.ndarray, beta: np.ndarray) -> _Problem:
    """Return some contexts of a game on numpy arrays as a problem for Newton."""
    return problem_class(local)(local, rows, beta)


def _centred(q: np.ndarray, t: np.ndarray) -> np.ndarray:
    return t - np.sum(q * t, axis=-1, keepdims=True)


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


def _solve(
    problem: _Problem, tol: float, rows: np.ndarray | None = None, since: tuple[Any, np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the equilibria of the contexts `rows` (all if None) and the number of linear solves of each.

    `since` is another point of the path, as tau and policies, to follow it from.
    """
    everyone, enough = np.arange(len(problem.beta)), problem.reach(tol)
    z = problem.log_ref.copy()
    steps = np.zeros(len(everyone), dtype=int)
    asked = np.ones(len(everyone), dtype=bool) if rows is None else np.isin(everyone, rows)
    unique = problem.unique & asked
    done = ~unique
    if np.any(unique):
        rows = everyone[unique]
        low = rows[problem.beta[rows] < problem.low] if since is None and problem.guess is None else rows[:0]
        if low.size:
            guess, systems = problem.near(low)
            z[low], done[low], steps[low] = _follow(problem, low, enough[low], guess=guess)
            steps[low] += systems
            rows = np.setdiff1d(rows, low)
        if rows.size:
            given = None if problem.guess is None else problem.guess[rows]
            z[rows], done[rows], steps[rows] = _follow(problem, rows, enough[rows], since, given)
    for row in everyone[~done]:
        z[row], more = _fall_back(problem, row, z[row], enough[row])
        steps[row] += more
    if np.any(~problem.unique & asked):
        rows = everyone[~problem.unique & asked]
        z[rows], steps[rows] = _from_reference(problem, rows, tol)
    return z, steps


def _follow(
    problem: _Problem,
    rows: np.ndarray,
    tol: np.ndarray,
    since: tuple[Any, np.ndarray] | None = None,
    guess: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Follow the path in tau = 1/beta for the given contexts; return policies, success and linear solves.

    Each context has its own state: `good` solves at `tau`, `z` is being improved at `trial`. In every round a context
    either accepts `trial` and goes further, gives up and tries a shorter stride, halves its Newton step, or takes one.
    """
    goal = 1 / problem.beta[rows]
    n = len(rows)
    good = problem.log_ref[rows]  # solves at tau
    tau = np.zeros(n)
    growth = np.full(n, 10.0)
    if since is not None and since[0] > 0:
        tau[:], good = since[0], since[1][rows]
        growth = goal / tau
        z, trial = good.copy(), goal.copy()
    elif guess is None:
        z, trial = good.copy(), np.minimum(goal, 2.0)
    else:
        z, trial = guess.copy(), goal.copy()
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
        arrived = final & (best[i] <= tol[i]) & (worse | (span == 0))
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
        stuck = failed & ((growth[i] < 1.01) | (trial[i] < 1e-8) | (best[i] <= tol[i]))
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
    one, total = np.asarray([row]), 0
    z, beta = z[None], problem.beta[row]
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
    z = (problem.log_ref if problem.begin is None else problem.begin)[rows].copy()
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
        path, success, solves = _follow(problem, rows[active], np.full(active.size, tol))
        steps[active] += solves
        z[active] = np.where(success[:, None], path, z[active])
        for row in active[~success]:
            z[row], more = _from_anywhere(problem, rows[[row]], z[row], tol)
            steps[row] += more
    return z, steps


def _from_anywhere(problem: _Problem, one: np.ndarray, z: np.ndarray, tol: float) -> tuple[np.ndarray, int]:
    """Try Newton from random policies, where cycles and folds leave nothing better; keep the nearest to `ref`."""
    rng = np.random.default_rng(0)
    log_ref, total = problem.log_ref[one], 0
    best, price = z, inf
    for k in range(60):
        start = log_normalize(log_ref + rng.normal(size=log_ref.shape) * (1 + k))
        done, span, count = _newton_at_goal(problem, one, start)
        total += count
        if span <= tol and (spent := float(kl(done, log_ref)[0])) < price:
            best, price = done[0], spent
    return best, total


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

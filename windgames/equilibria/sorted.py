"""Newton systems of reward-induced games: a bidiagonal recursion in the cumulative masses (theory 6.2)."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
from scipy.linalg.lapack import dtbtrs

from .. import bounds
from .._array import cumulative_sum, log_cumulative_sum, log_normalize
from ..games import BestOfNGame, Game, LogWinRateGame, log_ratio_of_powers
from ..preferences import RewardPreference
from .problems import Problem, System, minus


def reference_on_top(game: Game) -> np.ndarray:
    """Return the reference restricted to the responses of largest reward, as log-probabilities, for all contexts."""
    p = game.preference
    assert isinstance(p, RewardPreference)
    return np.broadcast_to(log_normalize(np.where(p.top, game.log_ref, -inf)), (*game.batch_shape, game.n_responses))


class SortedProblem(Problem):
    """Columns are classes of equal reward, worst first; contexts with fewer classes have columns without mass."""

    name = "sorted"

    def __init__(self, game: Game, rows: np.ndarray, beta: np.ndarray) -> None:
        super().__init__(game, rows, beta)
        p = game.preference
        assert isinstance(p, RewardPreference)
        self.log_ref_of_responses, self.order = self.log_ref, self._context(p.order)
        starts = self._context(p.class_starts)
        self.label = None if starts.all() else np.cumsum(starts, axis=-1) - 1
        self.log_ref = self.merge(self.log_ref_of_responses)
        self.ties = "n" if isinstance(game, BestOfNGame) else p.ties
        self.n = getattr(game, "n", 2.0)
        self.guess = self._without_atoms()

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
        out = np.empty_like(self.log_ref_of_responses)
        np.put_along_axis(out, self.order, x if self.label is None else np.take_along_axis(x, self.label, -1), -1)
        return out

    @property
    def share(self) -> Any:
        return np.exp(self.log_ref_of_responses - self.spread(self.log_ref))

    def expand(self, z: np.ndarray) -> np.ndarray:
        """Return the policy over responses: within a class it is proportional to the reference."""
        return log_normalize(self.spread(minus(z, self.log_ref)) + self.log_ref_of_responses)

    def on_top(self) -> tuple[np.ndarray, np.ndarray]:
        """Return where the reference on the largest rewards is the only equilibrium, and that policy (theory 3.9)."""
        beta = np.ones(self.game.batch_shape).reshape(-1)
        beta[self.rows] = self.beta
        only = only_equilibrium_is_top(self.game, beta.reshape(self.game.batch_shape)).reshape(-1)[self.rows]
        k = self.log_ref.shape[-1]
        last = np.full((len(self.rows), 1), k - 1) if self.label is None else self.label[:, -1:]
        return only, np.where(np.arange(k) == last, 0.0, -inf)

    def _without_atoms(self) -> np.ndarray:
        """Return the closed form for a reference without atoms (theory 3.11), a good guess at every beta."""
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
            return -np.log1p(-np.exp(np.minimum(minus(z, up), 0.0)))

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
        p = np.exp(np.minimum(minus(z, up), 0.0))
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


def only_equilibrium_is_top(game: Game, beta: np.ndarray) -> np.ndarray:
    """Return where theory 3.9 leaves only one equilibrium, the reference on the largest rewards; shape of `beta`."""
    p = game.preference
    if not (isinstance(game, LogWinRateGame) and isinstance(p, RewardPreference) and p.ties == "weak"):
        return np.zeros(beta.shape, dtype=bool)
    top_mass = np.sum(np.where(p.top, np.exp(game.log_ref), 0.0), axis=-1)
    inside = (beta > 0) & (beta <= 1)
    index = bounds.collapse_index(np.where(inside, beta, 1.0), np.clip(np.broadcast_to(top_mass, beta.shape), 0, 1))
    # the mass is the sum of exponentials of rounded logarithms
    rounding = np.finfo(float).eps * (16 + 4 * np.max(np.abs(game.log_ref), axis=-1))
    return inside & (top_mass > 0) & (index < 1 - rounding)


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

"""`Problem`: what Newton's method needs of a game, its payoff and a solver of the system of theory 6.1.

Subclasses differ in how they solve the system: `dense`, `low_rank`, and `sorted` for rewards. Contexts are rows, and
columns are responses, except where a subclass merges several responses into one column.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import cached_property
from math import inf
from typing import Any

import numpy as np

from .. import bounds
from .._array import log_normalize
from ..games import Game, WinRateGame

PAYOFF_ROUNDING = 4e-15
"""Divided by beta, about the residual that double precision leaves: a search for less than this would not end."""

System = Callable[..., np.ndarray]
r"""A Newton system that is set up: ``system(t)`` solves :math:`\mathcal A x = t - \langle q,t\rangle`, and
``system(g, transposed=True)`` applies the transpose of that map to `g` (theory 6.4)."""
Newton = Callable[[np.ndarray], np.ndarray]
"""Newton's step as a function of the residual."""


class Problem:
    """Contexts of a game on numpy arrays, as rows, at given values of beta; the base of the Newton systems."""

    name: str
    """What `Solution.method` calls it."""
    steps_per_system = 1
    """How many steps a system may be used for when `equilibrium_path` corrects a guess."""
    central_path_below = 0.0
    """For beta below this, the search starts from `initial_guess`."""
    guess: np.ndarray | None = None
    """Policies to start Newton's method from, if not the reference."""
    start: np.ndarray | None = None
    """Policies to start best responses from, if not the reference."""

    def __init__(self, game: Game, rows: np.ndarray, beta: np.ndarray) -> None:
        self.game, self.rows, self.beta = game, rows, beta
        self.log_payoff = not isinstance(game, WinRateGame)
        self.log_ref = self._context(game.log_ref)

    def _context(self, x: np.ndarray, axes: int = 1) -> np.ndarray:
        """Return this problem's contexts of an array with `axes` axes per context."""
        shape = x.shape[x.ndim - axes :]
        return np.broadcast_to(x, (*self.game.batch_shape, *shape)).reshape(-1, *shape)[self.rows]

    def at(self, beta: np.ndarray) -> Problem:
        """Return the same contexts at other values of beta."""
        other = copy(self)
        other.beta, other.guess = beta, None
        for name in ("max_step", "unique"):
            other.__dict__.pop(name, None)
        return other

    # -- the game and its Newton system ----------------------------------------------------------------------

    def payoff(self, z: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the payoff of each column at the log-policies `z` of the contexts `rows`."""
        raise NotImplementedError

    def system(self, z: np.ndarray, u: np.ndarray, beta: np.ndarray, rows: np.ndarray) -> System:
        """Set up the exact Newton systems at the log-policies `z` with payoffs `u`."""
        raise NotImplementedError

    def newton(self, z: np.ndarray, u: np.ndarray, beta: np.ndarray, rows: np.ndarray) -> Newton:
        """Return Newton's step as a function of the residual, accurate enough for Newton's method to converge."""
        system = self.system(z, u, beta, rows)
        return lambda r: system(-r)

    def direction(self, z: np.ndarray, u: np.ndarray, r: np.ndarray, beta: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return Newton's step for one residual."""
        return self.newton(z, u, beta, rows)(r)

    def residual(self, z: np.ndarray, u: np.ndarray, beta: np.ndarray, rows: np.ndarray) -> np.ndarray:
        r"""Return :math:`z-\log\rho-u/\beta` less its mean under the policy; zero outside the support."""
        dead = z == -inf
        r = np.where(dead, 0.0, z) - np.where(dead, 0.0, self.log_ref[rows] + np.where(dead, 0.0, u) / beta[:, None])
        return np.where(dead, 0.0, centred(np.exp(z), r))

    # -- where to start and where to stop --------------------------------------------------------------------

    def attainable_tol(self, tol: float) -> np.ndarray:
        """Return `tol`, or what double precision allows in each context if that is larger."""
        return np.maximum(tol, PAYOFF_ROUNDING / self.beta)

    def initial_guess(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return policies near the equilibria of some contexts, and the number of systems that they took."""
        raise NotImplementedError

    def start_from(self, log_policy: np.ndarray) -> None:
        """Start at a policy over responses, or at its best response where it lacks full support."""
        self.start = z = self.merge(log_normalize(log_policy))
        with np.errstate(over="ignore"):
            u = self.payoff(z, np.arange(len(z)))
            response = log_normalize(self.log_ref + u / self.beta[:, None])
        lost = np.any((z == -inf) & (self.log_ref > -inf), axis=-1, keepdims=True)
        self.guess = np.where(lost & ~np.isnan(response), response, z)

    # -- columns and responses: the same unless a subclass merges ----------------------------------------------

    def merge(self, log_policy: np.ndarray) -> np.ndarray:
        """Return log-masses of columns from log-probabilities of responses."""
        return log_policy

    def expand(self, z: np.ndarray) -> np.ndarray:
        """Return the log-policy over responses from log-masses of columns."""
        return z

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

    # -- constants that theorems give ------------------------------------------------------------------------

    @cached_property
    def max_step(self) -> np.ndarray:
        """Largest step of the extragradient rule in each context (theory 5.2)."""
        interaction = np.broadcast_to(self.game.preference.interaction, self.game.batch_shape).reshape(-1)[self.rows]
        return np.asarray(bounds.extragradient_max_step(self.beta, interaction))

    @cached_property
    def unique(self) -> np.ndarray:
        """Contexts in which a theorem makes the equilibrium unique (theory 2.1, 3.7)."""
        if not self.log_payoff or np.all(self.beta > 1):
            return np.ones(len(self.rows), dtype=bool)
        return self.beta > np.reshape(self.game.contraction, -1)[self.rows]


def centred(q: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return `t` less its mean under the policy `q`."""
    return t - np.sum(q * t, axis=-1, keepdims=True)


def minus(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return ``a - b``, ``-inf`` wherever `a` is."""
    dead = a == -inf
    return np.where(dead, -inf, a - np.where(dead, 0.0, b))


def span_of(r: np.ndarray, dead: np.ndarray) -> np.ndarray:
    """Return the largest minus the smallest entry outside the mask `dead`."""
    return np.max(np.where(dead, -inf, r), axis=-1) - np.min(np.where(dead, inf, r), axis=-1)

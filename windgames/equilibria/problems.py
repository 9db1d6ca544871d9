"""What Newton needs of a game: a payoff and the solution of the linear system of theory 6.1."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import cached_property
from math import inf
from typing import Any

import numpy as np

from .. import bounds
from .._array import (
    log_normalize,
)
from ..games import Game, WinRateGame

FLOOR = 4e-15
"""Divided by beta, the residual that double precision may leave: where `tol` asks for less, this ends a search."""


System = Callable[..., np.ndarray]
r"""A Newton system that is set up: ``system(t)`` solves :math:`\mathcal A x = t - \langle q,t\rangle`, and
``system(g, transposed=True)`` is the transpose of that map, applied to `g` (theory 6.4)."""
Newton = Callable[[np.ndarray], np.ndarray]


class Problem:
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

    def at(self, beta: np.ndarray) -> Problem:
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

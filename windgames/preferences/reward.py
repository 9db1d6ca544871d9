"""The preference that a reward induces: a sort and a cumulative sum, never a matrix (theory 1.2)."""

from __future__ import annotations

from functools import cached_property
from math import log
from typing import Any

import numpy as np

from .._array import (
    Array,
    array_namespace,
    broadcast,
    cumulative_sum,
    like,
    log_cumulative_sum,
    to_numpy,
)
from .._validation import one_of
from .base import Preference, check_reward, describe_size

TIES = ("half", "weak", "strict")
"""What a tie counts: 1/2, 1 or 0."""


class RewardPreference(Preference):
    r"""The preference that a reward induces: the larger reward wins, with certainty.

    Equal rewards are tied. With ``ties="half"`` a tie counts 1/2 and the preference is constant-sum; with
    ``"weak"`` it counts 1, the paper's indicator :math:`1\{r \ge r'\}`, which the log-win-rate game and
    best-of-n use; with ``"strict"`` it counts 0 (theory 1.1). Win rates cost a cumulative sum over a sort made
    once, never an ``m x m`` matrix (theory 1.2).

    Parameters
    ----------
    reward : array or Series, shape ``(..., m)``
        Finite rewards. Only their order matters.
    ties : {"half", "weak", "strict"}
    names : sequence, optional
        Names of the responses, by which a Series is aligned; its labels if None.

    Raises
    ------
    ValueError
        If a reward is NaN or infinite (the message names it), or `ties` is unknown.
    """

    def __init__(self, reward: Any, ties: str = "half", *, names: Any = None) -> None:
        self.ties = one_of(ties, "ties", TIES)
        self.reward, names = check_reward(reward, names)
        self.batch_shape = tuple(self.reward.shape[:-1])
        self.n_responses = m = self.reward.shape[-1]
        self.is_constant_sum = ties == "half"
        self.names = names
        r = to_numpy(self.reward)
        order = np.argsort(r, axis=-1, kind="stable")
        ordered = np.take_along_axis(r, order, -1)
        new = ordered[..., 1:] > ordered[..., :-1]
        edge = np.ones((*self.batch_shape, 1), dtype=bool)
        starts = np.concatenate([edge, new], axis=-1)
        ends = np.concatenate([new, edge], axis=-1)
        k = np.arange(m)
        # Positions, in sorted order, of each response's class: first member, and one past the last.
        first = np.maximum.accumulate(np.where(starts, k, 0), axis=-1)
        last = np.minimum.accumulate(np.where(ends, k + 1, m)[..., ::-1], axis=-1)[..., ::-1]
        self.order, self.class_starts = order, starts
        self._order = like(order, self.reward)
        inverse = np.empty_like(order)
        np.put_along_axis(inverse, order, np.broadcast_to(k, order.shape), -1)
        # In the caller's order: below = responses strictly worse, upto = responses not better.
        self._below = like(np.take_along_axis(first, inverse, -1), self.reward)
        self._upto = like(np.take_along_axis(last, inverse, -1), self.reward)

    @property
    def imbalance(self) -> Any:
        return 0.0 if self.is_constant_sum else 1.0

    @property
    def example(self) -> Array:
        return self.reward

    def _constructor(self) -> dict[str, Any]:
        return {"reward": self.reward, "ties": self.ties}

    def _to_numpy(self) -> RewardPreference:
        return RewardPreference(to_numpy(self.reward).astype(float), ties=self.ties)

    @cached_property
    def n_classes(self) -> np.ndarray:
        """Number of distinct rewards in each context."""
        return np.sum(self.class_starts, axis=-1)

    @property
    def top(self) -> np.ndarray:
        """Mask of the responses of largest reward, shape ``(..., m)`` (numpy)."""
        return to_numpy(self._upto) == self.n_responses

    def _around(self, sums: Array) -> tuple[Array, Array]:
        """Return the cumulative quantity up to, and strictly below, each response's class."""
        xp = array_namespace(sums)
        batch = tuple(sums.shape[:-1])
        return (
            xp.take_along_axis(sums, broadcast(self._upto, batch), axis=-1),
            xp.take_along_axis(sums, broadcast(self._below, batch), axis=-1),
        )

    def _sorted(self, log_policy: Array) -> Array:
        xp = array_namespace(log_policy)
        batch = np.broadcast_shapes(self.batch_shape, tuple(log_policy.shape[:-1]))
        return xp.take_along_axis(broadcast(log_policy, batch), broadcast(self._order, batch), axis=-1)

    def log_cdf(self, log_policy: Array) -> tuple[Array, Array]:
        r"""Return :math:`\log F` and :math:`\log F_-`: log-mass of the not better, and of the worse, responses."""
        return self._around(log_cumulative_sum(self._sorted(log_policy)))

    def win_rate(self, log_policy: Array) -> Array:
        xp = array_namespace(log_policy)
        upto, below = self._around(cumulative_sum(xp.exp(self._sorted(log_policy))))
        if self.ties == "half":
            return (upto + below) / 2
        return upto if self.ties == "weak" else below

    def log_win_rate(self, log_policy: Array) -> Array:
        upto, below = self.log_cdf(log_policy)
        if self.ties == "half":
            return array_namespace(upto).logaddexp(upto, below) - log(2)
        return upto if self.ties == "weak" else below

    def matrix(self) -> Array:
        xp = array_namespace(self.reward)
        r, s = self.reward[..., :, None], self.reward[..., None, :]
        one = xp.ones_like(r - s)
        tie = {"half": 0.5, "weak": 1.0, "strict": 0.0}[self.ties]
        return xp.where(r > s, one, xp.where(r == s, tie * one, 0 * one))

    @cached_property
    def interaction(self) -> np.ndarray:
        if self.ties != "half":
            return super().interaction
        # Theory 5.3: one or two classes make a game without interaction, three 1/4, more 1/2.
        return np.select([self.n_classes <= 2, self.n_classes == 3], [0.0, 0.25], 0.5)

    @cached_property
    def contraction(self) -> np.ndarray:
        # Rows with different supports are infinitely far apart; half ties with two classes are checked by hand:
        # rows (1/2, 0) and (1, 1/2).
        return np.where(self.n_classes == 1, 0.0, 1.0)

    def __repr__(self) -> str:
        return f"RewardPreference({describe_size(self)}, ties={self.ties!r})"

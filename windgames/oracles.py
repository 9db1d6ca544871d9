"""Judges that answer comparisons and count them: exact, noisy, biased, or a panel of several."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np

from ._array import owned
from ._validation import numbers
from .preferences import MatrixPreference, Preference, RewardPreference

__all__ = ["BudgetExhausted", "Oracle", "biased_reward", "flipped", "judge_panel"]


class BudgetExhausted(RuntimeError):
    """The next answer would exceed the budget of the oracle; `run` stops at the last complete round."""


class Oracle:
    r"""Answers comparisons and counts them.

    Parameters
    ----------
    preference : Preference
        Constant-sum. A `RewardPreference` always gives 1, 1/2 for a tie, or 0. Any other one gives 1 with its
        probability and 0 otherwise, so a Bradley-Terry preference is a noisy judge. A response ties with itself.
        The preference may differ from that of the game that evaluates the learner: see `flipped`, `biased_reward` and
        `judge_panel`.
    reward : array, shape ``(contexts, m)``, optional
        Rewards that `score` returns, for learners that need them; those of a `RewardPreference` if None.
    budget : int, optional
        Largest number of queries; a call beyond it raises `BudgetExhausted` before anything is answered.
    certain : bool
        Whether to answer with the win probability itself instead of a random outcome.

    Attributes
    ----------
    queries : int
        Number of comparisons and scores answered so far, over all contexts and replicates.

    Raises
    ------
    ValueError
        If the preference is not constant-sum or has several axes of contexts, `budget` is negative, or the shape of
        `reward` does not fit.
    """

    def __init__(
        self, preference: Preference, *, reward: Any = None, budget: float = inf, certain: bool = False
    ) -> None:
        if not isinstance(preference, Preference):
            raise ValueError(
                f"An oracle answers by a windgames preference, such as game.preference, but it is {preference!r}."
            )
        if not preference.is_constant_sum:
            raise ValueError(f"An oracle needs a constant-sum preference, but it is {preference!r}. Use ties='half'.")
        if not budget >= 0:
            raise ValueError(f"budget must be a non-negative number of queries, but it is {budget}.")
        self.preference, self.budget, self.certain = preference, budget, certain
        self.queries = 0
        m, batch = preference.n_responses, preference.batch_shape
        if len(batch) > 1:
            raise ValueError(f"An oracle needs at most one axis of contexts, but the preference has {batch}.")
        self._reward: np.ndarray | None = None
        self._matrix: np.ndarray | None = None
        if isinstance(preference, RewardPreference):
            self._reward = np.atleast_2d(preference.reward)
        else:
            self._matrix = np.reshape(preference.matrix(), (-1, m, m))
        if reward is None and isinstance(preference, RewardPreference):
            reward = preference.reward
        self._score = None if reward is None else owned(np.atleast_2d(numbers(reward, "reward")))
        if self._score is not None and (
            self._score.shape not in ((1, m), (*batch, m)) or not np.all(np.isfinite(self._score))
        ):
            raise ValueError(
                f"reward must hold one finite number per context and response, shape {(*batch, m)}, but its shape is "
                f"{self._score.shape}" + (", with NaN or infinities." if self._score.shape[-1] == m else ".")
            )

    def compare(
        self, first: np.ndarray, second: np.ndarray, rng: np.random.Generator, contexts: Any = slice(None)
    ) -> np.ndarray:
        """Return the result of the first responses against the second, 1, 1/2 or 0, shape ``(..., contexts, n)``.

        `contexts` is an index that selects contexts of the preference.

        Raises
        ------
        BudgetExhausted
            If the budget does not suffice for all of them.
        """
        first, second = np.broadcast_arrays(first, second)
        self._count(first.size)
        if self._reward is not None:
            r = self._rows(self._reward, first.shape[-2], contexts)
            a, b = (
                np.take_along_axis(np.broadcast_to(r, (*x.shape[:-1], r.shape[-1])), x, -1) for x in (first, second)
            )
            return (np.sign(a - b) + 1) / 2
        assert self._matrix is not None  # one of the two is set
        matrix = self._rows(self._matrix, first.shape[-2], contexts)
        p = matrix[np.arange(len(matrix))[:, None], first, second]
        if self.certain:
            return p
        return np.where(first == second, 0.5, (rng.random(first.shape) < p).astype(float))

    def score(self, responses: np.ndarray, contexts: Any = slice(None)) -> np.ndarray:
        """Return the rewards of responses, shape ``(..., contexts, n)``; each counts as a query.

        Raises
        ------
        ValueError
            If the oracle has no rewards.
        BudgetExhausted
            If the budget does not suffice for all of them.
        """
        if self._score is None:
            raise ValueError("This oracle has no rewards, only comparisons: pass reward to Oracle.")
        self._count(responses.size)
        r = self._rows(self._score, responses.shape[-2], contexts)
        return np.take_along_axis(np.broadcast_to(r, (*responses.shape[:-1], r.shape[-1])), responses, -1)

    @staticmethod
    def _rows(x: np.ndarray, count: int, contexts: Any) -> np.ndarray:
        return np.broadcast_to(x, (count, *x.shape[1:])) if len(x) == 1 else x[contexts]

    def _count(self, n: int) -> None:
        if self.queries + n > self.budget:
            raise BudgetExhausted(f"{self.queries} of {self.budget} queries are used, and {n} more were requested.")
        self.queries += n

    def __repr__(self) -> str:
        left = "" if self.budget == inf else f", budget {self.budget:g}"
        return f"Oracle({self.preference!r}, {self.queries} queries answered{left})"


def flipped(preference: Preference, q: float) -> MatrixPreference:
    r"""Return the preference of a judge that reports the opposite with probability `q`, :math:`(1-q)P+q(1-P)`.

    For :math:`q<1/2` its win-rate game at `beta` has the equilibrium of the true game at :math:`\beta/(1-2q)`
    (theory 7.10).

    Raises
    ------
    ValueError
        If `q` is not in [0, 1].
    """
    if not 0 <= q <= 1:
        raise ValueError(f"q must be a probability, but it is {q}.")
    P = np.asarray(preference.matrix())
    return MatrixPreference((1 - q) * P + q * (1 - P))


def biased_reward(reward: Any, share: float, size: float, rng: np.random.Generator) -> np.ndarray:
    """Return the reward with `size` added to a random share of the responses of each context: a systematic error.

    Raises
    ------
    ValueError
        If `share` is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie in [0, 1], but it is {share}.")
    reward = numbers(reward, "reward")
    rank = np.argsort(np.argsort(rng.random(reward.shape), axis=-1), axis=-1)
    return reward + size * (rank < round(share * reward.shape[-1]))


def judge_panel(preferences: Sequence[Preference], weights: Sequence[float] | None = None) -> MatrixPreference:
    """Return the preference of a panel, in which each comparison goes to one judge at random; it may be intransitive.

    Parameters
    ----------
    preferences : sequence of Preference
        One per judge.
    weights : sequence of float, optional
        Probability of each judge; equal if None.

    Raises
    ------
    ValueError
        If there is no judge, or `weights` are not one probability for each.
    """
    if not preferences:
        raise ValueError("A panel needs at least one judge.")
    w = np.full(len(preferences), 1 / len(preferences)) if weights is None else numbers(weights, "weights")
    if w.shape != (len(preferences),) or np.any(w < 0) or abs(w.sum() - 1) > 1e-9:
        raise ValueError(f"weights must be one probability for each of the {len(preferences)} judges, but are {w}.")
    P = sum(x * np.asarray(p.matrix(), dtype=float) for x, p in zip(w, preferences, strict=True))
    P = np.asarray(P)
    return MatrixPreference((P + 1 - np.swapaxes(P, -1, -2)) / 2)

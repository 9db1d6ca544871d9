r"""Judges that answer comparisons, and count: exact, noisy, biased, many at once."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np

from .preferences import MatrixPreference, Preference, RewardPreference

__all__ = ["BudgetExhausted", "Oracle", "biased_reward", "flipped", "judges"]


class BudgetExhausted(RuntimeError):
    """The oracle has answered as often as it may; `run` stops at the last complete round."""


class Oracle:
    r"""Answers comparisons and counts them.

    Parameters
    ----------
    preference : Preference
        Constant-sum. A `RewardPreference` answers with certainty, 1, 1/2 for a tie, or 0; any other one by a coin with
        its probability, so a Bradley-Terry preference is a noisy judge. A response against itself is a tie. It need
        not be the preference of the game that grades the learner: see `flipped`, `biased_reward` and `judges`.
    reward : array, shape ``(contexts, m)``, optional
        What `score` returns, for learners that want a number.
    budget : int, optional
        Most queries; the next one raises `BudgetExhausted` before anything is answered.
    certain : bool
        Answer with the probability itself instead of a coin.

    Attributes
    ----------
    queries : int
        Comparisons and scores answered so far, over all contexts and replicates.
    """

    def __init__(
        self, preference: Preference, *, reward: Any = None, budget: float = inf, certain: bool = False
    ) -> None:
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
        self._score = None if reward is None else np.atleast_2d(np.asarray(reward, dtype=float))
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
        """Return what the first responses got against the second, 1, 1/2 or 0, each of shape ``(..., contexts, n)``.

        `contexts` selects the ones that are asked about, as an index of the preference's.
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
        """Return the rewards of responses, shape ``(..., contexts, n)``; each counts as a query."""
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
            raise BudgetExhausted(f"{self.queries} of {self.budget} queries are used, and {n} more were asked.")
        self.queries += n

    def __repr__(self) -> str:
        left = "" if self.budget == inf else f", budget {self.budget:g}"
        return f"Oracle({self.preference!r}, {self.queries} queries answered{left})"


def flipped(preference: Preference, q: float) -> MatrixPreference:
    r"""Return the preference of a judge who reports the opposite with probability `q`: :math:`(1-q)P+q(1-P)`.

    Its win-rate game at `beta` has the equilibrium of the true one at :math:`\beta/(1-2q)` (theory 7.10).
    """
    if not 0 <= q <= 1:
        raise ValueError(f"q must be a probability, but it is {q}.")
    P = np.asarray(preference.matrix())
    return MatrixPreference((1 - q) * P + q * (1 - P))


def biased_reward(reward: Any, share: float, size: float, rng: np.random.Generator) -> np.ndarray:
    """Return the reward with `size` added on a random share of the responses of each context: a systematic error."""
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie in [0, 1], but it is {share}.")
    reward = np.asarray(reward, dtype=float)
    rank = np.argsort(np.argsort(rng.random(reward.shape), axis=-1), axis=-1)
    return reward + size * (rank < round(share * reward.shape[-1]))


def judges(preferences: Sequence[Preference], weights: Sequence[float] | None = None) -> MatrixPreference:
    """Return the preference of a panel: each comparison goes to one judge at random. It may be intransitive."""
    if not preferences:
        raise ValueError("A panel needs at least one judge.")
    w = np.full(len(preferences), 1 / len(preferences)) if weights is None else np.asarray(weights, dtype=float)
    if w.shape != (len(preferences),) or np.any(w < 0) or abs(w.sum() - 1) > 1e-9:
        raise ValueError(f"weights must be one probability for each of the {len(preferences)} judges, but are {w}.")
    P = sum(x * np.asarray(p.matrix(), dtype=float) for x, p in zip(w, preferences, strict=True))
    P = np.asarray(P)
    return MatrixPreference((P + 1 - np.swapaxes(P, -1, -2)) / 2)

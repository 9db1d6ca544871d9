r"""Preferences: who beats whom, and what that makes of a policy.

A preference over ``m`` responses is a matrix :math:`P \in [0,1]^{m\times m}`, one per context:
``P[..., i, j]`` is the probability that response ``i`` beats response ``j``. A game only ever asks for the win
rates :math:`(P\pi)_i` of a policy, or for their logarithm; a preference that comes from a reward answers with
one sort and one cumulative sum and never builds the matrix (theory 1.2).
"""

from __future__ import annotations

from functools import cached_property
from math import inf, log
from typing import Any

import numpy as np

from . import bounds
from ._array import (
    Array,
    array_namespace,
    as_float,
    broadcast,
    cumulative_sum,
    device_of,
    first_index,
    in_context,
    is_array_api_obj,
    like,
    log_cumulative_sum,
    logsumexp,
    number,
    safe_log,
    scale,
    to_numpy,
)

TIES = ("half", "weak", "strict")
PAIRS = 10**9
"""Most pairs of responses that are looked at one by one to show that low-rank scores are probabilities."""
EXACT = 256
"""Up to this many responses the interaction constant of low-rank scores is exact, beyond it a bound."""
QUICK = 40
"""Up to this many responses the constant in certificates is exact; beyond, it would take most of the time."""


class Preference:
    """What every preference offers; arrays stay in the namespace and on the device of its data."""

    batch_shape: tuple[int, ...]
    """Shape of the contexts; ``()`` for a single one."""
    n_responses: int
    """Number of responses ``m``."""
    is_constant_sum: bool
    r"""Whether :math:`P + P^\top = 1` in every context, up to 1e-12."""
    size: Any = 0.0
    """Size, per context, of the numbers that a win rate is summed from, where they may be larger than itself."""

    @property
    def example(self) -> Array:
        """An array that carries the preference's namespace, dtype and device."""
        raise NotImplementedError

    def win_rate(self, log_policy: Array) -> Array:
        r"""Return :math:`P\pi`, shape ``(..., m)``, of a policy given as normalised log-probabilities."""
        raise NotImplementedError

    def log_win_rate(self, log_policy: Array) -> Array:
        r"""Return :math:`\log P\pi` without underflow; ``-inf`` where a response beats nobody."""
        raise NotImplementedError

    def matrix(self) -> Array:
        """Return the preference matrix, shape ``(..., m, m)``."""
        raise NotImplementedError

    def log_matrix(self, dtype: Any = None) -> Array:
        """Return the logarithm of the matrix, ``-inf`` where it is zero."""
        matrix = self.matrix()
        return safe_log(matrix if dtype is None else array_namespace(matrix).astype(matrix, dtype))

    data: tuple[str, ...] = ()
    """Names of the arrays that win rates depend on smoothly."""

    def push(self, log_policy: np.ndarray, unit: np.ndarray, **tangents: np.ndarray) -> Any:
        r"""Return :math:`e^{-\text{unit}}\,\dot P\pi` for tangents of the `data`, all in numpy and for all contexts."""
        return 0.0

    def pull(self, log_policy: np.ndarray, unit: np.ndarray, v: np.ndarray) -> dict[str, np.ndarray]:
        r"""Return the gradient of :math:`v^\top e^{-\text{unit}}P\pi` by each of the `data`, one for each context."""
        return {}

    @cached_property
    def interaction(self) -> np.ndarray:
        r"""The constant :math:`L = \frac12\max|P_{ij}-P_{kj}-P_{il}+P_{kl}|` per context (theory 5.2)."""
        return np.asarray(bounds.interaction_constant(to_numpy(self.matrix())), dtype=float)

    @property
    def interaction_bound(self) -> np.ndarray:
        """What certificates take for `interaction`: an upper bound where the constant itself would cost too much."""
        return self.interaction

    @cached_property
    def contraction(self) -> np.ndarray:
        r"""Birkhoff's contraction factor :math:`\kappa(P)\le 1` of a non-negative `P` (theory 3.7)."""
        return np.asarray(bounds.birkhoff_contraction(to_numpy(self.matrix())), dtype=float)


class MatrixPreference(Preference):
    r"""A preference given by its matrix.

    Parameters
    ----------
    matrix : array, shape ``(..., m, m)``
        ``matrix[..., i, j]`` is the probability that ``i`` beats ``j``, in [0, 1]. It need not be constant-sum
        here; a win-rate game asks for that.

    Raises
    ------
    ValueError
        If the shape is not square, an entry is NaN or outside [0, 1]; the message names the worst entry.

    Examples
    --------
    >>> import windgames as wg
    >>> rock_paper_scissors = wg.MatrixPreference([[0.5, 0, 1], [1, 0.5, 0], [0, 1, 0.5]])
    >>> rock_paper_scissors.is_constant_sum
    True
    """

    def __init__(self, matrix: Any) -> None:
        matrix = as_float(matrix, "matrix")
        if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2] or 0 in matrix.shape:
            raise ValueError(
                f"matrix must have shape (..., m, m) with at least one response and one context, "
                f"but its shape is {tuple(matrix.shape)}."
            )
        self._set(matrix)
        xp = array_namespace(matrix)
        outside = ~((matrix >= 0) & (matrix <= 1))
        if xp.any(outside):
            excess = to_numpy(xp.abs(matrix - 0.5))
            where = tuple(map(int, np.unravel_index(np.argmax(np.nan_to_num(excess, nan=inf)), excess.shape)))
            raise ValueError(
                f"matrix must hold probabilities in [0, 1], but entry {where} is {float(matrix[where])}. "
                f"Win counts go through windgames.from_counts, rewards through RewardPreference."
            )

    def _set(self, matrix: Array) -> None:
        self._matrix = matrix
        self._other: dict[Any, Array] = {}
        self._logs: dict[Any, Array] = {}
        self.batch_shape = tuple(matrix.shape[:-2])
        self.n_responses = matrix.shape[-1]

    @property
    def example(self) -> Array:
        return self._matrix

    def matrix(self) -> Array:
        return self._matrix

    def _cast(self, dtype: Any) -> Array:
        if dtype == self._matrix.dtype:
            return self._matrix
        if dtype not in self._other:
            xp = array_namespace(self._matrix)
            matrix = xp.astype(self._matrix, dtype)
            if self.is_constant_sum and xp.finfo(dtype).eps < xp.finfo(self._matrix.dtype).eps:
                # constant-sum to its own rounding only: what is meant is the nearest matrix that is so to the finer one
                matrix = (matrix + 1 - xp.matrix_transpose(matrix)) / 2
            self._other[dtype] = matrix
        return self._other[dtype]

    def win_rate(self, log_policy: Array) -> Array:
        xp = array_namespace(log_policy)
        return xp.matmul(self._cast(log_policy.dtype), xp.exp(log_policy)[..., None])[..., 0]

    def log_win_rate(self, log_policy: Array) -> Array:
        return logsumexp(self.log_matrix(log_policy.dtype) + log_policy[..., None, :])

    def log_matrix(self, dtype: Any = None) -> Array:
        dtype = self._matrix.dtype if dtype is None else dtype
        if dtype not in self._logs:
            self._logs[dtype] = self._make_log_matrix(dtype)
        return self._logs[dtype]

    def _make_log_matrix(self, dtype: Any) -> Array:
        return safe_log(self._cast(dtype))

    @cached_property
    def interaction_bound(self) -> np.ndarray:
        if self.n_responses <= QUICK:
            return self.interaction
        return np.asarray(bounds.interaction_bound(to_numpy(self._matrix)), dtype=float)

    data = ("matrix",)

    def push(self, log_policy: np.ndarray, unit: np.ndarray, **tangents: np.ndarray) -> Any:
        return np.sum(scale(tangents["matrix"], np.exp(log_policy[..., None, :] - unit[..., None])), axis=-1)

    def pull(self, log_policy: np.ndarray, unit: np.ndarray, v: np.ndarray) -> dict[str, np.ndarray]:
        return {"matrix": v[..., None] * np.exp(log_policy[..., None, :] - unit[..., None])}

    def asymmetry(self) -> tuple[float, tuple[int, ...]]:
        r"""Return the largest entry of :math:`|P + P^\top - 1|` and its index."""
        xp = array_namespace(self._matrix)
        worst = to_numpy(xp.abs(self._matrix + xp.matrix_transpose(self._matrix) - 1))
        index = tuple(map(int, np.unravel_index(np.argmax(worst), worst.shape)))
        return float(worst[index]), index

    @cached_property
    def is_constant_sum(self) -> bool:  # type: ignore[override]
        # A float32 matrix cannot hold P + P^T = 1 better than its own rounding.
        digits = float(array_namespace(self._matrix).finfo(self._matrix.dtype).eps)
        return self.asymmetry()[0] <= max(1e-12, 4 * digits)

    def __repr__(self) -> str:
        kind = "constant-sum" if self.is_constant_sum else "not constant-sum"
        return f"{type(self).__name__}({_size(self)}, {kind})"


class BradleyTerryPreference(MatrixPreference):
    r"""The Bradley-Terry preference :math:`P_{ij} = \sigma((r_i - r_j)/\text{scale})` of a reward.

    Always constant-sum; its interaction constant is at most 1/2 (theory 5.3).

    Parameters
    ----------
    reward : array, shape ``(..., m)``
        Finite rewards.
    scale : float
        Temperature of the comparison, in units of the reward; small values approach `RewardPreference`.
    """

    def __init__(self, reward: Any, scale: float = 1.0) -> None:
        self.reward = _check_reward(reward)
        self.scale = number(scale, "scale")
        if not 0 < self.scale < inf:
            raise ValueError(f"scale must be positive and finite, but it is {scale}.")
        self._set(sigmoid(self._odds(self.reward.dtype)))

    def _odds(self, dtype: Any) -> Array:
        r = array_namespace(self.reward).astype(self.reward, dtype)
        with np.errstate(over="ignore"):  # a difference too large for a float is certainty
            return (r[..., :, None] - r[..., None, :]) / self.scale

    def _cast(self, dtype: Any) -> Array:
        if dtype == self._matrix.dtype:
            return self._matrix
        if dtype not in self._other:
            self._other[dtype] = sigmoid(self._odds(dtype))
        return self._other[dtype]

    @cached_property
    def interaction_bound(self) -> np.ndarray:
        return np.minimum(super().interaction_bound, 0.5)  # theory 5.3

    data = ("reward",)

    def _slopes(self, log_policy: np.ndarray, unit: np.ndarray) -> np.ndarray:
        """Return the derivative of each term of a win rate by the difference of the two rewards."""
        logs = to_numpy(self.log_matrix())
        # s' = s (1 - s), in logarithms: where a win rate underflows, its relative change does not
        logs = logs + logs.swapaxes(-1, -2) + log_policy[..., None, :] - unit[..., None]
        return np.exp(logs) / self.scale

    def push(self, log_policy: np.ndarray, unit: np.ndarray, **tangents: np.ndarray) -> Any:
        r = tangents["reward"]
        # one difference at a time: far rewards that move together must not cancel
        return np.sum(self._slopes(log_policy, unit) * (r[..., :, None] - r[..., None, :]), axis=-1)

    def pull(self, log_policy: np.ndarray, unit: np.ndarray, v: np.ndarray) -> dict[str, np.ndarray]:
        flow = v[..., :, None] * self._slopes(log_policy, unit)
        return {"reward": flow.sum(axis=-1) - flow.sum(axis=-2)}

    def _make_log_matrix(self, dtype: Any) -> Array:
        # log sigma(d), accurate where sigma(d) underflows
        xp, d = array_namespace(self.reward), self._odds(dtype)
        return -xp.logaddexp(xp.zeros_like(d), -d)


class RewardPreference(Preference):
    r"""The preference that a reward induces: the larger reward wins, with certainty.

    Equal rewards are tied. With ``ties="half"`` a tie counts 1/2 and the preference is constant-sum; with
    ``"weak"`` it counts 1, the paper's indicator :math:`1\{r \ge r'\}`, which the log-win-rate game and
    best-of-n use; with ``"strict"`` it counts 0 (theory 1.1). Win rates cost a cumulative sum over a sort made
    once, never an ``m x m`` matrix (theory 1.2).

    Parameters
    ----------
    reward : array, shape ``(..., m)``
        Finite rewards. Only their order matters.
    ties : {"half", "weak", "strict"}

    Raises
    ------
    ValueError
        If a reward is NaN or infinite (the message names it), or `ties` is unknown.
    """

    def __init__(self, reward: Any, ties: str = "half") -> None:
        if ties not in TIES:
            raise ValueError(f"ties must be one of {', '.join(map(repr, TIES))}, but it is {ties!r}.")
        self.ties = ties
        self.reward = _check_reward(reward)
        self.batch_shape = tuple(self.reward.shape[:-1])
        self.n_responses = m = self.reward.shape[-1]
        self.is_constant_sum = ties == "half"
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
        self._order_numpy = order
        self._starts = starts
        self._order = like(order, self.reward)
        inverse = np.empty_like(order)
        np.put_along_axis(inverse, order, np.broadcast_to(k, order.shape), -1)
        # In the caller's order: below = responses strictly worse, upto = responses not better.
        self._below = like(np.take_along_axis(first, inverse, -1), self.reward)
        self._upto = like(np.take_along_axis(last, inverse, -1), self.reward)

    @property
    def example(self) -> Array:
        return self.reward

    @cached_property
    def n_classes(self) -> np.ndarray:
        """Number of distinct rewards in each context."""
        return np.sum(self._starts, axis=-1)

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
        return f"RewardPreference({_size(self)}, ties={self.ties!r})"


class LowRankPreference(Preference):
    r"""The preference :math:`P_{ij} = \frac12 + a_i^\top J a_j` of `k`-dimensional embeddings, `J` skew.

    Scores of this form are those of general preference models, intransitive ones included. Always constant-sum. Win
    rates cost :math:`O(mk)` and the equilibrium of a win-rate game :math:`O(mk^2)` a Newton step (theory 6.5); only
    `matrix`, log-win-rate games, `describe`, `verify` and ``beta = 0`` build the ``m x m`` matrix.

    That all scores lie in [-1/2, 1/2] is proven first by :math:`|a_i^\top Ja_j|\le n_in_j`, with :math:`n_i^2 =
    a_i^\top|J|a_i`; the pairs for which that is not enough are looked at one by one, up to `PAIRS` of them.

    Parameters
    ----------
    embedding : array, shape ``(..., m, k)``
    skew : array, shape ``(..., k, k)``, optional
        Skew-symmetric; blocks ``[[0, -1], [1, 0]]`` if None, for even `k`.

    Raises
    ------
    ValueError
        If a number is not finite, `skew` is not skew, a score is outside [-1/2, 1/2] (the message names the pair), or
        too many pairs would have to be looked at.

    Examples
    --------
    >>> import numpy as np, windgames as wg
    >>> angle = 2 * np.pi * np.arange(3) / 3  # rock, paper, scissors
    >>> circle = wg.LowRankPreference(0.7 * np.stack([np.cos(angle), np.sin(angle)], axis=-1))
    >>> print(circle.matrix().round(3))
    [[0.5   0.076 0.924]
     [0.924 0.5   0.076]
     [0.076 0.924 0.5  ]]
    """

    is_constant_sum = True

    def __init__(self, embedding: Any, skew: Any = None) -> None:
        self._set(*_check_embedding(embedding, skew))
        for index in np.ndindex(self.batch_shape):
            self._check_scores(index)

    def _set(self, embedding: Array, skew: Array) -> None:
        self.embedding, self.skew = embedding, skew
        self.batch_shape = np.broadcast_shapes(tuple(embedding.shape[:-2]), tuple(skew.shape[:-2]))
        self.n_responses = embedding.shape[-2]
        self._other: dict[Any, tuple[Array, Array]] = {}

    @classmethod
    def logistic(cls, embedding: Any, skew: Any = None, scale: float = 1.0) -> MatrixPreference:
        r"""Return the preference :math:`P_{ij} = \sigma(a_i^\top J a_j/\text{scale})`, as an ``m x m`` matrix.

        The logistic link has full rank: nothing of this class's speed is left, and what comes back is dense.
        """
        embedding, skew = _check_embedding(embedding, skew)
        scale = number(scale, "scale")
        if not 0 < scale < inf:
            raise ValueError(f"scale must be positive and finite, but it is {scale}.")
        return MatrixPreference(sigmoid(_scores(embedding, skew) / scale))

    @property
    def example(self) -> Array:
        return self.embedding

    def _cast(self, dtype: Any) -> tuple[Array, Array]:
        if dtype == self.embedding.dtype:
            return self.embedding, self.skew
        if dtype not in self._other:
            xp = array_namespace(self.embedding)
            self._other[dtype] = xp.astype(self.embedding, dtype), xp.astype(self.skew, dtype)
        return self._other[dtype]

    def to_numpy(self) -> LowRankPreference:
        """Return the same preference on numpy arrays in float64, without checking it again."""
        out = object.__new__(LowRankPreference)
        out._set(to_numpy(self.embedding).astype(float), to_numpy(self.skew).astype(float))
        return out

    def win_rate(self, log_policy: Array) -> Array:
        xp = array_namespace(log_policy)
        a, skew = self._cast(log_policy.dtype)
        mean = xp.matmul(xp.exp(log_policy)[..., None, :], a)
        return 0.5 + xp.matmul(a, xp.matmul(skew, xp.matrix_transpose(mean)))[..., 0]

    data = ("embedding", "skew")

    def push(self, log_policy: np.ndarray, unit: np.ndarray, **tangents: np.ndarray) -> Any:
        a, skew, p = to_numpy(self.embedding), to_numpy(self.skew), np.exp(log_policy)
        mean = (p[..., None, :] @ a)[..., 0, :]
        out: Any = 0.0
        if "embedding" in tangents:
            moved = tangents["embedding"]
            out = _times(moved, _times(skew, mean)) + _times(a, _times(skew, (p[..., None, :] @ moved)[..., 0, :]))
        if "skew" in tangents:
            out = out + _times(a, _times(tangents["skew"], mean))
        return np.exp(-unit) * out

    def pull(self, log_policy: np.ndarray, unit: np.ndarray, v: np.ndarray) -> dict[str, np.ndarray]:
        a, skew, p, v = to_numpy(self.embedding), to_numpy(self.skew), np.exp(log_policy), np.exp(-unit) * v
        mean, against = ((x[..., None, :] @ a)[..., 0, :] for x in (p, v))
        by_v, by_p = _times(skew, mean)[..., None, :], _times(skew, against)[..., None, :]
        return {
            "embedding": v[..., None] * by_v - p[..., None] * by_p,
            "skew": against[..., :, None] * mean[..., None, :],
        }

    def log_win_rate(self, log_policy: Array) -> Array:
        win, xp = self.win_rate(log_policy), array_namespace(log_policy)
        if float(xp.min(win)) > 1e-3:
            return xp.log(win)
        # a small sum of large terms has no relative accuracy; a sum of small entries has
        return logsumexp(self.log_matrix(log_policy.dtype) + log_policy[..., None, :])

    def matrix(self) -> Array:
        xp = array_namespace(self.embedding)
        # by construction only rounding is clipped
        return xp.clip(0.5 + _scores(self.embedding, self.skew), 0.0, 1.0)

    @cached_property
    def size(self) -> np.ndarray:
        a, skew = np.abs(to_numpy(self.embedding)).astype(float), np.abs(to_numpy(self.skew)).astype(float)
        k = a.shape[-1]
        largest = np.max(a, axis=-2)[..., None]
        return np.asarray((1 + k / 4) * np.max((a @ (skew @ largest))[..., 0], axis=-1) + 0.5)

    @cached_property
    def _turned(self) -> np.ndarray:
        r"""Embeddings :math:`b_i=|J|^{1/2}a_i`, with :math:`|a_i^\top Ja_j|\le|b_i||b_j|`, in some rotation."""
        _, stretch, turn = np.linalg.svd(to_numpy(self.skew).astype(float))
        return to_numpy(self.embedding).astype(float) @ (np.sqrt(stretch)[..., None] * turn).swapaxes(-1, -2)

    def _check_scores(self, index: tuple[int, ...]) -> None:
        """Refuse a context with a score outside [-1/2, 1/2]."""
        xp = array_namespace(self.embedding)
        slack = (
            8 * float(xp.finfo(self.embedding.dtype).eps) * float(np.broadcast_to(self.size, self.batch_shape)[index])
        )
        m, k = self.n_responses, self.embedding.shape[-1]
        norm = np.linalg.norm(np.broadcast_to(self._turned, (*self.batch_shape, m, k))[index], axis=-1)
        bound = float(np.max(norm)) ** 2
        if bound <= 0.5 + slack:
            return
        order = np.argsort(-norm, kind="stable")
        norm = norm[order]
        # against each response, the ones before it that the norms do not clear
        reach = np.minimum(np.searchsorted(-norm, -0.5 / np.maximum(norm, 1e-300)), np.arange(m))
        if reach.sum() > PAIRS:
            raise ValueError(
                f"The scores{in_context(index)} must lie in [-1/2, 1/2], but their norms only bound them by "
                f"{bound:.3g}, which leaves {reach.sum():.2g} pairs to look at, more than {PAIRS:.0g}. Scale the "
                f"embeddings by {(0.5 / bound) ** 0.5:.3g}, or drop the responses of largest norm."
            )
        a = np.broadcast_to(to_numpy(self.embedding), (*self.batch_shape, m, k))[index][order].astype(float)
        left = a @ np.broadcast_to(to_numpy(self.skew), (*self.batch_shape, k, k))[index]
        worst, pair, start = 0.0, (0, 0), 0
        while start < m:
            stop = min(m, start + max(1, 2**22 // max(1, int(reach[start:].max()))))
            scores = np.abs(left[start:stop] @ a[: reach[start:stop].max()].T)
            if scores.size and scores.max() > worst:
                i, j = np.unravel_index(np.argmax(scores), scores.shape)
                worst, pair = float(scores[i, j]), (int(order[start + i]), int(order[j]))
            start = stop
        if worst > 0.5 + slack:
            raise ValueError(
                f"The scores must lie in [-1/2, 1/2], but that of responses {pair[0]} and {pair[1]}{in_context(index)} "
                f"is {worst:.6g} in size. Scale the embeddings by {(0.5 / worst) ** 0.5:.3g}, or take the logistic "
                f"link: LowRankPreference.logistic."
            )

    @cached_property
    def interaction(self) -> np.ndarray:
        if self.n_responses <= EXACT:
            return super().interaction
        # theory 6.5: twice the square of the radius of a ball that holds all b_i; all that uses L holds for more
        b = self._turned
        middle = (np.max(b, axis=-2, keepdims=True) + np.min(b, axis=-2, keepdims=True)) / 2
        radius = np.max(np.linalg.norm(b - middle, axis=-1), axis=-1)
        return np.broadcast_to(np.minimum(1.0, 2 * radius**2), self.batch_shape)

    def __repr__(self) -> str:
        return f"LowRankPreference({_size(self)}, rank {self.embedding.shape[-1]})"


def from_counts(wins: Any, prior: float = 0.0) -> MatrixPreference:
    r"""Estimate a constant-sum preference from counted comparisons.

    :math:`P_{ij} = (w_{ij} + a)/(w_{ij} + w_{ji} + 2a)` with `a` the prior count; 1/2 on the diagonal.

    Parameters
    ----------
    wins : array, shape ``(..., m, m)``
        ``wins[..., i, j]`` counts how often ``i`` beat ``j``; half counts record ties.
    prior : float
        Pseudo-count added to both sides of every pair.

    Raises
    ------
    ValueError
        If a count is negative or NaN, or if `prior` is 0 and a pair was never compared; the message names
        the first such pair and how many there are.
    """
    wins = as_float(wins, "wins")
    if wins.ndim < 2 or wins.shape[-1] != wins.shape[-2] or 0 in wins.shape:
        raise ValueError(f"wins must have shape (..., m, m), but its shape is {tuple(wins.shape)}.")
    prior = number(prior, "prior")
    if not 0 <= prior < inf:
        raise ValueError(f"prior must be a non-negative count, but it is {prior}.")
    xp = array_namespace(wins)
    where = first_index(~((wins >= 0) & (wins < inf)))
    if where is not None:
        raise ValueError(f"wins must hold non-negative finite counts, but entry {where} is {wins[where]}.")
    wins = wins / max(1.0, float(xp.max(wins)) / 1e300)  # sums of the largest counts stay finite
    m = wins.shape[-1]
    total = wins + xp.matrix_transpose(wins) + 2 * prior
    diagonal = xp.eye(m, dtype=wins.dtype, device=device_of(wins)) > 0
    missing = (total == 0) & ~diagonal
    where = first_index(missing)
    if where is not None:
        pairs = int(to_numpy(missing).sum()) // 2
        raise ValueError(
            f"Responses {where[-2]} and {where[-1]} were never compared (index {where}; {pairs} such pairs in all). "
            f"Compare them, or pass prior > 0 to count every pair as that many wins on both sides."
        )
    off = diagonal | (total == 0)
    half = 0.5 * xp.ones_like(wins)
    return MatrixPreference(xp.where(off, half, (wins + prior) / xp.where(off, xp.ones_like(total), total)))


def sigmoid(d: Array) -> Array:
    """Return the logistic function; of ``d`` and ``-d`` it sums to one up to rounding."""
    xp = array_namespace(d)
    e = xp.exp(-xp.abs(d))  # of a non-positive number only: no overflow at either end
    return xp.where(d >= 0, 1 / (1 + e), e / (1 + e))


def _times(matrix: np.ndarray, x: np.ndarray) -> np.ndarray:
    return (matrix @ x[..., None])[..., 0]


def _scores(embedding: Array, skew: Array) -> Array:
    """Return the scores of all pairs, skew to the last bit."""
    xp = array_namespace(embedding)
    scores = xp.matmul(xp.matmul(embedding, skew), xp.matrix_transpose(embedding))
    return (scores - xp.matrix_transpose(scores)) / 2


def _check_embedding(embedding: Any, skew: Any) -> tuple[Array, Array]:
    """Return embeddings and the skew matrix between them, or say what is wrong."""
    embedding = as_float(embedding, "embedding")
    if embedding.ndim < 2 or 0 in embedding.shape:
        raise ValueError(
            f"embedding must have shape (..., m, k) with at least one response, one dimension and one context, but its "
            f"shape is {tuple(embedding.shape)}."
        )
    k = embedding.shape[-1]
    if skew is None:
        if k % 2:
            raise ValueError(f"An embedding of odd dimension {k} needs a skew matrix of its own: pass skew.")
        skew = np.kron(np.eye(k // 2), [[0.0, -1.0], [1.0, 0.0]])
    skew = as_float(skew, "skew")
    if isinstance(skew, np.ndarray) and not isinstance(embedding, np.ndarray):
        skew = like(skew, embedding)
    if skew.ndim < 2 or tuple(skew.shape[-2:]) != (k, k) or 0 in skew.shape:
        raise ValueError(f"skew must have shape (..., {k}, {k}), but its shape is {tuple(skew.shape)}.")
    xp = array_namespace(embedding, skew)
    for name, x in (("embedding", embedding), ("skew", skew)):
        where = first_index(~xp.isfinite(x))
        if where is not None:
            raise ValueError(f"{name} must be finite, but entry {where} is {float(x[where])}.")
    odd = to_numpy(xp.abs(skew + xp.matrix_transpose(skew)))
    digits = max(1e-12, 4 * float(xp.finfo(skew.dtype).eps)) * float(xp.max(xp.abs(skew)))
    if np.max(odd) > digits:
        where = tuple(map(int, np.unravel_index(np.argmax(odd), odd.shape)))
        raise ValueError(
            f"skew must be skew-symmetric, but entry {where} and its mirror image add up to {odd[where]:.3g}. "
            f"Take (J - J^T)/2."
        )
    try:
        np.broadcast_shapes(tuple(embedding.shape[:-2]), tuple(skew.shape[:-2]))
    except ValueError:
        raise ValueError(
            f"The contexts do not fit together: embedding {tuple(embedding.shape[:-2])}, skew {tuple(skew.shape[:-2])}."
        ) from None
    return embedding, xp.astype((skew - xp.matrix_transpose(skew)) / 2, embedding.dtype)


def _check_reward(reward: Any) -> Array:
    reward = as_float(reward, "reward")
    if reward.ndim < 1 or 0 in reward.shape:
        raise ValueError(
            f"reward must have shape (..., m) with at least one response and one context, "
            f"but its shape is {tuple(reward.shape)}."
        )
    where = first_index(~array_namespace(reward).isfinite(reward))
    if where is not None:
        raise ValueError(f"reward must be finite, but entry {where} is {float(reward[where])}.")
    return reward


def check_shape(x: Array, preference: Preference, name: str) -> None:
    """Refuse an array whose last axis does not hold one entry per response."""
    if x.ndim < 1 or 0 in x.shape or x.shape[-1] != preference.n_responses:
        raise ValueError(
            f"{name} must have shape (..., {preference.n_responses}), one entry per response, "
            f"but its shape is {tuple(x.shape)}."
        )


def check_log_policy(log_policy: Any, preference: Preference, name: str = "log_policy") -> Array:
    """Return normalised log-probabilities as an array of the preference's library, or say what is wrong."""
    x = log_policy if is_array_api_obj(log_policy) else as_float(log_policy, name)
    if not array_namespace(x).isdtype(x.dtype, "real floating"):
        raise ValueError(f"{name} must hold log-probabilities in floating point, but its dtype is {x.dtype}.")
    x = as_float(x, name)
    if isinstance(preference.example, np.ndarray):
        x = to_numpy(x)
    elif isinstance(x, np.ndarray):
        x = like(x, preference.example)
    check_shape(x, preference, name)
    xp = array_namespace(x)
    where = first_index(xp.isnan(x) | (x == inf))
    if where is not None:
        raise ValueError(f"{name} must hold log-probabilities, but entry {where} is {float(x[where])}.")
    total = logsumexp(xp.astype(x, xp.float64))
    where = first_index(~(xp.abs(total) <= (1e-8 if x.dtype == xp.float64 else 1e-3)))
    if where is not None:
        raise ValueError(
            f"{name} must be normalised log-probabilities, but the probabilities sum to "
            f"{float(xp.exp(total[where])):.12g}{in_context(where)}. "
            f"Probabilities go through log first, logits through x - logsumexp(x)."
        )
    return x


def _size(preference: Preference) -> str:
    contexts = " x ".join(map(str, preference.batch_shape))
    return f"{preference.n_responses} responses" + (f", {contexts} contexts" if contexts else "")

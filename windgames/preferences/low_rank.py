"""Preferences between embeddings: :math:`P_{ij} = 1/2 + a_i^T J a_j`."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from .._array import (
    Array,
    array_namespace,
    is_traced,
    kept,
    like,
    owned,
    scalar,
    to_numpy,
)
from .._validation import as_float, first_index, in_context, positive_number
from .base import Preference, describe_size
from .matrix import MatrixPreference, matvec, sigmoid

MAX_PAIRS = 10**9
"""Largest number of pairs of responses whose scores are checked one by one."""


EXACT_UP_TO = 256
"""Up to this many responses the interaction constant of low-rank scores is exact; beyond, it is an upper bound."""


class LowRankPreference(Preference):
    r"""The preference :math:`P_{ij} = \frac12 + a_i^\top J a_j` of `k`-dimensional embeddings, `J` skew.

    Scores of this form are those of general preference models, intransitive ones included. Always constant-sum. Win
    rates cost :math:`O(mk)` and the equilibrium of a win-rate game :math:`O(mk^2)` a Newton step (theory 6.5); only
    `matrix`, log-win-rate games, `describe`, `verify` and ``beta = 0`` build the ``m x m`` matrix.

    That all scores lie in [-1/2, 1/2] is proven first by :math:`|a_i^\top Ja_j|\le n_in_j`, with :math:`n_i^2 =
    a_i^\top|J|a_i`; pairs that this does not settle are checked one by one, up to `MAX_PAIRS` of them.

    Parameters
    ----------
    embedding : array, shape ``(..., m, k)``
    skew : array, shape ``(..., k, k)``, optional
        Skew-symmetric; blocks ``[[0, -1], [1, 0]]`` if None, for even `k`.
    names : sequence, optional
        Names of the responses.

    Raises
    ------
    ValueError
        If a number is not finite, `skew` is not skew, a score is outside [-1/2, 1/2] (the message names the pair), or
        too many pairs would have to be checked.

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
    imbalance: Any = 0.0  # the skew matrix is skew to the last bit

    def __init__(self, embedding: Any, skew: Any = None, *, names: Any = None) -> None:
        self._set(*_check_embedding(embedding, skew))
        self.names = names
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

        The logistic link has full rank, so the result is dense and has none of this class's speed.
        """
        embedding, skew = _check_embedding(embedding, skew)
        return MatrixPreference(sigmoid(_scores(embedding, skew) / positive_number(scale, "scale")))

    @property
    def example(self) -> Array:
        return self.embedding

    def _cast(self, dtype: Any) -> tuple[Array, Array]:
        if dtype == self.embedding.dtype:
            return self.embedding, self.skew
        xp = array_namespace(self.embedding)
        return kept(self._other, dtype, lambda: (xp.astype(self.embedding, dtype), xp.astype(self.skew, dtype)))

    def _constructor(self) -> dict[str, Any]:
        return {"embedding": self.embedding, "skew": self.skew}

    def _to_numpy(self) -> LowRankPreference:
        out = object.__new__(LowRankPreference)
        # the scores were checked when this preference was made
        out._set(to_numpy(self.embedding).astype(float), to_numpy(self.skew).astype(float))
        return out

    def win_rate(self, log_policy: Array) -> Array:
        xp = array_namespace(log_policy)
        a, skew = self._cast(log_policy.dtype)
        mean = xp.matmul(xp.exp(log_policy)[..., None, :], a)
        return 0.5 + xp.matmul(a, xp.matmul(skew, xp.matrix_transpose(mean)))[..., 0]

    data = ("embedding", "skew")

    def win_rate_jvp(self, log_policy: np.ndarray, unit: np.ndarray, **tangents: np.ndarray) -> Any:
        a, skew, p = to_numpy(self.embedding), to_numpy(self.skew), np.exp(log_policy)
        mean = (p[..., None, :] @ a)[..., 0, :]
        out: Any = 0.0
        if "embedding" in tangents:
            moved = tangents["embedding"]
            out = matvec(moved, matvec(skew, mean)) + matvec(a, matvec(skew, (p[..., None, :] @ moved)[..., 0, :]))
        if "skew" in tangents:
            out = out + matvec(a, matvec(tangents["skew"], mean))
        return np.exp(-unit) * out

    def win_rate_vjp(self, log_policy: np.ndarray, unit: np.ndarray, v: np.ndarray) -> dict[str, np.ndarray]:
        a, skew, p, v = to_numpy(self.embedding), to_numpy(self.skew), np.exp(log_policy), np.exp(-unit) * v
        mean, against = ((x[..., None, :] @ a)[..., 0, :] for x in (p, v))
        by_v, by_p = matvec(skew, mean)[..., None, :], matvec(skew, against)[..., None, :]
        return {
            "embedding": v[..., None] * by_v - p[..., None] * by_p,
            "skew": against[..., :, None] * mean[..., None, :],
        }

    def log_win_rate(self, log_policy: Array) -> Array:
        win, xp = self.win_rate(log_policy), array_namespace(log_policy)
        if not is_traced(win) and scalar(xp.min(win)) > 1e-3:
            return xp.log(win)
        # a small sum of large terms has no relative accuracy; a sum of small entries has
        return super().log_win_rate(log_policy)

    def matrix(self) -> Array:
        xp = array_namespace(self.embedding)
        # by construction only rounding is clipped
        return xp.clip(0.5 + _scores(self.embedding, self.skew), 0.0, 1.0)

    @cached_property
    def summand_magnitude(self) -> np.ndarray:
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
            8
            * float(xp.finfo(self.embedding.dtype).eps)
            * float(np.broadcast_to(self.summand_magnitude, self.batch_shape)[index])
        )
        m, k = self.n_responses, self.embedding.shape[-1]
        norm = np.linalg.norm(np.broadcast_to(self._turned, (*self.batch_shape, m, k))[index], axis=-1)
        bound = float(np.max(norm)) ** 2
        if bound <= 0.5 + slack:
            return
        order = np.argsort(-norm, kind="stable")
        norm = norm[order]
        # for each response, how many of those before it the norms do not settle
        unsettled = np.minimum(np.searchsorted(-norm, -0.5 / np.maximum(norm, 1e-300)), np.arange(m))
        if unsettled.sum() > MAX_PAIRS:
            raise ValueError(
                f"The scores{in_context(index)} must lie in [-1/2, 1/2], but their norms only bound them by "
                f"{bound:.3g}, which leaves {unsettled.sum():.2g} pairs to check, more than {MAX_PAIRS:.0g}. Scale the "
                f"embeddings by {(0.5 / bound) ** 0.5:.3g}, or drop the responses of largest norm."
            )
        a = np.broadcast_to(to_numpy(self.embedding), (*self.batch_shape, m, k))[index][order].astype(float)
        left = a @ np.broadcast_to(to_numpy(self.skew), (*self.batch_shape, k, k))[index]
        worst, pair, start = 0.0, (0, 0), 0
        while start < m:
            stop = min(m, start + max(1, 2**22 // max(1, int(unsettled[start:].max()))))
            scores = np.abs(left[start:stop] @ a[: unsettled[start:stop].max()].T)
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
        if self.n_responses <= EXACT_UP_TO:
            return super().interaction
        # theory 6.5: twice the squared radius of a ball that holds all b_i; every use of L allows an upper bound
        b = self._turned
        middle = (np.max(b, axis=-2, keepdims=True) + np.min(b, axis=-2, keepdims=True)) / 2
        radius = np.max(np.linalg.norm(b - middle, axis=-1), axis=-1)
        return np.broadcast_to(np.minimum(1.0, 2 * radius**2), self.batch_shape)

    def __repr__(self) -> str:
        return f"LowRankPreference({describe_size(self)}, rank {self.embedding.shape[-1]})"


def _scores(embedding: Array, skew: Array) -> Array:
    """Return the scores of all pairs, exactly skew-symmetric."""
    xp = array_namespace(embedding)
    scores = xp.matmul(xp.matmul(embedding, skew), xp.matrix_transpose(embedding))
    return (scores - xp.matrix_transpose(scores)) / 2


def _check_embedding(embedding: Any, skew: Any) -> tuple[Array, Array]:
    """Return embeddings and the skew matrix as floating arrays of one library."""
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
            raise ValueError(f"{name} must be finite, but entry {where} is {scalar(x[where])}.")
    odd = to_numpy(xp.abs(skew + xp.matrix_transpose(skew)))
    digits = max(1e-12, 4 * float(xp.finfo(skew.dtype).eps)) * scalar(xp.max(xp.abs(skew)))
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
    return owned(embedding), owned(xp.astype((skew - xp.matrix_transpose(skew)) / 2, embedding.dtype))

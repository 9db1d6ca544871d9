"""Preferences given by their matrix, among them the Bradley-Terry preference of a reward."""

from __future__ import annotations

from functools import cached_property
from math import inf
from typing import Any

import numpy as np

from .. import bounds
from .._array import (
    Array,
    array_namespace,
    kept,
    owned,
    safe_log,
    scalar,
    scale,
    to_numpy,
)
from .._validation import as_float, by_label, is_frame, own_names, positive_number
from .base import Preference, check_reward, describe_size, ties_tol

EXACT_UP_TO = 40
"""Up to this many responses certificates use the exact interaction constant; beyond, computing it would dominate."""


class MatrixPreference(Preference):
    r"""A preference given by its matrix.

    Parameters
    ----------
    matrix : array or DataFrame, shape ``(..., m, m)``
        ``matrix[..., i, j]`` is the probability that ``i`` beats ``j``, in [0, 1]. It need not be constant-sum
        here; a win-rate game asks for that. Of a DataFrame the columns are put in the order of the rows.
    names : sequence, optional
        Names of the responses; the labels of a DataFrame if None.

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

    def __init__(self, matrix: Any, *, names: Any = None) -> None:
        if is_frame(matrix):
            labels, square = own_names(matrix.T), matrix.shape[0] == matrix.shape[1]
            names = labels if names is None else names
            if labels is None and set(matrix.columns) == set(matrix.index):
                labels = tuple(matrix.index)
            # columns in the order of the rows
            matrix = by_label(matrix, "matrix", labels) if square else matrix.to_numpy()
        matrix = as_float(matrix, "matrix")
        if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2] or 0 in matrix.shape:
            raise ValueError(
                f"matrix must have shape (..., m, m) with at least one response and one context, "
                f"but its shape is {tuple(matrix.shape)}. "
                f"A game of two different players goes through windgames.embed_zero_sum."
            )
        self._matrix = matrix = owned(matrix)
        self._other: dict[Any, Array] = {}
        self._logs: dict[Any, Array] = {}
        self.batch_shape = tuple(matrix.shape[:-2])
        self.n_responses = matrix.shape[-1]
        self.names = names
        xp = array_namespace(matrix)
        outside = ~((matrix >= 0) & (matrix <= 1))
        if xp.any(outside):
            excess = to_numpy(xp.abs(matrix - 0.5))
            where = tuple(map(int, np.unravel_index(np.argmax(np.nan_to_num(excess, nan=inf)), excess.shape)))
            raise ValueError(
                f"matrix must hold probabilities in [0, 1], but entry {where} is {scalar(matrix[where])}. "
                f"Win counts go through windgames.from_counts, rewards through RewardPreference, payoffs of a zero-sum "
                f"game through windgames.embed_zero_sum."
            )

    @property
    def example(self) -> Array:
        return self._matrix

    def matrix(self) -> Array:
        return self._matrix

    def _cast(self, dtype: Any) -> Array:
        if dtype == self._matrix.dtype:
            return self._matrix
        return kept(self._other, dtype, lambda: self._in_dtype(dtype))

    def _in_dtype(self, dtype: Any) -> Array:
        xp = array_namespace(self._matrix)
        matrix = xp.astype(self._matrix, dtype)
        if self.is_constant_sum and xp.finfo(dtype).eps < xp.finfo(self._matrix.dtype).eps:
            # constant-sum only up to the coarser rounding: take the nearest matrix that is so in the finer dtype
            matrix = (matrix + 1 - xp.matrix_transpose(matrix)) / 2
            tied = xp.abs(2 * matrix - 1) <= ties_tol(self._matrix)
            matrix = xp.where(tied, 0.5 * xp.ones_like(matrix), matrix)
        return matrix

    def win_rate(self, log_policy: Array) -> Array:
        xp = array_namespace(log_policy)
        return xp.matmul(self._cast(log_policy.dtype), xp.exp(log_policy)[..., None])[..., 0]

    def _constructor(self) -> dict[str, Any]:
        return {"matrix": self._matrix}

    def _to_numpy(self) -> MatrixPreference:
        return MatrixPreference(to_numpy(self._cast(array_namespace(self._matrix).float64)))

    def log_matrix(self, dtype: Any = None) -> Array:
        dtype = self._matrix.dtype if dtype is None else dtype
        return kept(self._logs, dtype, lambda: self._make_log_matrix(dtype))

    def _make_log_matrix(self, dtype: Any) -> Array:
        return safe_log(self._cast(dtype))

    @cached_property
    def interaction_bound(self) -> np.ndarray:
        if self.n_responses <= EXACT_UP_TO:
            return self.interaction
        return np.asarray(bounds.interaction_bound(to_numpy(self._matrix)), dtype=float)

    data = ("matrix",)

    def win_rate_jvp(self, log_policy: np.ndarray, unit: np.ndarray, **tangents: np.ndarray) -> Any:
        return np.sum(scale(tangents["matrix"], np.exp(log_policy[..., None, :] - unit[..., None])), axis=-1)

    def win_rate_vjp(self, log_policy: np.ndarray, unit: np.ndarray, v: np.ndarray) -> dict[str, np.ndarray]:
        return {"matrix": v[..., None] * np.exp(log_policy[..., None, :] - unit[..., None])}

    @cached_property
    def imbalance(self) -> np.ndarray:
        xp = array_namespace(self._matrix)
        return self._imbalance if self._matrix.dtype == xp.float64 else _imbalance(self._cast(xp.float64))

    @cached_property
    def _imbalance(self) -> np.ndarray:
        return _imbalance(self._matrix)

    def asymmetry(self) -> tuple[float, tuple[int, ...]]:
        r"""Return the largest entry of :math:`|P + P^\top - 1|` and its index."""
        matrix = to_numpy(self._matrix)
        worst = np.abs(matrix + matrix.swapaxes(-1, -2) - 1)
        index = tuple(map(int, np.unravel_index(np.argmax(worst), worst.shape)))
        return float(worst[index]), index

    @cached_property
    def is_constant_sum(self) -> bool:  # type: ignore[override]
        # A float32 matrix cannot hold P + P^T = 1 better than its own rounding.
        digits = float(array_namespace(self._matrix).finfo(self._matrix.dtype).eps)
        return float(np.max(self._imbalance)) <= max(1e-12, 4 * digits)

    def __repr__(self) -> str:
        kind = "constant-sum" if self.is_constant_sum else "not constant-sum"
        return f"{type(self).__name__}({describe_size(self)}, {kind})"


class BradleyTerryPreference(MatrixPreference):
    r"""The Bradley-Terry preference :math:`P_{ij} = \sigma((r_i - r_j)/\text{scale})` of a reward.

    Always constant-sum; its interaction constant is at most 1/2 (theory 5.3). The matrix is made when it is first
    needed; `describe` does without.

    Parameters
    ----------
    reward : array or Series, shape ``(..., m)``
        Finite rewards.
    scale : float
        Temperature of the comparison, in units of the reward; small values approach `RewardPreference`.
    names : sequence, optional
        Names of the responses, by which a Series is aligned; its labels if None.
    """

    is_constant_sum = True

    def __init__(self, reward: Any, scale: float = 1.0, *, names: Any = None) -> None:
        self.reward, names = check_reward(reward, names)
        self.scale = positive_number(scale, "scale")
        self._other, self._logs = {}, {}
        self.batch_shape, self.n_responses = tuple(self.reward.shape[:-1]), self.reward.shape[-1]
        self.names = names

    @property
    def example(self) -> Array:
        return self.reward

    @property
    def _matrix(self) -> Array:
        return self._cast(self.reward.dtype)

    def _cast(self, dtype: Any) -> Array:
        if getattr(self.reward, "requires_grad", False):  # what is made without a gradient must not be met with one
            return sigmoid(self._odds(dtype))
        return kept(self._other, dtype, lambda: sigmoid(self._odds(dtype)))

    def _constructor(self) -> dict[str, Any]:
        return {"reward": self.reward, "scale": self.scale}

    def _to_numpy(self) -> BradleyTerryPreference:
        return BradleyTerryPreference(to_numpy(self.reward).astype(float), self.scale)

    def _odds(self, dtype: Any) -> Array:
        r = array_namespace(self.reward).astype(self.reward, dtype)
        with np.errstate(over="ignore"):  # a difference too large for a float is certainty
            return (r[..., :, None] - r[..., None, :]) / self.scale

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

    def win_rate_jvp(self, log_policy: np.ndarray, unit: np.ndarray, **tangents: np.ndarray) -> Any:
        r = tangents["reward"]
        # differences first: distant rewards that move together must not cancel
        return np.sum(self._slopes(log_policy, unit) * (r[..., :, None] - r[..., None, :]), axis=-1)

    def win_rate_vjp(self, log_policy: np.ndarray, unit: np.ndarray, v: np.ndarray) -> dict[str, np.ndarray]:
        flow = v[..., :, None] * self._slopes(log_policy, unit)
        return {"reward": flow.sum(axis=-1) - flow.sum(axis=-2)}

    def _make_log_matrix(self, dtype: Any) -> Array:
        # log sigma(d), accurate where sigma(d) underflows
        xp, d = array_namespace(self.reward), self._odds(dtype)
        return -xp.logaddexp(xp.zeros_like(d), -d)


def _imbalance(matrix: Array) -> np.ndarray:
    matrix = to_numpy(matrix)
    return np.max(np.abs(matrix + matrix.swapaxes(-1, -2) - 1), axis=(-2, -1))


def sigmoid(d: Array) -> Array:
    """Return the logistic function; its values at ``d`` and ``-d`` sum to one up to rounding."""
    xp = array_namespace(d)
    e = xp.exp(-xp.abs(d))  # at most 1: no overflow at either end
    return xp.where(d >= 0, 1 / (1 + e), e / (1 + e))


def matvec(matrix: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return matrix times vector in every context."""
    return (matrix @ x[..., None])[..., 0]

"""The base class of all preferences."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cached_property
from typing import Any

import numpy as np

from .. import bounds
from .._array import (
    Array,
    array_namespace,
    logsumexp,
    owned,
    safe_log,
    scalar,
    to_numpy,
)
from .._display import FEW, SHOWN, as_arguments, html_matrix, html_table, listed
from .._validation import as_float, by_label, check_names, first_index, is_frame, is_series, own_names


class Preference:
    """The base class of all preferences; arrays stay in the array library and on the device of its data.

    A subclass sets `batch_shape`, `n_responses` and `is_constant_sum`, and defines `example`, `win_rate` and `matrix`.
    Everything else has a default that uses the matrix.
    """

    batch_shape: tuple[int, ...]
    """Shape of the contexts; ``()`` for a single one."""
    n_responses: int
    """Number of responses ``m``."""
    is_constant_sum: bool
    r"""Whether :math:`P + P^\top = 1` in every context, up to 1e-12."""
    summand_magnitude: Any = 0.0
    """Largest magnitude, per context, of the terms that a win rate is summed from, where it may exceed 1."""
    _names: tuple[Hashable, ...] | None = None
    win_counts: Any = None
    """How often each response beat each other, shape ``(..., m, m)``, ties counting half, or None where the preference
    was not estimated from counts. The matrix entry of a pair without counts is a guess."""
    fit: Any = None
    """Report of the fit to comparisons that made the preference, or None."""

    @property
    def names(self) -> tuple[Hashable, ...] | None:
        """Names of the responses, or None; used only for display and to align labelled data."""
        return self._names

    @names.setter
    def names(self, names: Any) -> None:
        self._names = None if names is None else check_names(names, self.n_responses)

    @property
    def example(self) -> Array:
        """An array that carries the preference's array library, dtype and device."""
        raise self._undefined("example")

    def win_rate(self, log_policy: Array) -> Array:
        r"""Return :math:`P\pi`, shape ``(..., m)``, of a policy given as normalised log-probabilities."""
        raise self._undefined("win_rate")

    def log_win_rate(self, log_policy: Array) -> Array:
        r"""Return :math:`\log P\pi` without underflow; ``-inf`` where a response beats nobody."""
        return logsumexp(self.log_matrix(log_policy.dtype) + log_policy[..., None, :])

    def matrix(self) -> Array:
        """Return the preference matrix, shape ``(..., m, m)``."""
        raise self._undefined("matrix")

    def _undefined(self, name: str) -> NotImplementedError:
        return NotImplementedError(f"{type(self).__name__}.{name} is not implemented.")

    def _constructor(self) -> dict[str, Any]:
        """Return the arguments that make this preference, to print it."""
        return {}

    def as_call(self) -> str:
        """Return the call that makes a preference of few responses, else its repr."""
        data = self._constructor()
        if not data or self.names is not None or self.batch_shape or self.n_responses > SHOWN:
            return repr(self)
        return f"{type(self).__name__}({as_arguments(data)})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Print a small preference as the call that makes it, in IPython and in counterexamples of hypothesis."""
        printer.text(self.as_call())

    def _repr_html_(self) -> str:
        if not self.batch_shape and self.n_responses <= FEW:
            return html_matrix(repr(self), to_numpy(self.matrix()), self.names)
        return html_table(repr(self), [("constant-sum", "yes" if self.is_constant_sum else "no")])

    def to_numpy(self) -> Preference:
        """Return the same preference on numpy arrays in float64; the preference itself if it is one already."""
        if isinstance(self.example, np.ndarray) and self.example.dtype == np.float64:
            return self
        out = self._to_numpy()
        out.names, out.win_counts, out.fit = self.names, self.win_counts, self.fit
        return out

    def _to_numpy(self) -> Preference:
        from .matrix import MatrixPreference  # here, since that module imports this one

        return MatrixPreference(self.matrix()).to_numpy()

    def log_matrix(self, dtype: Any = None) -> Array:
        """Return the logarithm of the matrix, ``-inf`` where it is zero."""
        matrix = self.matrix()
        return safe_log(matrix if dtype is None else array_namespace(matrix).astype(matrix, dtype))

    data: tuple[str, ...] = ()
    """Names of the arrays that win rates depend on smoothly."""

    def win_rate_jvp(self, log_policy: np.ndarray, unit: np.ndarray, **tangents: np.ndarray) -> Any:
        r"""Return :math:`e^{-\text{unit}}\,\dot P\pi` for tangents of the `data`, in numpy, for all contexts at once.

        `unit` is the logarithm of a scale per response, so that relative changes of tiny win rates do not underflow.
        """
        return 0.0

    def win_rate_vjp(self, log_policy: np.ndarray, unit: np.ndarray, v: np.ndarray) -> dict[str, np.ndarray]:
        r"""Return the gradient of :math:`v^\top e^{-\text{unit}}P\pi` by each of the `data`, per context."""
        return {}

    @cached_property
    def interaction(self) -> np.ndarray:
        r"""The constant :math:`L = \frac12\max|P_{ij}-P_{kj}-P_{il}+P_{kl}|` per context (theory 5.2)."""
        return np.asarray(bounds.interaction_constant(to_numpy(self.matrix())), dtype=float)

    @property
    def interaction_bound(self) -> np.ndarray:
        """Upper bound on `interaction` for certificates, cheaper where the constant itself would cost too much."""
        return self.interaction

    @cached_property
    def imbalance(self) -> Any:
        r"""Largest entry of :math:`|P + P^\top - 1|` per context, in double precision (theory 2.8)."""
        matrix = to_numpy(self.matrix()).astype(float)
        return np.max(np.abs(matrix + matrix.swapaxes(-1, -2) - 1), axis=(-2, -1))

    @cached_property
    def contraction(self) -> np.ndarray:
        r"""Birkhoff's contraction factor :math:`\kappa(P)\le 1` of a non-negative `P` (theory 3.7)."""
        return np.asarray(bounds.birkhoff_contraction(to_numpy(self.matrix())), dtype=float)


def check_reward(reward: Any, names: Any = None) -> tuple[Array, Any]:
    """Return rewards as an array, aligned by label, and the names of the responses; ValueError if they are invalid."""
    if is_series(reward) or is_frame(reward):
        names = own_names(reward) if names is None else check_names(names, reward.shape[-1])
        reward = by_label(reward, "reward", names)
    reward = as_float(reward, "reward")
    if reward.ndim < 1 or 0 in reward.shape:
        raise ValueError(
            f"reward must have shape (..., m) with at least one response and one context, "
            f"but its shape is {tuple(reward.shape)}."
        )
    where = first_index(~array_namespace(reward).isfinite(reward))
    if where is not None:
        raise ValueError(f"reward must be finite, but entry {where} is {scalar(reward[where])}.")
    return owned(reward), names


def ties_tol(example: Array) -> float:
    r"""Return the margin :math:`|P_{ij}-P_{ji}|` up to which a pair is a tie: four roundings of the dtype."""
    return 4 * float(array_namespace(example).finfo(example.dtype).eps)


def describe_size(preference: Preference) -> str:
    """Return the numbers of responses and contexts for a repr."""
    contexts = " x ".join(map(str, preference.batch_shape))
    named = "" if preference.names is None else f": {listed(preference.names)}"
    return f"{preference.n_responses} responses{named}" + (f", {contexts} contexts" if contexts else "")

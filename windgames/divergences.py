"""Divergences between policies, for users: what has one meaning is taken, and the rest is refused.

The formulas are those of `windgames._array`, which everything else here calls on policies that were checked before.
"""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np

from . import _array
from ._array import Array, array_namespace, is_traced, like, scalar
from ._validation import as_float, by_label, check_normalized, first_index, in_context, is_series, own_names

__all__ = ["hilbert", "kl", "log_normalize"]


def kl(log_p: Any, log_q: Any) -> Array:
    r"""Return the Kullback-Leibler divergence :math:`KL(p\|q) = \sum p\log(p/q)` in nats, shape ``(...)``.

    The order of the arguments matters: the mean is under the first one. Each term that is summed is non-negative, so a
    divergence of 1e-30 comes out as such, where a direct sum stalls at 1e-16. Infinite where `p` has mass and `q` has
    none.

    Parameters
    ----------
    log_p, log_q : array, list or Series, shape ``(..., m)``
        Normalised log-probabilities whose contexts broadcast. Two Series are aligned by label.

    Raises
    ------
    ValueError
        If an argument is not normalised log-probabilities, such as probabilities, or the shapes do not fit.
    """
    return _array.kl(*_log_policies(log_p, log_q))


def hilbert(log_p: Any, log_q: Any) -> Array:
    r"""Return the Hilbert distance :math:`\max \log(p/q) - \min \log(p/q)`, shape ``(...)`` (theory 1.3).

    Infinite where the supports differ; responses outside both supports are ignored.

    Parameters
    ----------
    log_p, log_q
        As in `kl`.

    Raises
    ------
    ValueError
        As in `kl`.
    """
    return _array.hilbert(*_log_policies(log_p, log_q))


def log_normalize(x: Any) -> Array:
    """Return log-probabilities proportional to ``exp x`` over the last axis.

    Parameters
    ----------
    x : array or list, shape ``(..., m)``
        Logits, or logarithms of weights; ``-inf`` for a weight of zero.

    Raises
    ------
    ValueError
        If an entry is NaN or ``+inf``, or all weights of a context are zero.
    """
    x = _entries(x, "x")
    if not is_traced(x):
        xp = array_namespace(x)
        where = first_index(xp.max(x, axis=-1) == -inf)
        if where is not None:
            raise ValueError(f"x must have a finite entry in every context, but all are -inf{in_context(where)}.")
    return _array.log_normalize(x)


def _entries(x: Any, name: str) -> Array:
    """Return an array of logarithms, shape ``(..., m)``."""
    x = as_float(x.to_numpy() if is_series(x) else x, name)
    if x.ndim < 1 or 0 in x.shape:
        raise ValueError(
            f"{name} must have shape (..., m) with at least one response, but its shape is {tuple(x.shape)}."
        )
    if not is_traced(x):
        where = first_index(~(x < inf))
        if where is not None:
            raise ValueError(f"{name} must hold logarithms of masses, but entry {where} is {scalar(x[where])}.")
    return x


def _log_policies(log_p: Any, log_q: Any) -> tuple[Array, Array]:
    """Return two policies as arrays of one library after checking them."""
    if is_series(log_p) and is_series(log_q):
        labels = own_names(log_p)
        log_q = by_label(log_q, "log_q", tuple(range(len(log_p))) if labels is None else labels, "log_p")
    p, q = _entries(log_p, "log_p"), _entries(log_q, "log_q")
    if isinstance(p, np.ndarray) != isinstance(q, np.ndarray):
        p, q = (like(p, q), q) if isinstance(p, np.ndarray) else (p, like(q, p))
    try:
        np.broadcast_shapes(tuple(p.shape), tuple(q.shape))
        fits = p.shape[-1] == q.shape[-1]
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"log_p has shape {tuple(p.shape)}, log_q {tuple(q.shape)}: they must be of the same responses."
        )
    for x, name in ((p, "log_p"), (q, "log_q")):
        if not is_traced(x):
            check_normalized(x, name)
    return p, q

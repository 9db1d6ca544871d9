"""Log-space primitives on the array API: one text for numpy, torch and every conforming library.

Policies travel as normalised log-probabilities. The last axis holds responses, leading axes are contexts.
The convention ``0 * (-inf) = 0`` lives in :func:`scale`; ``-inf`` against ``-inf`` counts as agreement in
:func:`log_ratio`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import inf, prod, sqrt
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj, is_jax_array
from array_api_compat import device as device_of

Array = Any
"""An array of any library that follows the array API standard."""

__all__ = ["Array", "array_namespace"]


# -- in and out of namespaces ------------------------------------------------------------------------------


def to_numpy(x: Any) -> np.ndarray:
    """Copy an array of any library to a numpy array (one transfer if it lives on another device)."""
    if isinstance(x, np.ndarray):
        return x
    if is_traced(x):  # what is differentiated has a value; what is compiled has none, and jax says so
        x = sys.modules["jax"].lax.stop_gradient(x)
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        if str(x.dtype).endswith("bfloat16"):  # numpy has no such type
            x = x.float()
    x = np.asarray(x) if hasattr(x, "__array__") or not hasattr(x, "__dlpack__") else np.from_dlpack(x)
    return x.astype(np.float32) if x.dtype.kind == "V" else x  # a bfloat16 of another library


def scalar(x: Any) -> float:
    """Return an array of one entry as a float; a gradient that it carries is left behind."""
    return float(to_numpy(x))


def owned(x: Array) -> Array:
    """Return `x` so that no later change of the caller's array reaches it: a copy, in numpy a read-only one."""
    if isinstance(x, np.ndarray):
        if not x.flags.writeable and x.base is None:
            return x
        # what is repeated by broadcasting stays so
        out = x[tuple(slice(None, 1 if step == 0 else None) for step in x.strides)].copy()
        out.flags.writeable = False
        return out if out.shape == x.shape else np.broadcast_to(out, x.shape)
    if is_jax_array(x):  # immutable
        return x
    return x.clone() if hasattr(x, "clone") else array_namespace(x).asarray(x, copy=True)  # a clone keeps its gradient


def is_traced(x: Any) -> bool:
    """Return whether jax follows operations on `x` at this moment, so that results must not be kept."""
    return is_jax_array(x) and type(x).__name__.endswith("Tracer")


def like(values: np.ndarray, example: Array, *, dtype: Any = None) -> Array:
    """Move a numpy array to the namespace and device of `example`, keeping its dtype unless `dtype` is given."""
    if isinstance(example, np.ndarray):
        return np.asarray(values, dtype=dtype)
    xp = array_namespace(example)
    return xp.asarray(np.array(values), dtype=dtype, device=device_of(example))


def kept(table: dict[Any, Any], key: Any, make: Callable[[], Any]) -> Any:
    """Return ``table[key]``, made at its first use, read-only in numpy; what jax traces is made each time."""
    if key in table:
        return table[key]
    out = make()
    parts = out if isinstance(out, tuple) else (out,)
    for x in parts:
        if isinstance(x, np.ndarray):
            x.flags.writeable = False
    if not any(is_traced(x) for x in parts):
        table[key] = out
    return out


def columns(x: Any) -> Any:
    """Return one value per context with a trailing axis, and a number unchanged."""
    return x if not is_array_api_obj(x) or x.ndim == 0 else x[..., None]


# -- arithmetic with infinities ----------------------------------------------------------------------------


def scale(weight: Any, x: Array) -> Array:
    """Return ``weight * x`` with ``0 * (-inf) = 0``."""
    xp = array_namespace(x)
    zero = xp.zeros_like(x)
    if not is_array_api_obj(weight):
        return weight * x if weight != 0 else zero
    return xp.where(weight == 0, zero, weight * xp.where(weight == 0, zero, x))


def log_ratio(log_p: Array, log_q: Array) -> Array:
    """Return ``log p - log q``, zero where both are ``-inf``."""
    xp = array_namespace(log_p, log_q)
    same = log_p == log_q
    zero = xp.zeros_like(log_p)
    return xp.where(same, zero, xp.where(same, zero, log_p) - xp.where(same, zero, log_q))


def safe_log(x: Array) -> Array:
    """Return ``log x`` with ``log 0 = -inf`` and no warning."""
    xp = array_namespace(x)
    zero = x == 0
    return xp.where(zero, xp.full_like(x, -inf), xp.log(xp.where(zero, xp.ones_like(x), x)))


def expectation(log_policy: Array, values: Array) -> Array:
    """Return the mean of `values` under the policy, shape ``(...)``."""
    xp = array_namespace(log_policy, values)
    return xp.sum(scale(xp.exp(log_policy), values), axis=-1)


# -- normalisation and distances ---------------------------------------------------------------------------


def logsumexp(x: Array, *, keepdims: bool = False) -> Array:
    """Return ``log sum exp x`` over the last axis; ``-inf`` where every entry is ``-inf``."""
    xp = array_namespace(x)
    top = xp.max(x, axis=-1, keepdims=True)
    top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
    out = top + safe_log(xp.sum(xp.exp(x - top), axis=-1, keepdims=True))
    return out if keepdims else out[..., 0]


def log_normalize(x: Array) -> Array:
    """Return log-probabilities proportional to ``exp x`` over the last axis."""
    xp = array_namespace(x)
    x = x - xp.max(x, axis=-1, keepdims=True)
    return x - xp.log(xp.sum(xp.exp(x), axis=-1, keepdims=True))


def kl(log_p: Array, log_q: Array) -> Array:
    r"""Return the Kullback-Leibler divergence :math:`KL(p\|q) = \sum p\log(p/q)` in nats, shape ``(...)``.

    The order of the arguments matters: the mean is under the first one.
    It is summed as :math:`\sum p\,(e^{-d} - 1 + d)` with :math:`d = \log p - \log q`: each term is
    non-negative, so a divergence of 1e-30 comes out as such, where the direct sum stalls at 1e-16.
    Infinite where `p` has mass and `q` has none.
    """
    xp = array_namespace(log_p, log_q)
    d = log_ratio(log_p, log_q)
    p = xp.exp(log_p)
    # Where p is far below q the term is q - p (1 - d), written so that neither factor overflows.
    small = d < -1
    zero = xp.zeros_like(d)
    near = xp.where(small, zero, d)
    terms = xp.where(small, xp.exp(log_q) + scale(p, d - 1), scale(p, xp.expm1(-near) + near))
    return xp.sum(terms, axis=-1)


def hilbert(log_p: Array, log_q: Array) -> Array:
    r"""Return the Hilbert distance :math:`\max \log(p/q) - \min \log(p/q)`, shape ``(...)`` (theory 1.3).

    Infinite where the supports differ; responses outside both supports are ignored.
    """
    xp = array_namespace(log_p, log_q)
    d = log_ratio(log_p, log_q)
    off = xp.isinf(log_p) & xp.isinf(log_q)
    low, high = xp.full_like(d, -inf), xp.full_like(d, inf)
    return xp.max(xp.where(off, low, d), axis=-1) - xp.min(xp.where(off, high, d), axis=-1)


# -- cumulative sums ---------------------------------------------------------------------------------------


def cumulative_sum(x: Array) -> Array:
    """Return the cumulative sums along the last axis with a leading zero, shape ``(..., m + 1)``.

    Summed in two levels of blocks, so that the rounding error grows with ``sqrt(m)`` and not with ``m``:
    at a million responses and beta = 0.001 the plain sum would lose five digits.
    """
    xp = array_namespace(x)
    m = x.shape[-1]
    zero = xp.zeros_like(x[..., :1])
    if m <= 64:
        return xp.concat([zero, xp.cumulative_sum(x, axis=-1)], axis=-1)
    width = int(sqrt(m)) + 1
    rows = -(-m // width)
    pad = xp.zeros((*x.shape[:-1], rows * width - m), dtype=x.dtype, device=device_of(x))
    inner = xp.cumulative_sum(xp.reshape(xp.concat([x, pad], axis=-1), (*x.shape[:-1], rows, width)), axis=-1)
    outer = xp.cumulative_sum(inner[..., -1], axis=-1)
    outer = xp.concat([zero, outer[..., :-1]], axis=-1)
    out = xp.reshape(inner + outer[..., None], (*x.shape[:-1], rows * width))
    return xp.concat([zero, out[..., :m]], axis=-1)


def log_cumulative_sum(x: Array) -> Array:
    """Return ``log`` of the cumulative sums of ``exp x`` with a leading ``-inf``, shape ``(..., m + 1)``.

    Every partial sum keeps its relative accuracy, however small. The sums are a scan by doubling, or plain sums where
    numpy can rule out underflow.
    """
    xp = array_namespace(x)
    m = x.shape[-1]
    if isinstance(x, np.ndarray) and m > 1:
        top = np.max(x, axis=-1, keepdims=True)
        if np.min(x - top) > -600:
            return top + safe_log(cumulative_sum(np.exp(x - top)))
    low = xp.full_like(x, -inf)
    shift = 1
    while shift < m:
        x = xp.logaddexp(x, xp.concat([low[..., :shift], x[..., :-shift]], axis=-1))
        shift *= 2
    return xp.concat([low[..., :1], x], axis=-1)


def broadcast(x: Array, batch: tuple[int, ...]) -> Array:
    """Broadcast the leading axes of a policy-shaped array to `batch`."""
    xp = array_namespace(x)
    return x if x.shape[:-1] == batch else xp.broadcast_to(x, (*batch, x.shape[-1]))


def batch_size(batch: tuple[int, ...]) -> int:
    """Return the number of contexts of a batch shape."""
    return prod(batch)

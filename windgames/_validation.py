"""Checks of what users pass in: what was wrong, where, and what to do, in one line."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np

from ._array import (
    Array,
    array_namespace,
    is_array_api_obj,
    like,
    logsumexp,
    to_numpy,
)


def as_float(x: Any, name: str) -> Array:
    """Return `x` as a real floating array: lists become numpy, integers and booleans become float64."""
    if not is_array_api_obj(x):
        try:
            x = np.asarray(x)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{name} cannot be read as an array: {error}") from None
    elif isinstance(x, np.generic):
        x = np.asarray(x)
    if isinstance(x, np.ndarray) and x.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold real numbers, but its dtype is {x.dtype}.")
    xp = array_namespace(x)
    if xp.isdtype(x.dtype, "real floating"):
        return x
    if xp.isdtype(x.dtype, "integral") and 0 not in x.shape and float(xp.max(xp.abs(x))) >= 2**53:
        raise ValueError(
            f"{name} holds integers of 2**53 or more, which float64 cannot tell apart: scale or rank them."
        )
    if xp.isdtype(x.dtype, "integral") or xp.isdtype(x.dtype, "bool"):
        return xp.astype(x, xp.float64)
    raise ValueError(f"{name} must hold real numbers, but its dtype is {x.dtype}.")


def number(x: Any, name: str) -> float:
    """Return `x` as a float, or say that it is not one number."""
    try:
        return float(x)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be one number, but it is {x!r}.") from None


def whole(x: Any, name: str) -> int:
    """Return `x` as a non-negative integer, or say that it is not one."""
    value = number(x, name)
    if not (0 <= value < inf and value == int(value)):
        raise ValueError(f"{name} must be a non-negative integer, but it is {x}.")
    return int(value)


def first_index(mask: Array) -> tuple[int, ...] | None:
    """Return the index of the first true entry, or None: for error messages that say where."""
    where = np.argwhere(to_numpy(mask))
    return tuple(int(i) for i in where[0]) if len(where) else None


def in_context(where: tuple[int, ...]) -> str:
    """Return " in context (2,)" for an error message, or nothing if there is one context only."""
    return f" in context {where}" if where else ""


def check_shape(x: Array, preference: Any, name: str) -> None:
    """Refuse an array whose last axis does not hold one entry per response."""
    if x.ndim < 1 or 0 in x.shape or x.shape[-1] != preference.n_responses:
        raise ValueError(
            f"{name} must have shape (..., {preference.n_responses}), one entry per response, "
            f"but its shape is {tuple(x.shape)}."
        )


def check_log_policy(log_policy: Any, preference: Any, name: str = "log_policy") -> Array:
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

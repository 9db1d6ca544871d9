"""Checks of what users pass in: an error says what was wrong, where, and what to do.

Each helper takes the value and the name of the argument and returns the value as it is to be used.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from decimal import Decimal
from math import exp, inf
from numbers import Real
from typing import Any

import numpy as np
from array_api_compat import is_torch_array
from scipy import sparse

from ._array import (
    Array,
    array_namespace,
    is_array_api_obj,
    like,
    logsumexp,
    owned,
    scalar,
    to_numpy,
)

# -- arrays of any library -----------------------------------------------------------------------------------


def read(x: Any, name: str) -> Array:
    """Return `x` as a dense array of real numbers, whatever holds them, or say why it holds none.

    Lists, exact numbers (`fractions.Fraction`, `decimal.Decimal`), nullable columns without missing values, masked
    arrays without masked entries and sparse or quantised storage have one meaning; missing entries have none.
    """
    if is_torch_array(x):
        return _read_torch(x, name)
    if is_array_api_obj(x) and not isinstance(x, np.ndarray | np.generic):
        return x
    if sparse.issparse(x):
        x = x.toarray()
    masked = np.ma.getmaskarray(x) if np.ma.isMaskedArray(x) else None
    where = None if masked is None else first_index(masked)
    if where is not None:
        raise ValueError(f"{name} must have no masked entries, but {_entry(where)} masked. Drop it, or fill it in.")
    try:
        x = np.asarray(x)  # of a subclass, too: matrices multiply otherwise
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{name} cannot be read as an array: {error}") from None
    if x.dtype.kind == "O":
        x = _from_objects(x, name)
    if x.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold real numbers, but its dtype is {x.dtype}.")
    if x.dtype.kind == "f" and not (x.dtype.isnative and x.dtype.itemsize <= 8):
        x = x.astype(x.dtype.newbyteorder("=") if x.dtype.itemsize <= 8 else float)
    return x


def _from_objects(x: np.ndarray, name: str) -> np.ndarray:
    """Return the numbers of an array of Python objects in float64."""
    out = np.empty(x.shape)
    for where, value in np.ndenumerate(x):
        number = isinstance(value, bool | np.bool_ | Real | Decimal)
        if isinstance(value, int) and abs(value) >= 2**53:
            raise ValueError(f"{name} holds {_TOO_LARGE}")
        if not number:
            raise ValueError(f"{name} must hold real numbers, but {_entry(where)} {value!r}.")
        try:
            out[where] = float(value)
        except (OverflowError, ValueError):
            raise ValueError(
                f"{name} must hold numbers that a float can hold, but {_entry(where)} {value!r}."
            ) from None
    return out


def _read_torch(x: Any, name: str) -> Any:
    """Return a tensor in strided storage, in a floating type that can be computed with."""
    if x.is_nested or x.is_meta:
        what = "a nested tensor, whose rows differ in length" if x.is_nested else "on the device 'meta', without data"
        raise ValueError(f"{name} must be an array of real numbers, but it is {what}.")
    if x.is_quantized:
        x = x.dequantize()
    if str(x.layout) != "torch.strided":
        x = x.to_dense()
    return x.float() if x.is_floating_point() and x.dtype.itemsize < 2 else x


_TOO_LARGE = "integers of 2**53 or more, which float64 cannot tell apart: scale or rank them."


def as_float(x: Any, name: str) -> Array:
    """Return `x` as a real floating array: lists become numpy, integers and booleans become float64."""
    x = read(x, name)
    xp = array_namespace(x)
    if xp.isdtype(x.dtype, "real floating"):
        return x
    if xp.isdtype(x.dtype, "integral") and first_index((to_numpy(x) >= 2**53) | (to_numpy(x) <= -(2**53))) is not None:
        raise ValueError(f"{name} holds {_TOO_LARGE}")
    if xp.isdtype(x.dtype, "integral") or xp.isdtype(x.dtype, "bool"):
        return xp.astype(x, xp.float64)
    raise ValueError(f"{name} must hold real numbers, but its dtype is {x.dtype}.")


def per_context(x: Any, name: str, *, zero: bool = False) -> Any:
    """Return a positive finite number as a float, one per context as an array; `zero` allows 0 as well."""
    array = as_float(x, name)
    if 0 in array.shape:
        raise ValueError(f"{name} must be a number or one per context, but its shape is {tuple(array.shape)}.")
    where = first_index(~(((array >= 0) if zero else (array > 0)) & (array < inf)))
    if where is not None:
        sign = "non-negative" if zero else "positive"
        raise ValueError(f"{name} must be {sign} and finite, but it is {scalar(array[where])}{in_context(where)}.")
    return scalar(array) if array.ndim == 0 else owned(array)


# -- numpy arrays of numbers ---------------------------------------------------------------------------------


def numbers(x: Any, name: str) -> np.ndarray:
    """Return `x` as a numpy array of floats."""
    x = to_numpy(read(x, name))
    if x.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold real numbers, but its dtype is {x.dtype}.")
    return x.astype(float, copy=False)


def positive(x: Any, name: str, *, zero: bool = False, infinite: bool = False) -> np.ndarray:
    """Return positive finite numbers; `zero` and `infinite` allow 0 and infinity as well."""
    x = numbers(x, name)
    where = first_index(~(((x >= 0) if zero else (x > 0)) & ((x < inf) | infinite)))
    if where is not None:
        what = ("non-negative" if zero else "positive") + ("" if infinite else " and finite")
        raise ValueError(f"{name} must be {what}, but {_entry(where)} {x[where]}.")
    return x


def fraction(x: Any, name: str) -> np.ndarray:
    """Return numbers in [0, 1]."""
    x = numbers(x, name)
    where = first_index(~((x >= 0) & (x <= 1)))
    if where is not None:
        raise ValueError(f"{name} must lie in [0, 1], but {_entry(where)} {x[where]}.")
    return x


def _entry(where: tuple[int, ...]) -> str:
    return f"entry {where} is" if where else "it is"


# -- single values -------------------------------------------------------------------------------------------


def number(x: Any, name: str) -> float:
    """Return `x` as a float, or say that it is not one number."""
    try:
        value = to_numpy(x) if is_array_api_obj(x) else x  # without its gradient
        if x is np.ma.masked or np.iscomplexobj(value):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be one number, but it is {x!r}.") from None


def finite(x: Any, name: str) -> float:
    """Return one finite number."""
    value = number(x, name)
    if not -inf < value < inf:
        raise ValueError(f"{name} must be finite, but it is {value}.")
    return value


def positive_number(x: Any, name: str, *, zero: bool = False, infinite: bool = False) -> float:
    """Return one number that `positive` accepts."""
    return float(positive(number(x, name), name, zero=zero, infinite=infinite))


def above(x: Any, name: str, low: float, *, equal: bool = False) -> float:
    """Return one finite number above `low`; `equal` allows `low` itself."""
    value = number(x, name)
    if not (low < value < inf or (equal and value == low)):
        limit = f", at least {low:g}" if equal else f" above {low:g}"
        raise ValueError(f"{name} must be a finite number{limit}, but it is {x!r}.")
    return value


def whole(x: Any, name: str) -> int:
    """Return a non-negative integer; 1e4 is one."""
    value = number(x, name)
    if not (0 <= value < inf and value == int(value)):
        raise ValueError(f"{name} must be a non-negative integer, but it is {x}.")
    return int(value)


def at_least(x: Any, name: str, low: int) -> int:
    """Return an integer that is at least `low`; a float is none."""
    if not (isinstance(x, int | np.integer) and x >= low):
        raise ValueError(f"{name} must be an integer, at least {low}, but it is {x!r}.")
    return int(x)


def one_of(x: Any, name: str, options: Sequence[str]) -> Any:
    """Return `x` if it is one of the options."""
    if x not in options:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, but it is {x!r}.")
    return x


# -- where ---------------------------------------------------------------------------------------------------


def first_index(mask: Array) -> tuple[int, ...] | None:
    """Return the index of the first true entry, or None: for error messages that say where."""
    where = np.argwhere(to_numpy(mask))
    return tuple(int(i) for i in where[0]) if len(where) else None


def in_context(where: tuple[int, ...]) -> str:
    """Return " in context (2,)" for an error message, or nothing if there is one context only."""
    return f" in context {where}" if where else ""


# -- names ---------------------------------------------------------------------------------------------------


def is_table(x: Any) -> bool:
    """Return whether `x` has named columns, as tables of pandas, polars, pyarrow and datasets have."""
    return (hasattr(type(x), "columns") or hasattr(type(x), "column_names")) and getattr(x, "ndim", 2) == 2


def is_series(x: Any) -> bool:
    """Return whether `x` is labelled like a pandas Series."""
    return _is_labelled(x) and not is_table(x)


def is_frame(x: Any) -> bool:
    """Return whether `x` is labelled like a pandas DataFrame."""
    return _is_labelled(x) and is_table(x)


def _is_labelled(x: Any) -> bool:
    # of the class: a Series has attributes by its labels, too; other libraries have a method `index`
    return hasattr(x, "to_numpy") and not callable(getattr(type(x), "index", len))


def check_names(names: Any, m: int) -> tuple[Hashable, ...]:
    """Return names of `m` responses as a tuple."""
    if isinstance(names, str | bytes):
        raise ValueError(f"names must be a sequence, one for each response, but it is the text {names!r}.")
    try:
        names = tuple(names.tolist() if hasattr(names, "tolist") else names)
        different = len(set(names))
    except TypeError:
        raise ValueError(f"names must be a sequence of labels, one for each response, but it is {names!r}.") from None
    if len(names) != m:
        raise ValueError(f"There are {m} responses, but names has {len(names)} entries.")
    if different < m:
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"names must differ, but {twice!r} is there more than once.")
    return names


def by_label(x: Any, name: str, names: tuple[Hashable, ...] | None, owner: str = "the preference") -> Any:
    """Return the values of a Series, or of the rows of a DataFrame, in the order of `names`; other data as it is.

    Labels 0, 1, 2, ... are positions, unless `names` are these numbers in another order. Other labels are those of
    `names`, all of them and in any order, or refused.
    """
    if not is_series(x) and not is_frame(x):
        return x
    labels, values = own_names(x), x.to_numpy()
    if labels is None and names is not None and set(names) == set(range(len(names))):
        labels = tuple(range(values.shape[-1]))
    if labels is None or labels == names:
        return values
    if names is None:
        raise ValueError(
            f"{name} has labels, such as {labels[0]!r}, but the preference has no names to match them: pass names to "
            f"the preference, or {name} as an array in its order."
        )
    check_names(labels, len(labels))
    position = {label: k for k, label in enumerate(labels)}
    for these, those, where in ((names, position, f"{name} has no entry for"), (labels, set(names), f"{name} holds")):
        lost = next((label for label in these if label not in those), None)
        if lost is not None:
            raise ValueError(f"{where} {lost!r}: its labels must be the names of {owner}.")
    return values[..., [position[label] for label in names]]


def own_names(x: Any) -> tuple[Hashable, ...] | None:
    """Return the labels of a Series or of the columns of a DataFrame; None if there are none but 0, 1, 2, ..."""
    if not is_series(x) and not is_frame(x):
        return None
    labels = tuple((x.columns if is_frame(x) else x.index).tolist())
    return None if labels == tuple(range(len(labels))) else labels


# -- policies ------------------------------------------------------------------------------------------------


def check_shape(x: Array, preference: Any, name: str) -> None:
    """Refuse an array whose last axis does not hold one entry per response."""
    if x.ndim < 1 or 0 in x.shape or x.shape[-1] != preference.n_responses:
        raise ValueError(
            f"{name} must have shape (..., {preference.n_responses}), one entry per response, "
            f"but its shape is {tuple(x.shape)}."
        )


def check_log_policy(log_policy: Any, preference: Any, name: str = "log_policy") -> Array:
    """Return normalised log-probabilities as an array of the preference's library, or say what is wrong."""
    log_policy = by_label(log_policy, name, getattr(preference, "names", None))
    x = read(log_policy, name) if is_array_api_obj(log_policy) else as_float(log_policy, name)
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
        raise ValueError(f"{name} must hold log-probabilities, but entry {where} is {scalar(x[where])}.")
    check_normalized(x, name)
    return x


def check_normalized(x: Array, name: str) -> None:
    """Refuse log-probabilities that are not normalised, up to the rounding of their dtype."""
    xp = array_namespace(x)
    total = logsumexp(xp.astype(x, xp.float64))
    digits = 1e-8 if x.dtype == xp.float64 else max(1e-3, 4 * float(xp.finfo(x.dtype).eps))
    where = first_index(~(xp.abs(total) <= digits))
    if where is not None:
        raise ValueError(
            f"{name} must be normalised log-probabilities, but the probabilities sum to "
            f"{exp(scalar(total[where])):.12g}{in_context(where)}. "
            f"Probabilities go through log first, logits through x - logsumexp(x)."
        )

"""Tables for a terminal and a notebook, and optional libraries that are imported where they are needed."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from html import escape
from importlib import import_module
from typing import Any

import numpy as np

from ._array import to_numpy

FEW = 8
"""Largest number of responses up to which policies and matrices are shown entry by entry."""

SHOWN = 6
"""Largest number of responses up to which preferences and games are printed as the call that makes them."""


def text_table(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """Return a title and one line per row, names padded to one width."""
    width = max(len(name) for name, _ in rows)
    return "\n".join([title, *(f"  {name:<{width}}  {text}" for name, text in rows)])


def html_table(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """Return the same table in HTML."""
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in rows)
    return f"<table><caption>{escape(title)}</caption>{cells}</table>"


def html_matrix(title: str, matrix: np.ndarray, names: Sequence[Hashable] | None = None) -> str:
    """Return a matrix with the names, or numbers, of its rows and columns in HTML."""
    labels = [escape(str(name)) for name in (range(len(matrix)) if names is None else names)]
    head = "".join(f"<th>{name}</th>" for name in labels)
    rows = zip(labels, matrix, strict=True)
    body = "".join(f"<tr><th>{name}</th>{''.join(f'<td>{x:.3g}</td>' for x in row)}</tr>" for name, row in rows)
    return f"<table><caption>{escape(title)}</caption><tr><th></th>{head}</tr>{body}</table>"


def as_arguments(data: Mapping[str, Any]) -> str:
    """Return the source text of keyword arguments, with all digits."""
    values = {k: x if isinstance(x, str) else to_numpy(x).tolist() for k, x in data.items()}
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


def probabilities(policy: np.ndarray, names: Sequence[Hashable] | None = None) -> str:
    """Return the entries of a policy with three significant digits or more; with names the largest first."""

    def digits(x: float) -> str:
        return f"{x:.3g}" if x < 0.1 else f"{x:.3f}"

    if names is None:
        return "  ".join(map(digits, policy))
    largest = [k for k in np.argsort(-policy, kind="stable")[:FEW] if policy[k] > 0]
    rest = float(policy.sum() - policy[largest].sum())
    more = f"  others {digits(max(rest, 0.0))}" if len(largest) < np.count_nonzero(policy) else ""
    return "  ".join(f"{names[k]} {digits(policy[k])}" for k in largest) + more


def listed(names: Sequence[Hashable], most: int = 5) -> str:
    """Return names on one line, cut after the first `most`."""
    few = ", ".join(map(str, names[:most]))
    return few if len(names) <= most else f"{few}, ..."


def optional(module: str, purpose: str, extra: str) -> Any:
    """Import an optional dependency, or raise an ImportError that names the extra to install."""
    try:
        return import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise ImportError(
            f"{purpose} needs {library}: install windgames[{extra}], in a checkout by pip install '.[{extra}]'."
        ) from error

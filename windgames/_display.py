"""Tables for a terminal and a notebook, and optional libraries that are imported where they are needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib import import_module
from typing import Any

import numpy as np

from ._array import to_numpy

FEW = 8
"""Up to this many responses policies and matrices are shown entry by entry."""

SHOWN = 6
"""Up to this many responses a game is printed as the call that makes it."""


def text_table(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """Return a title and one line per row, names padded to one width."""
    width = max(len(name) for name, _ in rows)
    return "\n".join([title, *(f"  {name:<{width}}  {text}" for name, text in rows)])


def html_table(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """Return the same table in HTML."""
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in rows)
    return f"<table><caption>{escape(title)}</caption>{cells}</table>"


def html_matrix(title: str, matrix: np.ndarray) -> str:
    """Return a matrix with the numbers of its rows and columns in HTML."""
    head = "".join(f"<th>{j}</th>" for j in range(matrix.shape[-1]))
    body = "".join(f"<tr><th>{i}</th>{''.join(f'<td>{x:.3g}</td>' for x in row)}</tr>" for i, row in enumerate(matrix))
    return f"<table><caption>{escape(title)}</caption><tr><th></th>{head}</tr>{body}</table>"


def as_arguments(data: Mapping[str, Any]) -> str:
    """Return keyword arguments as they are written in a call, with all digits."""
    values = {k: x if isinstance(x, str) else to_numpy(x).tolist() for k, x in data.items()}
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


def probabilities(policy: np.ndarray) -> str:
    """Return the entries of a policy with three significant digits or more."""
    return "  ".join(f"{x:.3g}" if x < 0.1 else f"{x:.3f}" for x in policy)


def optional(module: str, purpose: str, extra: str) -> Any:
    """Import a library that is no dependency, or say which extra has it."""
    try:
        return import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise ImportError(f"{purpose} needs {library}: install windgames[{extra}].") from error

"""Settings from flags and from files."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import tyro
import yaml

T = TypeVar("T")


def build(kind: type[T], values: Mapping[str, Any], where: str = "", missing: Any = MISSING) -> T:
    """Return a configuration from the nested values of a file.

    Parameters
    ----------
    kind : dataclass
    values : mapping
    where : str
        Name of the part, for errors.
    missing : object
        Stands for a value that is required and not there; by default this is an error.

    Raises
    ------
    ValueError
        If a name is unknown, or a required one is missing.
    """
    known, hints = {f.name: f for f in fields(kind)}, get_type_hints(kind)  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise ValueError(f"The configuration has no {where + name!r}; {where or 'it'} has {', '.join(known)}.")
    given: dict[str, Any] = {}
    for name, f in known.items():
        hint, optional = hints[name], f.default is not MISSING or f.default_factory is not MISSING
        if is_dataclass(hint) and (name in values or (not optional and missing is not MISSING)):
            part = values.get(name) or {}
            if not isinstance(part, Mapping):
                raise ValueError(f"{where + name!r} has the parts {', '.join(x.name for x in fields(hint))}.")
            given[name] = build(hint, part, f"{where}{name}.", missing)  # type: ignore[arg-type]
        elif name in values:
            given[name] = _value(values[name], hint)
        elif not optional:
            if missing is MISSING:
                raise ValueError(f"The configuration lacks {where + name!r}.")
            given[name] = missing
    return kind(**given)


def _value(value: Any, hint: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str) and float in (hint, *get_args(hint)):
        return float(value)  # YAML takes 1e-5, without a point, for a text
    return Path(value) if hint is Path else value


def read_file(path: Path) -> dict[str, Any]:
    """Return what a YAML or JSON file holds."""
    if not path.exists():
        raise ValueError(f"There is no configuration file {str(path)!r}.")
    values = yaml.safe_load(path.read_text())  # JSON is YAML
    if not isinstance(values, dict):
        raise ValueError(f"{str(path)!r} must hold names and values, but it holds a {type(values).__name__}.")
    return values


def plain(config: Any) -> dict[str, Any]:
    """Return a configuration as what JSON can hold."""
    return json.loads(json.dumps(asdict(config), default=str))


def settings(kind: type[T], arguments: Sequence[str], command: str = "") -> T:
    """Return a command's configuration from flags, over those of the file that ``--config`` names."""
    rest = list(arguments)
    given: dict[str, Any] = {}
    for i, word in enumerate(rest):
        name, equals, value = word.partition("=")
        if name == "--config":
            if not equals and i + 1 == len(rest):
                raise ValueError("--config needs a file.")
            path = Path(value if equals else rest[i + 1])
            del rest[i : i + (1 if equals else 2)]
            given["default"] = build(kind, read_file(path), missing=tyro.MISSING)
            break
    told = f"{inspect.getdoc(kind)}\n\n--config FILE reads settings from YAML or JSON; flags win over it."
    return tyro.cli(kind, args=rest, prog=f"python -m windlm {command}".strip(), description=told, **given)

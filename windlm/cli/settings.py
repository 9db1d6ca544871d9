"""Settings of a command from flags and from YAML or JSON files."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
import yaml

T = TypeVar("T")
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
"""What the error messages call a type."""


def settings(kind: type[T], arguments: Sequence[str], command: str = "") -> T:
    """Return the settings of a command from flags and, where a flag is not given, from the file of ``--config``.

    Raises
    ------
    ValueError
        If the file cannot be read, or a value is out of range; the setting is named. Unknown flags and values of the
        wrong type end the program with tyro's message.
    """
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
    description = f"{inspect.getdoc(kind)}\n\n--config FILE reads settings from YAML or JSON; flags take precedence."
    return tyro.cli(kind, args=rest, prog=f"windlm {command}".strip(), description=description, **given)


def build(kind: type[T], values: Mapping[str, Any], where: str = "", missing: Any = MISSING) -> T:
    """Return settings from the nested values of a file.

    Parameters
    ----------
    kind : dataclass
    values : mapping
    where : str
        Prefix of the names in error messages.
    missing : object
        Placeholder for required values that are absent; by default their absence is an error.

    Raises
    ------
    ValueError
        If a name is unknown, a required one is absent, or a value has the wrong type.
    """
    known, hints = {f.name: f for f in fields(kind)}, get_type_hints(kind)  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise ValueError(f"The configuration has no {where + str(name)!r}; {where or 'it'} has {', '.join(known)}.")
    given: dict[str, Any] = {}
    for name, f in known.items():
        hint, optional = hints[name], f.default is not MISSING or f.default_factory is not MISSING
        if is_dataclass(hint) and (name in values or (not optional and missing is not MISSING)):
            part = values.get(name) or {}
            if not isinstance(part, Mapping):
                raise ValueError(f"{where + name!r} has the parts {', '.join(x.name for x in fields(hint))}.")
            given[name] = build(hint, part, f"{where}{name}.", missing)  # type: ignore[arg-type]
        elif name in values:
            given[name] = convert(values[name], hint, where + name)
        elif not optional:
            if missing is MISSING:
                raise ValueError(f"The configuration lacks {where + name!r}.")
            given[name] = missing
    return kind(**given)


def convert(value: Any, hint: Any, name: str) -> Any:
    """Return a value of a file as the type that the setting has.

    Only conversions with one meaning are made: lists to tuples, texts to paths, and whole numbers and texts such as
    1e-5, which YAML does not read as a number, to floats.

    Raises
    ------
    ValueError
        If the value has another type; the setting is named.
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):  # X | None
        if value is None:
            return None
        (hint,) = (part for part in parts if part is not type(None))
        return convert(value, hint, name)
    if origin is Literal:
        if value not in parts:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, parts))}, but it is {value!r}.")
        return value
    if origin is tuple:
        many = parts[-1] is ...
        if not isinstance(value, list | tuple) or not (many or len(value) == len(parts)):
            count = "" if many else f"{len(parts)} "
            raise ValueError(f"{name} must be a list of {count}values, such as [{value!r}], but it is {value!r}.")
        hints = [parts[0]] * len(value) if many else parts
        return tuple(convert(x, h, f"{name}[{i}]") for i, (x, h) in enumerate(zip(value, hints, strict=True)))
    if hint is float and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    if hint is Path and isinstance(value, str):
        return Path(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{name} must be {WORDS.get(hint, hint.__name__)}, but it is {value!r}.")
    return value


def read_file(path: Path) -> dict[str, Any]:
    """Return the contents of a YAML or JSON file of settings.

    Raises
    ------
    ValueError
        If there is no such file, it cannot be parsed, or it does not hold names and values.
    """
    if not path.is_file():
        raise ValueError(f"There is no configuration file {str(path)!r}.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8-sig"))  # JSON is YAML
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        message = " ".join(str(error).split())
        raise ValueError(f"{str(path)!r} is neither YAML nor JSON: {message}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{str(path)!r} must hold names and values, but it holds a {type(values).__name__}.")
    return values


def plain(config: Any) -> dict[str, Any]:
    """Return settings as nested dicts of JSON values."""
    return json.loads(json.dumps(asdict(config), default=str))

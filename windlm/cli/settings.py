"""Settings of a command from flags and from YAML or JSON files."""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import MISSING, asdict, fields, is_dataclass
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
import yaml

T = TypeVar("T")
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
"""What the error messages call a type."""
RECIPES = Path(__file__).parent.parent / "recipes"
"""Folder of the configurations that come with windlm."""


def settings(kind: type[T], arguments: Sequence[str], command: str = "") -> T:
    """Return the settings of a command from flags and, where a flag is not given, from the file of ``--config``.

    A setting whose type is a union of dataclasses, such as ``method``, is that of the name given by its flag
    (``--method.name sppo``) or in the file. A name given by a flag replaces all that the file says of that setting.

    Raises
    ------
    ValueError
        If the file cannot be read, a flag is unknown or not used by what was chosen, or a value has the wrong type or
        is out of range; the setting is named.
    """
    rest, values = list(arguments), {}
    for i, word in enumerate(rest):
        name, equals, value = word.partition("=")
        if name == "--config":
            if not equals and i + 1 == len(rest):
                raise ValueError("--config needs a file.")
            values = read_file(recipe(value if equals else rest[i + 1]))
            del rest[i : i + (1 if equals else 2)]
            break
    values |= chosen(kind, rest, values)
    default = build(kind, values, missing=tyro.MISSING)
    check_flags(rest, default)
    description = (
        f"{inspect.getdoc(kind)}\n\n--config FILE reads settings from YAML or JSON, --config recipe:NAME those that "
        f"come with windlm ({', '.join(sorted(path.stem for path in RECIPES.glob('*.yaml')))}); flags take precedence."
    )
    told = StringIO()
    try:
        with redirect_stderr(told):
            return tyro.cli(
                kind,
                args=rest,
                prog=f"windlm {command}".strip(),
                description=description,
                default=default,
                config=(tyro.conf.AvoidSubcommands,),
            )
    except SystemExit as stop:
        if stop.code in (None, 0):
            raise
        raise ValueError(first_message(told.getvalue())) from None


# -- settings that depend on a choice --------------------------------------------------------------------------


def members(hint: Any) -> tuple[Any, ...]:
    """Return the dataclasses that a setting is one of; none if its type is no union of dataclasses."""
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ()
    return parts if parts and all(map(is_dataclass, parts)) else ()


def tag(kinds: Sequence[Any]) -> tuple[str, dict[str, Any]]:
    """Return the field that tells dataclasses apart, a `Literal` of other names in each, and the class of each name."""
    hints = [get_type_hints(kind) for kind in kinds]
    for name in (f.name for f in fields(kinds[0])):
        if all(get_origin(h.get(name)) is Literal for h in hints):
            named = [(word, kind) for h, kind in zip(hints, kinds, strict=True) for word in get_args(h[name])]
            if len(dict(named)) == len(named):
                return name, dict(named)
    raise TypeError(f"{', '.join(kind.__name__ for kind in kinds)} have no field that tells them apart.")


def member(hint: Any, values: Mapping[str, Any], where: str) -> Any:
    """Return the dataclass of a setting: the one that the values name, the first of a union if they name none.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    if not members(hint):
        return hint
    name, named = tag(members(hint))
    if name not in values:
        return members(hint)[0]
    return named[known(values[name], named, f"{where}{name}")]


def known(word: Any, words: Sequence[str] | Mapping[str, Any], what: str) -> Any:
    """Return a word that is among the known ones; else raise ValueError, with the nearest if one is near."""
    if isinstance(word, str) and word in words:
        return word
    raise ValueError(f"{what} must be one of {', '.join(words)}, but it is {word!r}.{near(str(word), words)}")


def near(word: str, words: Iterable[str]) -> str:
    """Return a question for the nearest of the words, empty if none is near."""
    nearest = get_close_matches(word, list(words), 1)
    return f" Did you mean {nearest[0]}?" if nearest else ""


def chosen(kind: Any, arguments: Sequence[str], values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the choices that flags make, as the values of a file; a choice drops what the file says of another."""
    made: dict[str, dict[str, Any]] = {}
    for part, hint in get_type_hints(kind).items():
        if not members(hint):
            continue
        name, named = tag(members(hint))
        flag = f"--{part}.{name}"
        for i, word in enumerate(arguments):
            before, equals, after = word.partition("=")
            if before.replace("_", "-") != flag.replace("_", "-") or (not equals and i + 1 == len(arguments)):
                continue
            choice = known(after if equals else arguments[i + 1], named, flag)
            there: Any = values.get(part)
            same = isinstance(there, Mapping) and named.get(there.get(name, "")) is named[choice]
            made[part] = {**(there if same else {}), name: choice}
    return made


def flags(config: Any, prefix: str = "--") -> Iterator[str]:
    """Yield the flags of settings."""
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            yield from flags(value, f"{prefix}{f.name}.".replace("_", "-"))
        else:
            yield f"{prefix}{f.name}".replace("_", "-")
            if isinstance(value, bool):
                yield f"{prefix}no-{f.name}".replace("_", "-")


def check_flags(arguments: Sequence[str], config: Any) -> None:
    """Raise ValueError if a flag is not one of these settings; it says which are, or which is meant."""
    ours = list(flags(config))
    for word in arguments:
        flag = word.partition("=")[0].replace("_", "-")
        if not re.match(r"--[a-z]", flag) or flag in (*ours, "--help"):
            continue
        part, _, setting = flag[2:].partition(".")
        hint = get_type_hints(type(config)).get(part)
        if members(hint):
            mine = [x.removeprefix(f"--{part}.") for x in ours if x.startswith(f"--{part}.")]
            choice = getattr(getattr(config, part), tag(members(hint))[0])
            raise ValueError(f"{part} {choice} does not use {setting}; it uses {', '.join(mine)}.{near(setting, mine)}")
        raise ValueError(f"There is no flag {flag}.{near(flag, ours)} --help shows all.")


def first_message(box: str) -> str:
    """Return the first part of a framed message of tyro as one line."""
    lines = [line.strip("\u2502|+ ") for line in box.splitlines()]
    inner: list[str] = []
    for line in lines:
        if line.startswith("\u2500") and inner:
            break
        if line and not line.startswith(("\u256d", "\u2570", "\u2500")):
            inner.append(line)
    return " ".join(" ".join(inner).split()) or "The flags cannot be read: see --help."


# -- files -----------------------------------------------------------------------------------------------------


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
    names, hints = {f.name: f for f in fields(kind)}, get_type_hints(kind)  # type: ignore[arg-type]
    for name in values:
        if name not in names:
            raise ValueError(
                f"The configuration has no {where + str(name)!r}; {where or 'it'} has {', '.join(names)}."
                f"{near(str(name), names)}"
            )
    given: dict[str, Any] = {}
    for name, f in names.items():
        hint, optional = hints[name], f.default is not MISSING or f.default_factory is not MISSING
        parts = is_dataclass(hint) or members(hint)
        if parts and (name in values or (not optional and missing is not MISSING)):
            part = values.get(name) or {}
            if not isinstance(part, Mapping):
                first = members(hint)[0] if members(hint) else hint
                raise ValueError(f"{where + name!r} has the parts {', '.join(x.name for x in fields(first))}.")
            given[name] = build(member(hint, part, f"{where}{name}."), part, f"{where}{name}.", missing)
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
    if origin in (Union, types.UnionType):  # X | None, or a text | a list of texts
        if value is None and type(None) in parts:
            return None
        *others, hint = (part for part in parts if part is not type(None))
        return value if str in others and isinstance(value, str) else convert(value, hint, name)
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


def recipe(name: str) -> Path:
    """Return the path of a configuration: a file, or ``recipe:NAME`` for one that comes with windlm.

    Raises
    ------
    ValueError
        If windlm has no recipe of that name; those that it has are named.
    """
    if not name.startswith("recipe:"):
        return Path(name)
    names = {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}
    return names[known(name.removeprefix("recipe:"), names, "The recipe")]


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

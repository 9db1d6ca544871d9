"""Rules of the code base that no linter has: modules use only the public names of each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(path for folder in ("windgames", "windlm", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
PROJECT = {"windgames", "windlm", *(path.stem for path in (ROOT / "benchmarks").glob("*.py"))}
EXEMPT_MODULES = {"_array", "_validation"}
"""Modules whose own name says that they are internal to their folder; the names in them are public to it."""
EXEMPT_ATTRIBUTES = {"_repr_html_", "_asdict", "_no_split_modules"}
"""Names with an underscore that others prescribe: notebooks, namedtuple, transformers."""


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def private_names_of_others(tree):
    """Yield line and text of each private name of another module of the project that a module uses.

    Exempt are attributes of `self`, `cls` and `super()`, which a subclass shares with its base, and private attributes
    that the module itself defines, whoever the object is.
    """
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] in PROJECT):
            for alias in node.names:
                if is_private(alias.name) and alias.name not in EXEMPT_MODULES:
                    yield node.lineno, f"from {node.module} import {alias.name}"
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            of = node.value
            inherited = isinstance(of, ast.Name) and of.id in ("self", "cls")
            inherited |= isinstance(of, ast.Call) and isinstance(of.func, ast.Name) and of.func.id == "super"
            if not inherited and node.attr not in own | EXEMPT_ATTRIBUTES | EXEMPT_MODULES:
                yield node.lineno, ast.unparse(node)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_uses_private_names_of_another(path):
    found = list(private_names_of_others(ast.parse(path.read_text())))
    assert not found, "\n".join(f"{path.relative_to(ROOT)}:{line}: {text}" for line, text in found)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("from windgames.equilibria import _secret", 1),
        ("from ._array import kl, _secret", 1),
        ("from . import _array", 0),
        ("from numpy import _secret", 0),
        ("import windgames\nwindgames.games._secret()", 1),
        ("def f(preference): return preference._secret", 1),
        ("class A(B):\n def f(self): return self._inherited + super()._inherited", 0),
        ("class A:\n def _own(self): return 1\n def f(self, other): return other._own()", 0),
    ],
)
def test_the_search_finds_what_it_is_for(text, count):
    assert len(list(private_names_of_others(ast.parse(text)))) == count

"""The list of deliberate errors is in order; whether the tests notice them is what ``make mutations`` finds out."""

import ast

import mutations
import pytest

ERRORS = mutations.load()


def test_the_list_is_long_and_has_no_id_twice():
    assert len(ERRORS) >= 100
    assert len({m.id for m in ERRORS}) == len(ERRORS)
    assert {m.package for m in ERRORS} == set(mutations.PACKAGES)


def test_every_text_occurs_once_and_every_error_is_python():
    assert all(m.find != m.replace for m in ERRORS)
    faults = []
    for m in ERRORS:
        try:
            ast.parse(m.changed(mutations.ROOT))
        except (LookupError, SyntaxError) as error:
            faults.append(f"{m.id}: {error}")
    assert not faults, "\n".join(faults)


def test_every_test_that_is_named_is_there():
    names = {}
    for test in {test for m in ERRORS for test in m.tests}:
        path, _, function = test.partition("::")
        if path not in names:
            tree = ast.parse((mutations.ROOT / path).read_text(encoding="utf-8"))
            names[path] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert not function or function.partition("[")[0] in names[path], test
    assert all(m.tests for m in ERRORS)


def test_a_text_that_is_gone_or_there_twice_is_named():
    def error(text):
        return mutations.Mutation("x", "windgames", text, "", "", ())

    with pytest.raises(LookupError, match=r"x: .* is in: nowhere"):
        error("no such text anywhere").where(mutations.ROOT)
    with pytest.raises(LookupError, match=r"x: .* must occur once in windgames, but is in: windgames/"):
        error("import").where(mutations.ROOT)

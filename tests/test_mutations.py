"""The list of deliberate errors is in order; whether tests notice them is what ``make mutations`` finds out."""

import ast

import mutations
import pytest

ERRORS = mutations.load()


def test_the_list_is_long_and_has_no_id_twice():
    assert len(ERRORS) >= 45
    assert len({m.id for m in ERRORS}) == len(ERRORS)


@pytest.mark.parametrize("mutation", ERRORS, ids=lambda m: m.id)
def test_its_text_occurs_once_and_the_error_is_python(mutation):
    assert mutation.package in mutations.PACKAGES
    assert mutation.find != mutation.replace
    changed = mutation.changed()  # raises if the text is not there, or there twice
    before = (mutations.ROOT / mutation.where()).read_text(encoding="utf-8")
    assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(before))  # more than a comment


@pytest.mark.parametrize("mutation", ERRORS, ids=lambda m: m.id)
def test_its_tests_are_there(mutation):
    assert mutation.tests
    for name in mutation.tests:
        path, _, function = name.partition("::")
        found = ast.walk(ast.parse((mutations.ROOT / path).read_text(encoding="utf-8")))
        assert not function or function.partition("[")[0].rpartition("::")[2] in {getattr(x, "name", "") for x in found}


def test_a_text_that_is_gone_or_there_twice_is_named():
    gone = mutations.Mutation("gone", "windgames", "no such text anywhere", "", "", ())
    with pytest.raises(LookupError, match=r"gone: .* nowhere"):
        gone.where()
    twice = mutations.Mutation("twice", "windgames", "import", "", "", ())
    with pytest.raises(LookupError, match="twice: .* must occur once"):
        twice.where()

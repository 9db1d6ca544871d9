"""`windgames/theory.md` renders: no formula is changed by Markdown, every link and every citation leads somewhere."""

import re
from collections import Counter
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

import windgames as wg

ROOT = Path(__file__).parent.parent
THEORY = (ROOT / "windgames" / "theory.md").read_text()
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$]+)\$", flags=re.S)
HEADING = re.compile(r"^#+ (\d)(?:\.(\d+))?\.? ", flags=re.M)
CITATION = re.compile(r"[Tt]heor(?:y|em)[\s#]+(\d\.\d+(?:(?:,? and|,? to|,)[\s#]+\d\.\d+)*)")


def written(text):
    """Return the formulas between dollars, as the author wrote them."""
    return [(m.group(1) or m.group(2)).strip() for m in FORMULA.finditer(text)]


def as_mathematics(text):
    """Return the formulas that a renderer with dollar mathematics finds."""
    parser = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin, allow_space=False, allow_digits=False)
    tokens = [t for token in parser.parse(text) for t in (token, *(token.children or ()))]
    return [t.content.strip() for t in tokens if t.type in ("math_inline", "math_block", "math_inline_double")]


def as_text(text):
    """Return the formulas that plain CommonMark, which knows no dollars, leaves as they are.

    Some renderers, GitHub among them, look for dollars in what CommonMark has made of the text: by then a backslash
    before punctuation is gone and a pair of ``*`` or ``_`` has become emphasis.
    """
    found = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        run = ""
        for child in token.children or ():
            whole = child.type in ("text", "softbreak")
            run += ("\n" if child.type == "softbreak" else child.content) if whole else "\0"
        found += [f for f in written(run) if "\0" not in f]
    return found


def eaten(text):
    """Return the formulas that one of the two kinds of renderer changes or misses."""
    return [f for found in (as_mathematics(text), as_text(text)) for f in (Counter(written(text)) - Counter(found))]


@pytest.mark.parametrize(
    "text",
    [
        r"$KL(p\|q)$",
        r"$a\,b$",
        r"$\{x\}$",
        r"$h\;(p)$",
        r"$x^*_i$ and $y^*$",
        r"$(x)_i$ and $(y)_{j}$",
        r"$ x$",
        r"2$x$",
        r"$a<b c>d$",
        "$x$ and\n\n$$\na\n- b\n$$",
    ],
)
def test_a_changed_formula_is_noticed(text):
    assert eaten(text)


def test_no_formula_is_eaten():
    assert len(written(THEORY)) > 500
    assert eaten(THEORY) == []


def test_formulas_are_what_github_accepts():
    """Set off by spaces or punctuation, balanced, and without macros that GitHub refuses."""
    assert THEORY.count("$") == sum(m.group(0).count("$") for m in FORMULA.finditer(THEORY))
    for match in FORMULA.finditer(THEORY):
        formula = match.group(0)
        assert not re.search(r"\\(operatorname|def|newcommand|require|href|class|style|unicode)(?![a-zA-Z])", formula)
        assert formula.count("{") == formula.count("}"), formula
        assert len(re.findall(r"\\left(?![a-z])", formula)) == len(re.findall(r"\\right(?![a-z])", formula)), formula
        before, after = THEORY[match.start() - 1], THEORY[match.end()]
        assert before in ' \n("[', (before, formula)
        assert after in " \n.,;:)]-\"'?", (formula, after)
        if match.group(1):  # a paragraph of its own
            assert re.fullmatch(r"\$\$\n.+\n *\$\$", formula, flags=re.S), formula
            assert re.search(r"\n\n *\Z", THEORY[: match.start()]), formula
            assert after == "\n", formula
        else:
            assert "\n" not in formula, formula


def test_contents_and_anchors():
    """Every numbered heading has an anchor right above it and a line in the contents, and no link is dead."""
    anchors = re.findall(r'<a id="([\w-]+)"></a>', THEORY)
    assert len(anchors) == len(set(anchors))
    numbered = [f"thm-{a}-{b}" if b else f"section-{a}" for a, b in HEADING.findall(THEORY)]
    assert len(numbered) > 50
    above = re.findall(r'<a id="([\w-]+)"></a>\n\n#+ \d', THEORY)
    assert above == numbered
    links = re.findall(r"\]\(#([\w-]+)\)", THEORY)
    assert [link for link in links if link in numbered] == numbered
    assert set(links) <= set(anchors), sorted(set(links) - set(anchors))
    for file in (*ROOT.glob("*.md"), *ROOT.glob("[a-z]*/*.md"), *ROOT.glob("[a-z]*/*/*.md")):
        for link in re.findall(r"theory\.md#([\w-]+)", file.read_text()):
            assert link in anchors, (file.name, link)


def test_numbers_ascend():
    """Numbers are stable: a new statement goes to the end of its section."""
    numbers = [(int(a), int(b or 0)) for a, b in HEADING.findall(THEORY)]
    for one, two in pairwise(numbers):
        assert two in ((one[0], one[1] + 1), (one[0] + 1, 0)), (one, two)


def test_every_citation_exists():
    stated = {f"{a}.{b}" for a, b in HEADING.findall(THEORY) if b}
    folders = ("windgames", "windlm", "benchmarks", "figures", "tests")
    files = [f for folder in folders for f in (ROOT / folder).rglob("*.py")] + [ROOT / "README.md"]
    cited = {}
    for file in files:
        for group in CITATION.findall(file.read_text()):
            cited |= dict.fromkeys(re.findall(r"\d\.\d+", group), file.name)
    assert len(cited) > 30
    assert {n: f for n, f in cited.items() if n not in stated} == {}


def test_every_reference_inside_exists():
    stated = {f"{a}.{b}" for a, b in HEADING.findall(THEORY) if b}
    cited = set(re.findall(r"(?<![\d.])[1-9]\.\d+(?!\d)", FORMULA.sub("", HEADING.sub("", THEORY))))
    assert len(cited) > 25
    assert cited <= stated, sorted(cited - stated)


# -- the table of claims -----------------------------------------------------------------------------------------


def claims():
    """Return the rows of the table of claims: numbers, functions, tests, figures."""
    text = (ROOT / "windgames" / "README.md").read_text()
    for line in text[text.index("| statement | function") :].splitlines()[2:]:
        statement, *cells = re.split(r" \|(?: |$)", line.removeprefix("| "))
        numbers = re.findall(r"\[(\d\.\d+)\]\(theory\.md#thm-(\d-\d+)\)( to)?", statement)
        yield numbers, *(re.findall(r"`([^`]+)`", cell) for cell in cells[:3])


def test_every_statement_is_a_claim():
    listed = set()
    for numbers, *_ in claims():
        for i, (number, anchor, to) in enumerate(numbers):
            assert anchor == number.replace(".", "-")
            listed.add(number)
            if to:
                section, first, last = number[0], int(number[2:]), int(numbers[i + 1][0][2:])
                listed |= {f"{section}.{k}" for k in range(first, last)}
    assert listed == {f"{a}.{b}" for a, b in HEADING.findall(THEORY) if b}


def test_every_claim_has_a_function_and_a_test():
    count = 0
    for numbers, functions, tests, figures in claims():
        assert functions, numbers
        assert tests, numbers
        for name in functions:
            if name.startswith("benchmarks/"):
                assert (ROOT / name).exists(), name
                continue
            if name.startswith("windlm."):
                pytest.importorskip("torch")
            rest = name.removeprefix("windlm.")
            here = import_module("windlm") if rest != name else wg
            if rest.count(".") == 0 and hasattr(wg.Game, rest):  # "a game's `gap`"
                here = wg.Game
            for part in rest.split("."):
                assert hasattr(here, part), name
                here = getattr(here, part)
        for name in tests:
            assert (ROOT / "tests" / f"{name}.py").exists(), name
        for name in figures:
            assert any((ROOT / folder / name).exists() for folder in ("figures", "benchmarks/results")), name
        count += 1
    assert count > 50


def test_every_statement_is_cited_by_a_test_of_its_claim():
    """The definitions 1.1 and 1.4 are used, not tested."""
    cited = set()
    for numbers, _, tests, _ in claims():
        text = " ".join((ROOT / "tests" / f"{name}.py").read_text() for name in tests)
        found = {n for group in re.findall(r"[Tt]heory ([\d., andto]+)", text) for n in re.findall(r"\d\.\d+", group)}
        for first, last in re.findall(r"[Tt]heory (\d\.\d+) to (\d\.\d+)", text):
            found |= {f"{first[0]}.{k}" for k in range(int(first[2:]), int(last[2:]) + 1)}
        cited |= found & {number for number, _, _ in numbers}
    stated = {f"{a}.{b}" for a, b in HEADING.findall(THEORY) if b}
    assert stated - cited <= {"1.1", "1.4"}, sorted(stated - cited)

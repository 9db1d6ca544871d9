"""Examples of the READMEs and docstrings run and print what they say; links, names, flags and citations exist."""

import doctest
import importlib
import io
import os
import pkgutil
import re
import subprocess
import sys
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import windgames

ROOT = Path(__file__).parent.parent
FOLDERS = ("windgames", "windlm", "benchmarks", "figures")
PAGES = [
    p for p in (ROOT / "README.md", *(ROOT / f / "README.md" for f in FOLDERS), ROOT / "CONTRIBUTING.md") if p.exists()
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.S | re.M)
PROVEN = re.compile(r"proven: .* \d\.\d\de([-+]\d+)")
ROUNDING = re.compile(r"\d\.\d\de[-+]\d+|(?<=steps) +\d+")
LEAST_EXAMPLES = {"README.md": 2, "windgames/README.md": 6, "windlm/README.md": 1}
TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}


def name(page):
    return page.relative_to(ROOT).as_posix()


def blocks(page, *kinds):
    return [(kind, code) for kind, code in BLOCK.findall(TEXT[page]) if kind in kinds]


def prose(page):
    return BLOCK.sub("", TEXT[page])


def assert_prints(printed, said):
    """Assert that an example printed what the page says.

    Residuals, and the number of Newton steps, differ with the last bits from machine to machine; proven bounds may do
    so by a factor of ten.
    """
    assert ROUNDING.sub("#", printed) == ROUNDING.sub("#", said)
    for ours, theirs in zip(PROVEN.findall(printed), PROVEN.findall(said), strict=True):
        assert abs(int(ours) - int(theirs)) <= 1


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent.name != "windlm"], ids=name)
def test_examples(page):
    scope, printed, ran = {}, "", 0
    for kind, code in blocks(page, "python", "text"):
        if kind == "python":
            out = io.StringIO()
            with redirect_stdout(out):
                exec(compile(code, name(page), "exec"), scope)
            printed, ran = out.getvalue(), ran + 1
        else:
            assert_prints(printed, code)
    assert ran >= LEAST_EXAMPLES.get(name(page), 0)


def test_what_an_example_prints_is_compared():
    assert_prints("  steps  8\n  gap  1.90e-33\n", "  steps  9\n  gap  1.91e-33\n")
    with pytest.raises(AssertionError):
        assert_prints("  policy  0.385  0.252\n", "  policy  0.395  0.252\n")
    with pytest.raises(AssertionError):
        assert_prints("  proven: KL ≤ 1.00e-28\n", "  proven: KL ≤ 1.00e-25\n")


def test_the_example_of_the_front_page_is_within_its_bound():
    scope = {}
    with redirect_stdout(io.StringIO()):
        for _, code in blocks(ROOT / "README.md", "python"):
            exec(compile(code, "README.md", "exec"), scope)
    trace = scope["trace"]
    assert len(trace.steps) > 100
    assert np.all(trace.kl_from_solution <= trace.bound)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's
def test_the_example_of_windlm(tmp_path, monkeypatch):
    """The training example, on a model with a vocabulary of three letters and for two rounds."""
    pytest.importorskip("transformers")
    import json

    from windlm.tabular import small_policy

    page = ROOT / "windlm" / "README.md"
    (_, code), *_ = blocks(page, "python")
    for long, short in (
        ('"HuggingFaceTB/SmolLM2-135M-Instruct"', repr(str(tmp_path / "model"))),
        ("rounds=50", "rounds=2"),
        ("max_new_tokens=128", "max_new_tokens=4"),
        ('["Tell me about tea.", "Why is the sky blue?", "How do I boil an egg?"]', '["a", "b", "c"]'),
    ):
        assert code.count(long) == 1, long
        code = code.replace(long, short)
    small_policy(letters=3, length=2, width=16).save(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(compile(code, name(page), "exec"), scope)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["round"] for row in rows if not row.get("final")] == [0, 1, 2]
    assert rows[1]["judge_calls"] > 0
    from transformers import AutoModelForCausalLM

    before, after = (
        AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (tmp_path / "model", "run/model")
    )
    assert any((before[name] - after[name]).abs().max() > 0 for name in before)


# -- the front page ------------------------------------------------------------------------------------------


def test_the_front_page_is_short():
    lines = TEXT[ROOT / "README.md"].splitlines()
    assert len(lines) <= 150
    first_screen = "\n".join(lines[:24])
    for needed in ("overview.png", "pip install .", "make bandit", "make test"):
        assert needed in first_screen, needed


def table_of_the_paper():
    for line in TEXT[ROOT / "README.md"].splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 5 and "`" in cells[1]:
            yield cells


def test_the_table_of_the_paper():
    """Each row names a function, the file that defines it, a statement and a test file."""
    rows = list(table_of_the_paper())
    claimed = " ".join(row[0] for row in rows)
    for needed in ("Algorithm 1", "Algorithm 2", "Algorithm 3", "Theorem 1", "Theorem 2", "Theorem 3", "Theorem 4"):
        assert needed in claimed, needed
    for _, code, file, theory, test in rows:
        module, *path = re.match(r"`([\w.]+)", code)[1].split(".")
        found = windgames if module == "wg" else pytest.importorskip(module)
        for part in path:
            found = getattr(found, part)
        target = re.search(r"\((.*)\)", file)[1]
        owner = found.__self__.__name__ if getattr(found, "__self__", None) is not None else path[-1]
        text = (ROOT / target).read_text(encoding="utf-8")
        assert re.search(rf"^\s*(class|def) {path[-1]}\b", text, flags=re.M), (owner, target)
        assert "theory.md#thm-" in theory or theory == "as above"
        assert (ROOT / re.search(r"\((.*)\)", test)[1]).exists()


# -- names, files, targets and flags ---------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_names_exist(page):
    """Functions, tests, pictures, tables and make targets that a page names are there."""
    text = TEXT[page]
    for module, attribute in re.findall(r"`(bounds|continuum|objectives|oracles)\.(?!py`)(\w+)`", text):
        assert hasattr(getattr(windgames, module), attribute), f"{module}.{attribute}"
    for test in set(re.findall(r"`(test_\w+)`", text)):
        assert (ROOT / "tests" / f"{test}.py").exists(), test
    for picture in set(re.findall(r"`(\w+\.png)`", text)):
        assert (ROOT / "figures" / picture).exists(), picture
    for table in set(re.findall(r"`(\w+\.csv)`", text)):
        assert (ROOT / "benchmarks" / "results" / table).exists(), table
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), flags=re.M)
    shell = "\n".join(code for _, code in blocks(page, "sh"))
    for target in {*re.findall(r"`make ([a-z-]+)`", text), *re.findall(r"^make ([a-z-]+)", shell, flags=re.M)}:
        assert target in targets, target


def test_the_tables_of_windgames_name_what_exists():
    """Every name in backticks of the table of tasks is one of windgames, or a module of it."""
    section = TEXT[ROOT / "windgames" / "README.md"].split("## The API by task")[1].split("\n## ")[0]
    cells = [cell for line in section.splitlines() if line.startswith("|") for cell in line.split("|")[2:-1]]
    named = {re.match(r"(?:windgames\.)?(\w+)", code)[1] for cell in cells for code in re.findall(r"`([^`]+)`", cell)}
    named -= {"jvp", "vjp", "windlm", "solution", "trace"}
    assert len(named) >= 30
    for one in named:
        assert hasattr(windgames, one), one
    public = {n for n in windgames.__all__ if callable(getattr(windgames, n)) and n[0].islower()}
    unnamed = public - named - {"geometric_mixture", "target"}
    assert not unnamed, unnamed


def test_make_alone_lists_every_target():
    makefile = (ROOT / "Makefile").read_text()
    listed = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in re.search(r"^\.PHONY: (.*)", makefile, flags=re.M)[1].split():
        assert re.search(rf"^  make {target} +\w", listed, flags=re.M), target


COMMANDS = ("train", "evaluate", "sample", "reward")


@pytest.mark.parametrize("command", COMMANDS)
def test_flags_exist(command):
    """Flags of the commands in the READMEs are flags of the commands."""
    pytest.importorskip("tyro")
    pytest.importorskip("transformers")
    shell = "\n".join(code for page in PAGES for _, code in blocks(page, "sh")).replace("\\\n", " ")
    lines = [line for line in shell.splitlines() if re.search(rf"\bwindlm {command}\b", line)]
    flags = {flag for line in lines for flag in re.findall(r"(--[\w.-]+)", line.split("windlm ", 1)[1])}
    if command != "reward":
        assert flags
    flags |= {
        flag
        for code in re.findall(rf"`windlm {command}([^`]*)`", "\n".join(TEXT.values()))
        for flag in re.findall(r"--[\w.-]+", code)
    }
    known = set(re.findall(r"--[\w.-]+", helps()[command]))
    assert flags <= known, flags - known


@cache
def helps():
    """Return the help of each windlm command, all from one process, since its imports take seconds."""
    program = """
import sys
from windlm.__main__ import main
for command in sys.argv[1:]:
    print("\\0" + command)
    try:
        main([command, "--help"])
    except SystemExit as stop:
        assert not stop.code
"""
    environment = os.environ | {"COLUMNS": "200", "PYTHONPATH": str(ROOT)}
    asked = [sys.executable, "-c", program, *COMMANDS]
    done = subprocess.run(asked, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(part.split("\n", 1) for part in done.stdout.split("\0")[1:])


# -- links and citations ---------------------------------------------------------------------------------------


def slug(heading):
    """Return the anchor that GitHub gives to a heading."""
    heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(path):
    text = BLOCK.sub("", path.read_text(encoding="utf-8"))
    return {slug(h) for h in re.findall(r"^#+ (.*)$", text, flags=re.M)} | set(re.findall(r'<a id="([^"]+)"', text))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_resolve(page):
    links = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    assert links or name(page) not in LEAST_EXAMPLES
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


def test_statements_that_are_cited_exist():
    theory = (ROOT / "windgames" / "theory.md").read_text(encoding="utf-8")
    stated = set(re.findall(r"^#+ (\d\.\d+)", theory, flags=re.M))
    folders = ("windgames", "windlm", "benchmarks", "figures", "tests")
    for folder in folders:
        files = [*ROOT.glob(f"{folder}/**/*.py"), *ROOT.glob(f"{folder}/*.md")]
        cited = set()
        for file in files:
            for run in re.findall(
                r"[Tt]heory (\d\.\d+(?:(?:, | and | to )\d\.\d+)*)", file.read_text(encoding="utf-8")
            ):
                cited |= set(re.findall(r"\d\.\d+", run))
        assert len(cited) > (20 if folder == "windgames" else 1), folder
        assert cited <= stated, (folder, sorted(cited - stated))


def test_every_public_name_is_in_the_api_reference():
    pages = "\n".join(page.read_text() for page in (ROOT / ".docs" / "api").glob("*.md"))
    documented = set(re.findall(r"auto(?:function|class|module):: ([\w.]+)", pages))
    for package in ("windgames", "windlm"):
        module = windgames if package == "windgames" else pytest.importorskip(package)
        for public in module.__all__:
            if not isinstance(getattr(module, public), type(windgames)):
                assert f"{package}.{public}" in documented, public


# -- the tour --------------------------------------------------------------------------------------------------


def test_the_tour_runs_anywhere_and_writes_nothing(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(ROOT / "figures" / "tour.py")],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(tmp_path.iterdir()) == []


def test_the_tour_is_a_notebook():
    jupytext = pytest.importorskip("jupytext")
    notebook = jupytext.read(ROOT / "figures" / "tour.py")
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds.count("markdown") >= 10
    assert kinds.count("code") >= 10
    assert notebook.metadata.kernelspec.name == "python3"
    imported = re.findall(r"^(?:import|from) (\w+)", "\n".join(c.source for c in notebook.cells), flags=re.M)
    assert set(imported) == {"matplotlib", "numpy", "windgames"}


# -- docstrings ------------------------------------------------------------------------------------------------

MODULES = [m.name for m in pkgutil.walk_packages(windgames.__path__, "windgames.")]


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples(module):
    result = doctest.testmod(
        importlib.import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    )
    assert result.failed == 0


def test_docstring_examples_ran():
    total = sum(doctest.testmod(importlib.import_module(module)).attempted for module in MODULES)
    assert total >= 6

"""Put deliberate errors into copies of the packages and see whether the tests notice: ``make mutations``.

Each entry of mutations.toml replaces one text by another in one file of a package. The tests that it names then run
against a copy of the package with that one change; they must fail. An error that survives is a test that is missing.

The checkout is never written to. A file may move within its package: it is found by the text, which must occur once.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("windgames", "windlm")
ELSEWHERE = 50
"""Status of a run that imported a package from another place than the copy."""
OURS = 100
"""Added to pytest's exit status, so that a process that ends for another reason is not taken for a failed test."""
SERVER = multiprocessing.get_context("forkserver")
ENVIRONMENT = {
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "CI": "1",
}
"""Of the tests; under CI hypothesis draws the same examples every time."""
HEAVY = (
    "hypothesis.extra.numpy",
    "mpmath",
    "numpy",
    "pytest",
    "scipy.optimize",
    "scipy.stats",
    "accelerate",
    "peft",
    "torch",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.llama.modeling_llama",
    "tyro",
)
"""What takes seconds to import: a server does it once, and every run of tests is forked from it."""


@dataclass(frozen=True)
class Mutation:
    """A deliberate error."""

    id: str
    package: str
    find: str
    """Exact text; it occurs once in the package."""
    replace: str
    breaks: str
    """What is wrong then, in a sentence."""
    tests: tuple[str, ...]
    """Test files, or tests by pytest's node id, that must fail."""

    def where(self, root: Path) -> Path:
        """Return the file of the package that holds the text, relative to the root.

        Raises
        ------
        LookupError
            If the text occurs nowhere, or more than once.
        """
        places = {path: n for path, text in texts(root / self.package).items() if (n := text.count(self.find))}
        if sum(places.values()) != 1:
            listed = ", ".join(f"{path.relative_to(root)} ({count})" for path, count in places.items()) or "nowhere"
            raise LookupError(
                f"{self.id}: the text {self.find!r} must occur once in {self.package}, but is in: {listed}."
            )
        return next(iter(places)).relative_to(root)

    def changed(self, root: Path) -> str:
        """Return that file's text with the error in it."""
        return texts(root / self.package)[root / self.where(root)].replace(self.find, self.replace)


@cache
def texts(package: Path) -> dict[Path, str]:
    """Return the modules of a package."""
    return {path: path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))}


def load(path: Path = ROOT / "tests" / "mutations.toml") -> list[Mutation]:
    """Return the list."""
    rows = tomllib.loads(path.read_text(encoding="utf-8"))["mutation"]
    return [Mutation(**row | {"tests": tuple(row["tests"])}) for row in rows]


def copied(root: Path, folder: Path) -> None:
    """Copy what the tests need."""

    def others(at: str, names: list[str]) -> list[str]:
        kept = (".py", ".md", ".html", ".css", ".js")
        return [name for name in names if not name.endswith(kept) and not Path(at, name).is_dir()]

    for name in (*PACKAGES, "tests", "benchmarks"):
        shutil.copytree(root / name, folder / name, ignore=others)
    shutil.copy(root / "pyproject.toml", folder)


def pytest_here(folder: Path, words: list[str], out: Path) -> None:
    """In a process of its own: run pytest on the copy in a folder, and end with its exit status."""
    os.setsid()
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder)
    sys.path[:] = [str(folder), *(path for path in sys.path if path not in ("", str(ROOT), str(ROOT / "tests")))]
    with out.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import pytest

    status = int(pytest.main(words))
    for name in PACKAGES:
        found = Path(getattr(sys.modules.get(name), "__file__", None) or folder / name / "__init__.py").resolve()
        if found != folder / name / "__init__.py":
            print(f"{name} was imported from {found}, not from {folder}")
            status = ELSEWHERE
    sys.stdout.flush()
    sys.exit(OURS + status)


def pytest_run(folder: Path, tests: list[str], limit: float, *options: str) -> tuple[int | None, str]:
    """Run tests against the copy in a folder; return pytest's exit status, None if it took too long, and its output."""
    quiet = ["-q", "-p", "no:cacheprovider", "--tb=line", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        out = Path(name) / "out.txt"
        process = SERVER.Process(target=pytest_here, args=(folder, [*quiet, *options, *tests], out))
        process.start()
        process.join(limit)
        late = process.is_alive()
        if late:
            os.killpg(process.pid, signal.SIGKILL)  # what the tests have started, too
            process.join()
        said = out.read_text(encoding="utf-8", errors="replace") if out.exists() else ""
    if late:
        return None, said
    return (process.exitcode or 0) - OURS, said


@contextmanager
def a_copy(root: Path) -> Iterator[Path]:
    """Hold a copy in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        folder = Path(name).resolve()
        copied(root, folder)
        yield folder


def try_one(mutation: Mutation, root: Path, limit: float) -> tuple[str, float, str]:
    """Return the verdict on a mutation, the seconds it took, and the test that failed or why there is no verdict."""
    started = time.perf_counter()
    try:
        where, text = mutation.where(root), mutation.changed(root)
    except LookupError as error:
        return "BROKEN", 0.0, str(error)
    with a_copy(root) as folder:
        (folder / where).write_text(text, encoding="utf-8")
        status, out = pytest_run(folder, list(mutation.tests), limit, "-x")
    seconds = time.perf_counter() - started
    failed = re.search(r"^FAILED (\S+)", out, re.MULTILINE)
    if status == 1 and failed:  # an import error, a fixture's error or a missing test is no failed test
        return "killed", seconds, failed[1]
    if status == 0:
        return "SURVIVED", seconds, ""
    reason = f"took longer than {limit:.0f} s" if status is None else f"pytest's exit status is {status}"
    return "BROKEN", seconds, f"{reason}:\n{out[-2000:]}"


def check_unchanged(tests: list[str], root: Path, jobs: int, limit: float) -> None:
    """Run the tests without an error put in, where they must pass: else a failure would say nothing."""

    def run(part: list[str]) -> str:
        status, out = pytest_run(root, part, limit)
        return "" if status == 0 else f"{out[-4000:]}\npytest's exit status is {status}.\n"

    with ThreadPoolExecutor(jobs) as pool:
        failures = "".join(pool.map(run, [tests[i::jobs] for i in range(jobs) if tests[i::jobs]]))
    if failures:
        raise SystemExit(f"{failures}The tests must pass before errors are put in.")


def main() -> None:
    """Read the command line, try the errors, print the table."""
    parser = argparse.ArgumentParser(description="Put deliberate errors into copies of the packages, one at a time.")
    parser.add_argument("--jobs", type=int, default=2, help="errors tried at the same time (default 2)")
    parser.add_argument("--only", action="append", metavar="ID", help="try only this one; may be given several times")
    parser.add_argument("--list", action="store_true", help="print the errors and the tests they must fail, try none")
    parser.add_argument("--timeout", type=float, default=300, help="seconds that one may take (default 300)")
    given = parser.parse_args()
    mutations = load()
    unknown = sorted(set(given.only or ()) - {m.id for m in mutations})
    if unknown:
        raise SystemExit(f"There is no {', '.join(unknown)} in tests/mutations.toml; --list prints what there is.")
    if given.only:
        mutations = [m for m in mutations if m.id in given.only]
    width = max(len(m.id) for m in mutations)
    if given.list:
        for m in mutations:
            print(f"{m.id:<{width}}  {m.package:<9}  {m.breaks}\n{'':<{width}}  {' '.join(m.tests)}")
        return
    tests = list(dict.fromkeys(t for m in mutations for t in m.tests))
    files = {t for t in tests if "::" not in t}
    tests = [t for t in tests if t in files or t.partition("::")[0] not in files]
    print(f"{len(mutations)} deliberate errors; first the tests without any of them.", flush=True)
    killed = 0
    os.environ |= ENVIRONMENT
    SERVER.set_forkserver_preload(list(HEAVY))
    with a_copy(ROOT) as root:  # edits of the checkout meanwhile do not matter
        check_unchanged(tests, root, given.jobs, 10 * given.timeout)
        with ThreadPoolExecutor(given.jobs) as pool:
            verdicts = pool.map(lambda m: try_one(m, root, given.timeout), mutations)
            for m, (verdict, seconds, said) in zip(mutations, verdicts, strict=True):
                killed += verdict == "killed"
                print(f"{m.id:<{width}}  {verdict:<8}  {seconds:5.1f} s  {said}", flush=True)
                if verdict != "killed":
                    print(f"{'':<{width}}  {m.breaks}", flush=True)
    print(f"{killed} killed of {len(mutations)}")
    sys.exit(killed < len(mutations))


if __name__ == "__main__":
    main()

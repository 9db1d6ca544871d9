"""Put deliberate errors into copies of the packages and see whether the tests notice: ``make mutations``.

Each entry of mutations.toml replaces one text by another in one file of a package. The tests that it names then run
against a copy of the package with that one change; they must fail. An error that survives is a test that is missing.

The checkout is never written to. A file may move within its package: it is found by the text, which must occur once.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("windgames", "windlm")
ELSEWHERE = 97
"""Exit status of a run that imported a package from another place than the copy."""
RUN = f"""
import importlib, os, sys
import pytest
here = os.getcwd()
status = int(pytest.main(sys.argv[1:]))
for name in {PACKAGES}:
    if name in sys.modules:
        found = os.path.realpath(sys.modules[name].__file__)
        if not found.startswith(os.path.join(here, name) + os.sep):
            print(f"{{name}} was imported from {{found}}, not from {{here}}")
            sys.exit({ELSEWHERE})
sys.exit(status)
"""


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

    def where(self, root: Path = ROOT) -> Path:
        """Return the file of the package that holds the text, relative to the root.

        Raises
        ------
        LookupError
            If the text occurs nowhere, or more than once.
        """
        places = {
            path: count
            for path in sorted((root / self.package).rglob("*.py"))
            if (count := path.read_text(encoding="utf-8").count(self.find))
        }
        if sum(places.values()) != 1:
            listed = ", ".join(f"{path.relative_to(root)} ({count})" for path, count in places.items()) or "nowhere"
            raise LookupError(f"{self.id}: the text {self.find!r} must occur once in {self.package}, but is in: {listed}.")
        return next(iter(places)).relative_to(root)

    def changed(self, root: Path = ROOT) -> str:
        """Return that file's text with the error in it."""
        return (root / self.where(root)).read_text(encoding="utf-8").replace(self.find, self.replace)


def load(path: Path = ROOT / "tests" / "mutations.toml") -> list[Mutation]:
    """Return the list."""
    rows = tomllib.loads(path.read_text(encoding="utf-8"))["mutation"]
    return [Mutation(**row | {"tests": tuple(row["tests"])}) for row in rows]


def copied(folder: Path) -> None:
    """Copy what the tests need."""
    for name in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis"))
    shutil.copy(ROOT / "pyproject.toml", folder)


def pytest_run(folder: Path, tests: list[str], limit: float, *options: str) -> tuple[int | None, str]:
    """Run tests against the copy in a folder; return pytest's exit status, None if it took too long, and its output."""
    environment = os.environ | {
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "CI": "1",  # hypothesis draws the same examples every time
    }
    words = [sys.executable, "-c", RUN, "-q", "-p", "no:cacheprovider", "--tb=line", *options, *tests]
    process = subprocess.Popen(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        out, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        return None, process.communicate()[0]
    return process.returncode, out


def try_one(mutation: Mutation, limit: float) -> tuple[str, float, str]:
    """Return the verdict on a mutation, the seconds it took, and the test that failed or the output."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        folder = Path(name).resolve()
        copied(folder)
        try:
            where = mutation.where(folder)
            (folder / where).write_text(mutation.changed(folder), encoding="utf-8")
        except LookupError as error:
            return "broken", time.perf_counter() - started, str(error)
        status, out = pytest_run(folder, list(mutation.tests), limit, "-x")
    seconds = time.perf_counter() - started
    if status == 1:  # tests failed; an import error or a missing test has another status
        failed = re.search(r"^FAILED (\S+)|^ERROR (\S+)", out, re.MULTILINE)
        return "killed", seconds, (failed[1] or failed[2]) if failed else ""
    if status == 0:
        return "SURVIVED", seconds, "no test failed"
    reason = f"took longer than {limit:.0f} s" if status is None else f"pytest's exit status is {status}"
    return "broken", seconds, f"{reason}:\n{out[-2000:]}"


def check_unchanged(tests: list[str], jobs: int, limit: float) -> None:
    """Run the tests on copies without an error, where they must pass: else a failure would say nothing."""

    def run(part: list[str]) -> None:
        with tempfile.TemporaryDirectory(prefix="mutation-") as name:
            folder = Path(name).resolve()
            copied(folder)
            status, out = pytest_run(folder, part, limit)
        if status != 0:
            raise SystemExit(f"The tests must pass without any error put in, but {' '.join(part)}:\n{out[-4000:]}")

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, [tests[i::jobs] for i in range(jobs) if tests[i::jobs]]))


def verdicts(mutations: list[Mutation], jobs: int, limit: float) -> Iterator[tuple[Mutation, tuple[str, float, str]]]:
    """Yield mutations with their verdicts, in the order of the list."""
    with ThreadPoolExecutor(jobs) as pool:
        yield from zip(mutations, pool.map(lambda m: try_one(m, limit), mutations), strict=True)


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
    check_unchanged(tests, given.jobs, 10 * given.timeout)
    killed = 0
    for m, (verdict, seconds, said) in verdicts(mutations, given.jobs, given.timeout):
        killed += verdict == "killed"
        print(f"{m.id:<{width}}  {verdict:<8}  {seconds:5.1f} s  {said}", flush=True)
        if verdict != "killed":
            print(f"{'':<{width}}  {m.breaks}", flush=True)
    print(f"{killed} killed of {len(mutations)}")
    sys.exit(killed < len(mutations))


if __name__ == "__main__":
    main()

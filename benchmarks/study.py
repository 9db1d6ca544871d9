"""What all studies share: a grid of cells that can be stopped and resumed, tables, and their sidecars.

A cell is one configuration of a grid. Its rows are written to ``results/.cells/<study>/<key>.json`` as
soon as it is done, so a run that is stopped, or killed, goes on where it was. A cell counts as done only for
the same configuration, seed and code: whoever edits a formula gets new numbers without asking for them.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import inspect
import json
import os
import platform
import re
import runpy
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "benchmarks"
RESULTS = HERE / "results"
"""The committed tables, which ``--full`` makes."""
QUICK = HERE / "quick"
"""Where anything smaller goes, pictures included."""
LIBRARIES = ("windgames", "windlm")
"""Packages of this repository: a study that imports one depends on all of it."""
PACKAGES = ("numpy", "scipy", "pandas", "scikit-learn", "cvxpy")
"""Packages whose versions a sidecar tells."""

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Scale:
    """How large a study is: ``smoke`` in seconds, the default in minutes, ``full`` for the committed tables."""

    smoke: bool = False
    full: bool = False
    seeds: int = 8

    def pick(self, smoke: Any, default: Any, full: Any) -> Any:
        """Return the value for this scale."""
        return smoke if self.smoke else full if self.full else default


@dataclass(frozen=True)
class Study:
    """A grid, what to do in each cell of it, and what to say of the table."""

    configs: Callable[[Scale], list[dict[str, Any]]]
    cell: Callable[[dict[str, Any], np.random.Generator], Rows]
    report: Callable[[pd.DataFrame], None]
    question: str
    """What it asks, in one line."""
    minutes: tuple[float, float]
    """About how long it takes on two cores: at reduced size, and in full."""
    one_job: bool = False
    """Cells measure time, and run one by one."""
    derive: Callable[[pd.DataFrame], pd.DataFrame] | None = None
    """Adds to the table of all cells what follows from it and the settings alone, such as a bound of the theory."""


@dataclass(frozen=True)
class Cell:
    """One configuration of a grid, and what decides whether saved rows are still its rows."""

    config: dict[str, Any]
    identity: dict[str, Any]
    path: Path
    seed: np.random.SeedSequence

    def load(self) -> Rows | None:
        """Return the saved rows if they belong to this configuration, seed and code."""
        try:
            saved = json.loads(self.path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return saved["rows"] if saved["identity"] == self.identity else None

    def save(self, rows: Rows) -> None:
        """Write the rows in one step: a reader sees all of them or none."""
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps({"identity": self.identity, "rows": rows}))
        os.replace(temporary, self.path)


def sources(*files: Path) -> list[Path]:
    """Return Python files with all that they import from this repository, directly or not.

    Of `windgames` and `windlm` that is the whole package; of this folder the files that are named in an import. So an
    edit of one study leaves the saved cells of the others as they are, and an edit of what several share does not.
    """
    found: set[Path] = set()
    todo = [file.resolve() for file in files]
    while todo:
        file = todo.pop()
        if file in found:
            continue
        found.add(file)
        for name in _imported(file):
            if name.split(".")[0] in LIBRARIES:
                todo += (ROOT / name.split(".")[0]).rglob("*.py")
            elif (path := HERE / (name.replace(".", "/") + ".py")).exists():
                todo.append(path)
    return sorted(found)


@cache
def _imported(file: Path) -> tuple[str, ...]:
    """Return the modules that a file may import; relative imports stay within a package, which counts whole."""
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
    return tuple(names)


def fingerprint(*files: Path) -> str:
    """Return a short hash of files and their places in the repository."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(_short(file).encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def make_cells(study: str, configs: Sequence[dict[str, Any]], results: Path, seed: int, version: str) -> list[Cell]:
    """Name the cells and give each its own stream of random numbers."""
    folder = results / ".cells" / study
    folder.mkdir(parents=True, exist_ok=True)
    cells = []
    for config, child in zip(configs, np.random.SeedSequence(seed).spawn(len(configs)), strict=True):
        config = json.loads(json.dumps(config))
        identity = {"config": config, "seed": [seed, *child.spawn_key], "version": version}
        text = json.dumps(config, sort_keys=True)
        words = re.sub(r"[^a-z0-9.]+", "-", "-".join(map(str, config.values())).lower()).strip("-")[:60]
        name = f"{words}-{hashlib.sha256(text.encode()).hexdigest()[:10]}.json"
        cells.append(Cell(config, identity, folder / name, child))
    if len({cell.path for cell in cells}) < len(cells):
        raise ValueError(f"The grid of {study!r} holds the same cell twice.")
    return cells


def _finish(cell: Cell, run_one: Callable[..., Rows]) -> None:
    cell.save(run_one(cell.config, np.random.default_rng(cell.seed)))


def run_grid(
    study: str,
    configs: Sequence[dict[str, Any]],
    run_one: Callable[[dict[str, Any], np.random.Generator], Rows],
    *,
    results: Path,
    seed: int = 0,
    jobs: int = 1,
    fresh: bool = False,
    version: str = "",
) -> pd.DataFrame:
    """Run ``run_one(config, rng)`` where no rows are saved; return the rows of all cells in order.

    Parameters
    ----------
    study
        Name of the folder that the cells are saved in.
    configs
        One dict of plain values per cell.
    run_one
        Returns the rows of a cell, as dicts of plain values.
    results
        Folder of the tables; cells go to ``.cells`` below it.
    seed, jobs
        Every cell gets its own child of the seed, whatever the number of processes.
    fresh
        Ignore what is saved.
    version
        Anything that should make saved rows stale when it changes; see `fingerprint`.
    """
    cells = make_cells(study, configs, results, seed, version)
    if fresh:
        for cell in cells:
            cell.path.unlink(missing_ok=True)
    todo = [cell for cell in cells if cell.load() is None]
    calls = (joblib.delayed(_finish)(cell, run_one) for cell in todo)
    done = joblib.Parallel(n_jobs=min(jobs, max(1, len(todo))), return_as="generator_unordered")(calls)
    bar = tqdm(done, desc=f"{study:>9}", total=len(cells), initial=len(cells) - len(todo), unit="cell", leave=False)
    try:
        for _ in bar:
            pass
    except KeyboardInterrupt:
        kept = sum(cell.load() is not None for cell in cells)
        raise SystemExit(
            f"\nStopped: {kept} of {len(cells)} cells of {study!r} are kept. Run again to go on."
        ) from None
    finally:
        bar.close()
    return pd.DataFrame([row for cell in cells for row in cell.load() or []])


def run_study(
    study: Study,
    name: str,
    table_name: str,
    scale: Scale,
    results: Path,
    told: dict[str, Any],
    versions: str = "",
    code: Sequence[Path] | None = None,
    **how: Any,
) -> pd.DataFrame:
    """Run what is missing of a study, write its table and say what it shows; `how` goes to `run_grid`.

    Saved cells count for the same `versions` and the same `code`: by default the file of the study and what it imports.
    """
    started = time.perf_counter()
    if code is None:
        code = sources(Path(inspect.getfile(study.report)))
    version = f"{fingerprint(*code)} {versions}".strip()
    if study.one_job:
        how["jobs"] = 1
    table = run_grid(name, study.configs(scale), study.cell, results=results, version=version, **how)
    if study.derive is not None:
        table = study.derive(table)
    path = write_table(table, table_name, results, told | {"study": name}, started)
    table = pd.read_csv(path)
    study.report(table)
    print(f"   {os.path.relpath(path)}: {len(table)} rows, {time.perf_counter() - started:.1f} s")
    return table


def announce(studies: Mapping[str, Study], scale: Scale, results: Path, prefix: str, pictures: bool) -> None:
    """Say what will be done, about how long it takes, and where tables and pictures go."""
    minutes = {name: study.minutes[int(scale.full)] for name, study in studies.items()}
    size = scale.pick("in the smallest size, for tests", "at reduced size", "in full: the committed tables")
    total = "seconds each" if scale.smoke else f"about {max(1, round(sum(minutes.values())))} minutes on two cores"
    print(f"{len(studies)} {'study' if len(studies) == 1 else 'studies'} {size}, {total}; finished cells are kept.")
    for name, study in studies.items():
        print(f"  {name:<10} {study.question}" + ("" if scale.smoke else f" ({minutes[name]:.1f} min)"))
    print(f"Tables go to {os.path.relpath(results)}/{prefix}_<study>.csv, what made them to the .json beside them.")
    if pictures:
        print(
            f"Pictures go to {os.path.relpath(pictures_of(results))}/{prefix}_<study>.png, once all tables are there."
        )
    print(flush=True)


def pictures_of(results: Path) -> Path:
    """Return the folder of the pictures: only the committed tables make the committed ones."""
    return ROOT / "figures" if results.resolve() == RESULTS else results


def write_table(table: pd.DataFrame, name: str, results: Path, config: dict[str, Any], started: float) -> Path:
    """Write ``<name>.csv`` and, beside it, ``<name>.json`` that says where the numbers come from.

    A table that comes out as it was keeps its sidecar: a rerun changes no file.
    """
    path = results / f"{name}.csv"
    text = table.to_csv(index=False, float_format="%.8g")
    if path.exists() and path.read_text() == text and path.with_suffix(".json").exists():
        return path
    _write(path, text)
    sidecar = {
        "table": path.name,
        "rows": len(table),
        "command": " ".join(
            ["python", _short(sys.argv[0]), *(_short(a) if Path(a).is_absolute() else a for a in sys.argv[1:])]
        ),
        "config": config,
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "seconds": round(time.perf_counter() - started, 2),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    _write(path.with_suffix(".json"), json.dumps(sidecar, indent=2, default=_short) + "\n")
    return path


def derive_again(study: Study, name: str, results: Path) -> bool:
    """Compute anew what a saved table derives, and say so in its sidecar; return whether the table changed."""
    path = results / f"{name}.csv"
    if study.derive is None or not path.exists():
        return False
    text = study.derive(pd.read_csv(path)).to_csv(index=False, float_format="%.8g")
    if text == path.read_text():
        return False
    _write(path, text)
    sidecar = json.loads(path.with_suffix(".json").read_text())
    sidecar["rows"] = len(pd.read_csv(path))
    sidecar["derived"] = {
        "what": "bounds, which follow from the settings, computed anew from the table; nothing else has changed",
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    _write(path.with_suffix(".json"), json.dumps(sidecar, indent=2) + "\n")
    return True


def draw(results: Path, names: Sequence[str]) -> None:
    """Draw pictures from the tables by ``figures/plot_<name>.py``; only committed tables make committed pictures."""
    figures = ROOT / "figures"
    sys.path.insert(0, str(figures))
    import style

    style.use(results=results, pictures=pictures_of(results))
    for name in names:
        runpy.run_path(str(figures / f"plot_{name}.py"), run_name="__main__")


def show(title: str, table: pd.DataFrame, statement: str) -> None:
    """Print a table with three significant digits, and the sentence that it supports."""
    print(f"\n{title}\n{'-' * len(title)}")
    print(table.to_string(index=False, float_format=_number, na_rep="", line_width=150))
    print(f"=> {statement}", flush=True)


def _number(x: float) -> str:
    return f"{x:.0f}" if x == round(x) and abs(x) < 1e6 else f"{x:.3g}"


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def _short(path: str | Path) -> str:
    """Return a path relative to the repository where it lies inside."""
    full = Path(path).resolve()
    return str(full.relative_to(ROOT)) if full.is_relative_to(ROOT) else full.name


def _commit() -> str:
    """Return the commit of the code, with a mark if a Python file in the working tree differs from it."""
    git = ["git", "-C", str(ROOT)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "*.py"], check=False).returncode
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("-dirty" if changed else "")


def _versions() -> dict[str, str]:
    found = {}
    for package in (*PACKAGES, "windgames"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

"""Starting the scripts in benchmarks/, which the tests of all five do alike."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def command(name, *arguments):
    """Return the command line of a script in its smallest form."""
    return [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--smoke", *map(str, arguments)]


def start(name, *arguments):
    return subprocess.run(command(name, *arguments), capture_output=True, text=True, timeout=600, check=False)


def output(name, *arguments):
    """Run a script that must succeed; return what it prints."""
    done = start(name, *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def smoke(name, *arguments):
    """Return a fixture, once per module: the folder with a script's tables and pictures, and what it printed."""

    @pytest.fixture(scope="module")
    def fixture(tmp_path_factory):
        folder = tmp_path_factory.mktemp(name)
        return folder, output(name, "--results", folder, *arguments)

    return fixture


def sidecar(folder, table):
    """Return a table's sidecar, which must be complete, free of machine paths, and of this table."""
    pd = pytest.importorskip("pandas")
    found = json.loads((folder / f"{table}.json").read_text())
    assert found["rows"] == len(pd.read_csv(folder / f"{table}.csv")) > 0
    assert {"command", "config", "commit", "versions", "seconds", "date"} <= found.keys()
    assert str(ROOT) not in json.dumps(found["command"])
    return found

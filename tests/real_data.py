"""Real comparisons: small sets that are kept in ``tests/data``, large ones read from files if there are any."""

import json
import os
from pathlib import Path

import pytest

import windgames as wg

SETS = ("chess", "burlington_2009", "baseball_1987", "citations")


def load(name):
    data = json.loads((Path(__file__).parent / "data" / f"{name}.json").read_text())
    return wg.Comparisons.from_counts(data["wins"], names=data["names"])


def large(variable):
    """Return the path that an environment variable holds, or skip the test."""
    path = os.environ.get(variable)
    if not path:
        pytest.skip(f"{variable} is not set to a file; see tests/data/README.md")
    return Path(path)


def language_models():
    pd = pytest.importorskip("pandas")
    return wg.Comparisons.from_arena(pd.read_csv(large("WINDGAMES_LLMFAO")), ("left", "right", "winner"))

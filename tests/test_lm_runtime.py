"""The comparison of running times in its small form."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("tyro")
pytest.importorskip("transformers")
pytest.importorskip("vaderSentiment")

import lm_tiny

ROOT = Path(__file__).resolve().parent.parent


def test_every_method_is_timed_in_parts(tmp_path):
    lm_tiny.make(tmp_path / "model")
    command = [sys.executable, str(ROOT / "benchmarks" / "runtime.py"), "--smoke", "--results", str(tmp_path)]
    done = subprocess.run(
        [*command, "--model", str(tmp_path / "model")], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "=> WIND's time is" in done.stdout
    table = pd.read_csv(tmp_path / "runtime.csv")
    assert len(table) == 5
    assert table.filter(like="share_").sum(axis=1).to_numpy() == pytest.approx(1)
    assert (table.filter(like="share_") > -1e-9).all(axis=None)
    assert (table.responses_per_round == [64, 64, 32, 64, 64]).all()
    assert json.loads((tmp_path / "runtime.json").read_text())["config"]["threads"] >= 1

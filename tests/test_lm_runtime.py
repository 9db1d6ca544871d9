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
    shares = table.set_index("method").filter(like="share_")
    assert (shares.drop(columns="share_scoring") > 0).all(axis=None)
    # what is scored for metrics alone is not the method's expense
    assert shares.share_scoring["best-of-n, likelihood"] == 0
    assert shares.share_scoring["SPPO"] < shares.share_scoring["WIND"]
    assert (table.responses_per_round == [64, 64, 8, 64, 64]).all()
    assert json.loads((tmp_path / "runtime.json").read_text())["config"]["threads"] >= 1

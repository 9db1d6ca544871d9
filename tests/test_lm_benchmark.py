"""The study of language models in its small form: tables, sentences, the picture."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("matplotlib")
pytest.importorskip("tyro")
pytest.importorskip("transformers")

ROOT = Path(__file__).resolve().parent.parent
TABLES = ("methods", "slower", "summary", "floor", "robust", "memory")


def run(*arguments):
    command = [sys.executable, str(ROOT / "benchmarks" / "lm.py"), "--smoke", "--jobs", "1", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    return folder, run("--results", folder)


def test_every_study_leaves_a_table_a_sidecar_and_a_sentence(smoke):
    folder, told = smoke
    assert told.count("=>") == 4
    for name in TABLES:
        sidecar = json.loads((folder / f"lm_{name}.json").read_text())
        assert sidecar["rows"] == len(pd.read_csv(folder / f"lm_{name}.csv")) > 0
        assert {"command", "commit", "versions", "seconds", "date"} <= sidecar.keys()
        assert str(ROOT) not in json.dumps(sidecar["command"])


def test_methods_have_the_same_tokens_and_start_at_the_same_place(smoke):
    table = pd.read_csv(smoke[0] / "lm_methods.csv")
    assert table.method.nunique() == 8
    for _, rows in table.groupby("judge"):
        first = rows[rows["round"] == 0]
        assert (first.kl_to_ref.abs() < 1e-12).all()
        assert np.ptp(first.kl_from_solution) < 1e-9
        last = rows.groupby("method").tokens.last()
        assert last.max() < 1.3 * last.min()
    assert (table.gap >= 0).all()
    # the certificate of theory 2.3, on transformers: gap / beta bounds the divergence to the equilibrium
    assert (table.kl_to_solution <= table.gap / 0.2 * (1 + 1e-6) + 1e-9).all()


def test_the_floor_is_measured_at_the_end(smoke):
    table = pd.read_csv(smoke[0] / "lm_floor.csv").set_index("change")
    methods = pd.read_csv(smoke[0] / "lm_methods.csv").query("judge == 'reward' and method == 'WIND'")
    assert table.tokens["standard"] == methods.tokens.iloc[-1]
    assert table.fraction["standard"] == pytest.approx(methods.fraction.iloc[-1])


def test_a_wrong_judge_moves_the_aim(smoke):
    table = pd.read_csv(smoke[0] / "lm_robust.csv")
    right, wrong = (table[(table.flips > 0) == side] for side in (False, True))
    assert (right.aim == 0).all()
    assert (wrong.aim > 0.01).all()
    assert (table[table["round"] == 0].fraction == 1).all()
    assert table.parameters.nunique() == 2
    assert table.beta.nunique() == 2


def test_the_picture_names_its_table(smoke):
    image = pytest.importorskip("PIL.Image")
    with image.open(smoke[0] / "lm.png") as picture:
        assert picture.width > 500
        assert "lm_methods.csv" in picture.info["Source"]


def test_the_committed_table_supports_what_the_readme_says():
    summary = pd.read_csv(ROOT / "benchmarks" / "results" / "lm_summary.csv").set_index(["judge", "method"])
    wind = summary.xs("WIND", level="method")
    assert (wind.final_fraction < 0.05).all()
    for method in ("SPPO", "J-BOND", "iterative BOND", "best-of-n, likelihood"):
        assert (summary.xs(method, level="method").final_fraction > 1).all()  # further away than they began

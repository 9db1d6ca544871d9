"""The paper's experiment in its smallest form, on made-up data in the schemas of the real ones, and a random model."""

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("tyro")
pytest.importorskip("transformers")
pytest.importorskip("matplotlib")

import lm_tiny
from scripts import output

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from paper_studies import corpus, grading

WORDS = ("tea", "rain", "bread", "stars", "music", "chess", "paint", "rivers")


def talk(question, answer, more=""):
    return f"\n\nHuman: {question}{more}\n\nAssistant: {answer}"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    questions = [f"What of {a} and {b}{mark}" for a in WORDS for b in WORDS for mark in "?!"]
    rows = {"hh_rlhf/helpful-base/test.jsonl.gz": [], "hh_rlhf/helpful-online/test.jsonl.gz": []}
    for i, question in enumerate(questions):
        good, bad = (f"{who} answer {rng.integers(100)} about it, at some length" for who in ("A good", "Another"))
        turn = "\n\nAssistant: Well, what?\n\nHuman: Say more." if i % 3 == 0 else ""
        file = list(rows)[i % 2]
        rows[file].append({"chosen": talk(question, good, turn), "rejected": talk(question, bad, turn)})
    rows["llmbar/llmbar.jsonl.gz"] = [
        {"subset": "Natural", "input": q, "output_1": "One answer.", "output_2": "And another.", "label": 1 + i % 2}
        for i, q in enumerate(questions[:6])
    ]
    for name, values in rows.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(folder / name, "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in values)
    return folder


def test_no_question_is_in_two_parts(data, tmp_path):
    counts = corpus.write(data, tmp_path)
    assert set(counts) == {"gold", "proxy", "train", "held-out"}
    assert min(counts.values()) > 0
    asked = {}
    for name, count in counts.items():
        rows = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        assert len(rows) == count
        assert all({"chosen", "rejected"} <= row.keys() for row in rows) == (name in ("gold", "proxy"))
        asked[name] = {row["prompt"][0]["content"] for row in rows}
    everything = set.union(*asked.values())
    assert sum(map(len, asked.values())) == len(everything) == 2 * len(WORDS) ** 2
    with pytest.raises(SystemExit, match="has no preference data"):
        corpus.write(tmp_path, tmp_path)


def test_judges_runs_and_grades(data, tmp_path):
    model = lm_tiny.make(tmp_path / "model", max_position_embeddings=2048)
    common = ("paper", "--data", data, "--work", tmp_path / "work", "--results", tmp_path, "--model", model)
    told = output(*common, "--runs", "WIND", "J-BOND", "--parts", "judges", "train", "grade")
    assert "Trained policies" in told
    judges = pd.read_csv(tmp_path / "paper_judges.csv").set_index(["judge", "data"])
    assert judges.loc[("gold", "LLMBar"), "pairs"] == 6
    assert judges.accuracy.dropna().between(0, 1).all()
    # what the table says follows from the rewards and the responses that were kept
    runs = pd.read_csv(tmp_path / "paper_runs.csv").set_index(["run", "round"])
    assert list(runs.index) == [(name, i) for name in ("J-BOND", "WIND") for i in (1, 2)] + [("reference", 1)]
    folder = tmp_path / "work" / "runs"
    for (name, number), row in runs.iterrows():
        ours = json.loads((folder / f"{name}-0" / f"gold-look-{number:03d}.json").read_text())
        theirs = json.loads((folder / "reference-0" / "gold-look-000.json").read_text())
        wins = [np.mean([[(a > b) + (a == b) / 2 for b in y] for a in x]) for x, y in zip(ours, theirs, strict=True)]
        assert row.gold_win_rate == pytest.approx(np.mean(wins), abs=1e-6)
        kept = json.loads((folder / f"{name}-0" / f"look-{number:03d}.json").read_text())
        assert row.kl == pytest.approx(np.mean(kept["log_ratio"]), abs=1e-6)
    assert runs.loc[("reference", 1), "kl"] == 0
    # a second call repeats nothing
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*look*.json")}
    output(*common, "--runs", "WIND", "J-BOND", "--parts", "train", "grade")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*look*.json")} == before
    assert grading.flat("x", (1.0, 0.5, 2.0)) == {"x": 1.0, "x_low": 0.5, "x_high": 2.0}

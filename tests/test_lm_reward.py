"""A reward model that is fitted here, and read back as any other."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("tyro")

import lm_tiny

from windlm.cli import main
from windlm.data import Pair
from windlm.judges.fitting import split
from windlm.models import JudgeSettings, load_judge

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's


def test_it_learns_what_the_pairs_say_and_judges_a_run(tmp_path, capsys):
    # the answer with more of the letter a is chosen; as an UltraFeedback row, binarised
    rng, rows = np.random.default_rng(0), []
    for i in range(160):
        good, bad = ("".join(rng.permutation(list("a" * n + "b" * (6 - n)))) for n in (5, 1))
        asked = {"role": "user", "content": f"say {i}"}
        ends = {k: [asked, {"role": "assistant", "content": c}] for k, c in (("chosen", good), ("rejected", bad))}
        rows.append({"prompt": f"say {i}"} | ends)
    source = lm_tiny.write_lines(tmp_path / "pairs.jsonl", rows)
    lm_tiny.make(tmp_path / "policy")
    lm_tiny.make(tmp_path / "start", seed=2, upper=True)  # a causal model with a tokenizer of its own
    words = ["reward", "--name", tmp_path / "start", "--data.source", source, "--out", tmp_path / "reward"]
    main([str(w) for w in [*words, "--learning-rate", 1e-2, "--epochs", 3]])
    told = capsys.readouterr().out
    assert float(told.split()[2]) > 0.9, told

    judge = load_judge(JudgeSettings("reward-model", str(tmp_path / "reward")))
    reward = judge.rewards(["say 1000"], [["aaaaba", "bbabbb"]])[0]
    assert reward[0] > reward[1]
    lm_tiny.write_lines(tmp_path / "prompts.jsonl", [{"prompt": "say 1"}, {"prompt": "say 2"}])
    words = ["train", "--model.name", tmp_path / "policy", "--model.max-new-tokens", 4, "--data.source"]
    words += [tmp_path / "prompts.jsonl", "--judge.name", tmp_path / "reward", "--train.out", tmp_path / "run"]
    main([str(w) for w in [*words, "--train.rounds", 1, "--train.draws", 2, "--train.cpu", "--train.no-progress"]])
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[1])
    assert np.isfinite(row["reward"])


def test_a_prompt_is_on_one_side():
    pairs = [Pair(f"p{i % 5}", "x", "y") for i in range(20)]
    known, unknown = split(pairs, 0.4, 0)
    assert len(known) + len(unknown) == 20
    assert len(unknown) == 8
    assert not {p.prompt for p in known} & {p.prompt for p in unknown}
    with pytest.raises(ValueError, match="leaves one side without"):
        split(pairs, 0.01, 0)

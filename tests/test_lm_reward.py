"""A reward model that is fitted here, and read back as any other."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("tyro")

import lm_tiny

from windlm.cli import main
from windlm.data import Data, Pair
from windlm.evaluate.statistics import wilson
from windlm.judges import RewardJudge, fitting
from windlm.judges.fitting import RewardModelConfig, cyclic_triples, fit, intransitivity, order, split
from windlm.models import JudgeSettings, LoraSettings, load_judge

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
    main([str(w) for w in [*words, "--learning-rate", 1e-2, "--epochs", 3, "--evaluations", 2]])
    told, bar = capsys.readouterr()
    assert f"--judge.kind reward-model --judge.name {tmp_path / 'reward'}" in told
    assert float(told.split()[2]) > 0.9, told
    assert "32 prompts), fitted to 128 pairs" in told
    assert "held out" in bar
    seen = [json.loads(line) for line in (tmp_path / "reward" / "fit.jsonl").read_text().splitlines()]
    assert [row["step"] for row in seen if "held_out_accuracy" in row] == [16, 32, 48]

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


# -- kinds of judges -----------------------------------------------------------------------------------------

WORDS = ["rock", "paper", "scissors"]
"""Each beats the one before: no reward can say so."""


def circle(tmp_path, n=150):
    rng, rows = np.random.default_rng(0), []
    for i in range(n):
        k = int(rng.integers(3))
        rows.append({"prompt": f"{i}", "chosen": WORDS[(k + 1) % 3], "rejected": WORDS[k]})
    return Data(lm_tiny.write_lines(tmp_path / "circle.jsonl", rows))


@pytest.mark.parametrize(
    ("kind", "judge", "epochs", "rate"), [("pairwise", "pairwise-model", 4, 1e-2), ("general", "general", 7, 3e-3)]
)
def test_a_cycle_is_learned(kind, judge, epochs, rate, tmp_path):
    lm_tiny.make(tmp_path / "start")
    lm_tiny.write_lines(
        tmp_path / "all.jsonl", [{"prompt": "7", "responses": WORDS}, {"prompt": "8", "responses": WORDS}]
    )
    config = RewardModelConfig(
        str(tmp_path / "start"), circle(tmp_path), tmp_path / "out", kind=kind, epochs=epochs, learning_rate=rate,
        responses=str(tmp_path / "all.jsonl"), progress=False,
    )  # fmt: skip
    found = fit(config)
    assert found.accuracy.mean > 0.9
    assert found.accuracy.low < found.accuracy.mean <= found.accuracy.high
    assert found.intransitive.prompts == 2
    assert found.intransitive.cycles == 1
    assert found.intransitive.cyclic_share > 0.9
    assert (found.position_bias is not None) == (kind == "pairwise")
    p = load_judge(JudgeSettings(judge, str(tmp_path / "out"))).preference(["9"], [WORDS]).matrix()[0]
    assert min(p[1, 0], p[2, 1], p[0, 2]) > 0.6
    with pytest.raises(ValueError, match="fitted as a judge of kind"):
        load_judge(JudgeSettings("reward-model", str(tmp_path / "out")))


def test_a_fit_that_was_stopped_goes_on(tmp_path, monkeypatch):
    """To the weights of one that was not."""
    lm_tiny.make(tmp_path / "start")
    settings = {"batch_pairs": 4, "evaluations": 2, "learning_rate": 1e-2, "progress": False}

    def run(name, **more):
        return fit(RewardModelConfig(str(tmp_path / "start"), circle(tmp_path, 40), tmp_path / name, **settings | more))

    whole = run("whole")
    steps = []
    step = torch.optim.AdamW.step

    def fails(self):
        step(self)
        steps.append(1)
        if len(steps) > 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.AdamW, "step", fails)
    with pytest.raises(KeyboardInterrupt):
        run("stopped")
    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(ValueError, match="run with other learning_rate"):
        run("stopped", learning_rate=1e-3)
    again = run("stopped")
    assert again.accuracy == whole.accuracy
    ends = [
        load_judge(JudgeSettings("reward-model", str(tmp_path / n))).rewards(["1"], [WORDS])
        for n in ("whole", "stopped")
    ]
    np.testing.assert_allclose(*ends, atol=1e-6)
    assert not (tmp_path / "stopped" / "checkpoint.pt").exists()
    monkeypatch.setattr(torch.optim.AdamW, "step", fails)
    assert run("stopped") == again  # it is over: nothing is trained


def test_half_precision_trains_an_adapter(tmp_path):
    lm_tiny.make(tmp_path / "start")
    config = RewardModelConfig(
        str(tmp_path / "start"), circle(tmp_path, 24), tmp_path / "out", precision="bfloat16", micro_pairs=3,
        gradient_checkpointing=True, progress=False,
    )  # fmt: skip
    assert np.isfinite(fit(config).accuracy).all()
    with pytest.raises(ValueError, match="All weights in bfloat16 would lose small steps"):
        RewardModelConfig("x", Data("y"), tmp_path, precision="bfloat16", lora=LoraSettings(rank=0))


def test_the_micro_batch_changes_no_step(tmp_path, monkeypatch):
    """Nor do the tokens of a pass, which bound its memory."""
    lm_tiny.make(tmp_path / "start")
    ends, passes, lengths = [], [], fitting.log_likelihoods

    def counted(model, pairs):
        passes.append(2 * len(pairs) * max(len(row["input_ids"]) for pair in pairs for row in pair))
        return lengths(model, pairs)

    monkeypatch.setattr(fitting, "log_likelihoods", counted)
    for micro, tokens in ((None, 2048), (None, 120), (3, 2048)):
        monkeypatch.setattr(fitting, "PASS_TOKENS", tokens)
        out = tmp_path / f"out-{micro}-{tokens}"
        passes.clear()
        fit(RewardModelConfig(str(tmp_path / "start"), circle(tmp_path, 24), out, micro_pairs=micro, progress=False))
        assert max(passes) <= tokens
        ends.append(load_judge(JudgeSettings("reward-model", str(out))).rewards(["1"], [WORDS]))
    np.testing.assert_allclose(ends[1:], [ends[0]] * 2, atol=1e-4)


# -- what is counted -----------------------------------------------------------------------------------------


def test_wilson_s_interval_is_where_the_share_could_be():
    """Its ends p are those whose test of the observed share just holds: (share - p)^2 = z^2 p (1 - p) / n."""
    from scipy.stats import binomtest

    for k, n in ((12, 12), (0, 5), (7, 10), (133, 210)):
        found, theirs = wilson(k / n, n), binomtest(k, n).proportion_ci(method="wilson")
        assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert wilson(1.0, 12).low == pytest.approx(0.757, abs=1e-3)


def test_batches_hold_every_pair_once_and_of_like_length():
    lengths = np.random.default_rng(0).integers(1, 200, 103).tolist()
    config = RewardModelConfig("m", Data("d"), None, batch_pairs=4, epochs=2)
    batches = list(order(lengths, config))
    assert len(batches) == 52
    for epoch in (batches[:26], batches[26:]):
        assert sorted(i for batch in epoch for i in batch) == list(range(103))
    spread = np.mean([max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in batches])
    assert spread < 20
    assert batches[:26] != batches[26:]


def test_cycles_are_counted():
    tournament = np.array([[0.5, 0.9, 0.1, 0.6], [0.1, 0.5, 0.9, 0.6], [0.9, 0.1, 0.5, 0.6], [0.4, 0.4, 0.4, 0.5]])
    assert cyclic_triples(tournament) == 1 / 4
    assert cyclic_triples(np.full((3, 3), 0.5)) == 0
    judge = RewardJudge(lambda prompts, responses: [float(len(r)) for r in responses], "bradley-terry")
    found = intransitivity(judge, ["a", "b"], [["x", "yy", "zzz"], ["x", "yy", "zzz", "zzzz"]])
    assert (found.prompts, found.cycles) == (2, 0)
    assert found.cyclic_share == pytest.approx(0, abs=1e-12)

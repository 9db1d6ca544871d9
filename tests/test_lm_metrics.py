"""Metrics of a round and of held-out prompts, against their definitions."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import lm_run
from test_lm_cli import flags, metrics

import windgames as wg
from windgames._array import kl
from windlm import PairwiseJudge, RewardJudge, wind
from windlm.cli import main
from windlm.tabular import Enumeration, small_policy
from windlm.train import Config, HeldOut, train

PROMPTS = ["a", "b c", "c"]
QUICK = {"rounds": 1, "draws": 64, "batch_prompts": 3, "cpu": True, "progress": False, "checkpoint_every": 0}


def reward(prompts, responses):
    """Nothing to choose at the first prompt."""
    return [0.0 if p == "a" else float(r.count("a")) for p, r in zip(prompts, responses, strict=True)]


def test_spread_and_ties(tmp_path):
    policy = small_policy(letters=4, length=2, width=16, spread=0.3)
    enumeration = Enumeration.of(policy)
    p = np.exp(enumeration.log_policy(PROMPTS))
    rows = train(policy, PROMPTS, RewardJudge(reward), wind(0.1), Config(tmp_path, **QUICK | {"draws": 400}))
    table = np.array([reward([q] * len(enumeration), enumeration.text) for q in PROMPTS])
    spread = np.sqrt((p * table**2).sum(-1) - (p * table).sum(-1) ** 2)
    assert rows[1]["reward_spread"] == pytest.approx(spread.mean(), abs=0.05)
    assert rows[1]["tied"] == pytest.approx(1 / 3)
    assert rows[1]["tokens_per_second"] == pytest.approx(
        rows[1]["tokens"] / sum(v for k, v in rows[1].items() if k.startswith("seconds_"))
    )


def test_a_judge_of_pairs_has_ties_and_an_asymmetry(tmp_path):
    """It prefers the first by 0.1 in either order, and knows no difference at the first prompt."""

    def wins(prompts, first, second):
        return [
            0.6 if p == "a" else 0.1 + 0.8 * ((len(a), a) > (len(b), b)) + 0.1
            for p, a, b in zip(prompts, first, second, strict=True)
        ]

    policy = small_policy(letters=4, length=2, width=16, spread=0.3)
    rows = train(policy, PROMPTS, PairwiseJudge(wins), wind(0.1), Config(tmp_path, **QUICK | {"draws": 8}))
    assert rows[1]["tied"] == pytest.approx(1 / 3)
    assert rows[1]["asymmetry"] == pytest.approx(0.2, abs=1e-6)
    assert "reward_spread" not in rows[1]


def test_the_last_policy_is_measured(tmp_path):
    exact = {}

    def evaluate(number, policy):
        exact[number] = Enumeration.of(policy).log_policy(["a", "b c", "c", "d d d"])
        return {}

    _, rows = lm_run.main(tmp_path, draws=300, rounds=3, evaluate=evaluate, checkpoint_every=0, measure_final=True)
    last = rows[-1]
    assert (last["round"], last["final"]) == (4, True)
    assert abs(last["kl"] - kl(exact[3], exact[0]).mean()) < 4.5 * last["kl_error"]
    assert abs(last["kl"] - kl(exact[2], exact[0]).mean()) > 4.5 * last["kl_error"]
    assert {"win_rate_reference", "win_rate_previous", "reward", "tokens", "cut"} <= last.keys()
    assert "loss" not in last


def test_held_out_prompts_are_estimates_of_the_enumerated_truth(tmp_path):
    policy = small_policy(letters=4, length=2, width=16, spread=0.3)
    enumeration, exact, unseen = Enumeration.of(policy), {}, ["d", "d b", "c c", "b", "a d", "c d"]
    table = np.array([lm_run.vowels([q] * len(enumeration), enumeration.text) for q in unseen])

    def evaluate(number, policy):
        exact[number] = enumeration.log_policy(unseen)
        return {}

    config = Config(tmp_path, **QUICK | {"rounds": 5, "learning_rate": 1e-2, "measure_final": False})
    held_out = HeldOut(unseen, every=2, draws=200)
    rows = train(policy, PROMPTS, RewardJudge(lm_run.vowels), wind(0.1), config, evaluate, held_out=held_out)
    assert [row["round"] for row in rows if "eval_kl" in row] == [2, 4, 5]
    for row in (rows[2], rows[5]):
        p, preference = np.exp(exact[row["round"]]), wg.RewardPreference(table)
        wins = (p * preference.win_rate(exact[0])).sum(-1)
        assert row["eval_win_rate"] == pytest.approx(wins.mean(), abs=0.03)
        assert row["eval_win_rate_low"] < row["eval_win_rate"] < row["eval_win_rate_high"]
        assert row["eval_kl"] == pytest.approx(kl(exact[row["round"]], exact[0]).mean(), abs=0.15)
        assert row["eval_reward"] == pytest.approx((p * table).sum(-1).mean(), abs=0.1)
    assert rows[5]["eval_win_rate"] > rows[2]["eval_win_rate"]


def test_held_out_prompts_that_make_no_sense():
    for settings, said in (({"prompts": []}, "no held-out prompts"), ({"prompts": ["a"], "every": 0}, "eval.every")):
        with pytest.raises(ValueError, match=said):
            HeldOut(**settings)


def test_held_out_prompts_by_flags(tmp_path):
    import lm_tiny

    lm_tiny.make(tmp_path / "policy")
    for name, letters in {"prompts": "abcd", "unseen": "efg"}.items():
        lm_tiny.write_lines(tmp_path / f"{name}.jsonl", [{"prompt": f"say {c}"} for c in letters])
    more = {"eval.data.source": tmp_path / "unseen.jsonl", "eval.draws": 2, "train.keep-best": "eval_win_rate"}
    main([*flags(tmp_path, tmp_path / "run", **more), "--train.measure-final"])
    rows = metrics(tmp_path / "run")
    assert [("eval_win_rate" in row, row.get("final", False)) for row in rows] == [
        (False, False), (True, False), (True, False), (False, True),
    ]  # fmt: skip


def test_bfloat16_over_float32_weights(tmp_path):
    """The same run within rounding; weights and optimizer stay in float32, and the sampled KL begins at zero."""
    runs = {}
    for precision in ("no", "bf16"):
        policy, rows = lm_run.main(tmp_path / precision, rounds=2, mixed_precision=precision, measure_final=True)
        assert {p.dtype for p in policy.model.parameters()} == {torch.float32}
        assert rows[1]["kl"] == 0
        runs[precision] = rows
    for name in ("reward", "entropy", "length"):
        assert runs["bf16"][1][name] == pytest.approx(runs["no"][1][name], rel=0.1, abs=0.1)
    assert runs["bf16"][2]["loss"] != runs["no"][2]["loss"]
    assert runs["bf16"][2]["loss"] == pytest.approx(runs["no"][2]["loss"], rel=0.3)

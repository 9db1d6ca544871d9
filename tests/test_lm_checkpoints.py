"""Checkpoints: what is kept and can be loaded, runs that get longer, stops within a round's training."""

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

import lm_run
import lm_tiny
from transformers import AutoModelForCausalLM

import windlm.train.loop
from windlm import RewardJudge, wind
from windlm.models import LoraSettings, ModelSettings, load_policy
from windlm.objectives import JBond, Regression
from windlm.train import Config, train

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's
QUICK = {"rounds": 3, "epochs": 1, "reference_draws": 2}
SAME = ("round", "loss", "kl", "win_rate_reference", "win_rate_previous", "tokens", "gradient_norm", "judge_calls")


def numbers(rows):
    return [[row.get(name) for name in SAME] for row in rows]


# -- within a round ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "owner", "at", "every"),
    [
        ("wind", Regression, 2, 1),
        ("wind", Regression, 8, 3),
        pytest.param("extragradient", Regression, 15, 1, marks=pytest.mark.slow),
        ("jbond", JBond, 6, 1),
    ],
)
def test_stopped_within_training_it_goes_on_to_the_same_bits(tmp_path, monkeypatch, objective, owner, at, every):
    """Two steps an epoch, two epochs: four losses a stage, of which at most `every` are computed twice."""
    settings = QUICK | {"epochs": 2, "objective": objective, "checkpoint_steps": every, "shard_prompts": 2}
    whole, rows = lm_run.main(tmp_path / "whole", **settings)
    loss, calls, drawn = owner.loss, [], []
    monkeypatch.setattr(owner, "loss", lm_run.stopping(loss, at, calls))
    with pytest.raises(lm_run.Stop):
        lm_run.main(tmp_path / "cut", **settings)
    if every <= at - 1:
        assert len(list((tmp_path / "cut" / "checkpoints").glob("within-*"))) <= 1
    log_prob = windlm.policy.LanguagePolicy.log_prob
    monkeypatch.setattr(windlm.policy.LanguagePolicy, "log_prob", lambda *a: drawn.append(1) or log_prob(*a))
    ours, again = lm_run.main(tmp_path / "cut", **settings)
    assert torch.equal(lm_run.weights(whole), lm_run.weights(ours))
    assert numbers(again) == numbers(rows)
    stages = 2 if objective == "extragradient" else 1
    assert len(calls) <= 3 * stages * 4 + every
    assert not list((tmp_path / "cut" / "checkpoints").glob("within-*"))


# -- runs that get longer ------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 2])
def test_stopped_after_the_last_step_of_a_round_it_goes_on_to_the_same_bits(tmp_path, monkeypatch, at):
    """The checkpoint of the last step leaves nothing to train on in the round."""
    settings = QUICK | {"rounds": 2, "checkpoint_steps": 1}
    whole, rows = lm_run.main(tmp_path / "whole", **settings)
    finish = Regression.finish
    monkeypatch.setattr(Regression, "finish", lm_run.stopping(finish, at, []))
    with pytest.raises(lm_run.Stop):
        lm_run.main(tmp_path / "cut", **settings)
    monkeypatch.setattr(Regression, "finish", finish)
    ours, again = lm_run.main(tmp_path / "cut", **settings)
    assert torch.equal(lm_run.weights(whole), lm_run.weights(ours))
    assert numbers(again) == numbers(rows)
    assert [row["learning_rate"] for row in again[1:3]] == [row["learning_rate"] for row in rows[1:3]]


@pytest.mark.parametrize("adapter", [False, True])
def test_a_run_that_is_over_goes_on_if_there_are_more_rounds(tmp_path, adapter):
    settings = QUICK | {"schedule": "constant", "adapter": adapter, "measure_final": True}
    whole, rows = lm_run.main(tmp_path / "whole", **settings | {"rounds": 4})
    _, short = lm_run.main(tmp_path / "longer", **settings | {"rounds": 2})
    assert (short[-1]["round"], short[-1]["final"]) == (3, True)
    ours, longer = lm_run.main(tmp_path / "longer", **settings | {"rounds": 4})
    assert torch.equal(lm_run.weights(whole), lm_run.weights(ours))
    assert numbers(longer) == numbers(rows)
    assert short[-1]["kl"] == longer[3]["kl"]  # what the final row measured is what the next round began with
    assert [bool(row.get("final")) for row in longer] == [False] * 5 + [True]
    before = (tmp_path / "longer" / "metrics.jsonl").read_text()
    saved = (tmp_path / "longer" / "model").stat().st_mtime_ns
    _, over = lm_run.main(tmp_path / "longer", **settings | {"rounds": 4})
    assert over == longer
    assert (tmp_path / "longer" / "metrics.jsonl").read_text() == before
    assert (tmp_path / "longer" / "model").stat().st_mtime_ns == saved
    with pytest.raises(ValueError, match="holds a run of 4 rounds"):
        lm_run.main(tmp_path / "longer", **settings | {"rounds": 3})


def test_a_longer_run_has_the_learning_rates_of_its_own_schedule(tmp_path):
    settings = QUICK | {"schedule": "linear", "batch_prompts": 4, "learning_rate": 1e-2}
    _, rows = lm_run.main(tmp_path, **settings | {"rounds": 2})
    assert [row["learning_rate"] for row in rows[1:]] == pytest.approx([1e-2, 0.5e-2])  # of the step that was taken
    _, rows = lm_run.main(tmp_path, **settings | {"rounds": 4})
    assert [row["learning_rate"] for row in rows[1:]] == pytest.approx([1e-2, 0.5e-2, 0.5e-2, 0.25e-2])


# -- what is kept --------------------------------------------------------------------------------------------


def reward(prompts, responses):
    return lm_tiny.vowels(prompts, responses)


@pytest.mark.parametrize("rank", [0, 2])
def test_models_of_rounds_that_were_asked_for_are_kept_and_load(tmp_path, rank):
    name = lm_tiny.make(tmp_path / "tiny")
    policy = load_policy(ModelSettings(name, max_new_tokens=4), LoraSettings(rank))
    ids, logits = torch.arange(90, 110)[None], {}

    def evaluate(number, policy):
        with torch.no_grad():
            logits[number] = policy.model(ids).logits.clone()
        return {"score": {0: 0.0, 1: 0.5, 2: 0.1, 3: 2.0}.get(number, 1.0)}

    config = Config(
        tmp_path / "run", rounds=6, draws=4, learning_rate=0.05, cpu=True, progress=False, measure_final=False,
        save_every=2, keep_best="score", keep_checkpoints=1,
    )  # fmt: skip
    train(policy, ["ab", "cd"], RewardJudge(reward), wind(0.1), config, evaluate)
    kept = {path.name: (path / "state").exists() for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert kept == {f"round-00000{i}": i == 6 for i in (2, 3, 4, 6)}
    assert json.loads((tmp_path / "run" / "best.json").read_text()) == {"round": 3, "score": 2.0}
    for number in (2, 3, 4, 6):
        again = load_policy(ModelSettings(str(tmp_path / "run" / "checkpoints" / f"round-00000{number}")))
        with torch.no_grad():
            torch.testing.assert_close(again.model(ids).logits, logits[number], atol=1e-5, rtol=1e-5)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    torch.testing.assert_close(model(ids).logits, logits[6], atol=1e-4, rtol=1e-4)
    assert (logits[2] - logits[4]).abs().max() > 1e-2
    assert (tmp_path / "run" / "adapter").exists() == bool(rank)
    assert not (tmp_path / "run" / "snapshots" / "aside").exists() or not list(
        (tmp_path / "run" / "snapshots" / "aside").iterdir()
    )
    assert not list((tmp_path / "run" / "checkpoints").rglob("*.pt"))


def test_the_last_model_is_there_once(tmp_path):
    lm_run.main(tmp_path, **QUICK)
    assert [p.parent.name for p in tmp_path.rglob("model.safetensors")] == ["model"]


def test_the_best_by_a_metric_before_the_update_is_the_model_of_the_round_before(tmp_path):
    _, rows = lm_run.main(tmp_path, **QUICK | {"rounds": 4, "keep_best": "-kl", "measure_final": True})
    kl = {row["round"] - 1: row["kl"] for row in rows[2:]}  # of the model that a round has made
    best = json.loads((tmp_path / "best.json").read_text())
    assert best["round"] == min(kl, key=kl.get)
    with pytest.raises(ValueError, match="there is no metric 'klm'"):
        lm_run.main(tmp_path / "other", **QUICK | {"keep_best": "klm"})


# -- the reference -------------------------------------------------------------------------------------------


def adapter_trained_before(tmp_path):
    policy = load_policy(ModelSettings(lm_tiny.make(tmp_path / "tiny"), max_new_tokens=4), LoraSettings(2))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in policy.model.parameters():
            if p.requires_grad:
                p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return policy


@pytest.mark.parametrize("reference", ["policy", "base"])
def test_the_reference_of_an_adapter_that_was_trained_before(tmp_path, reference):
    policy = adapter_trained_before(tmp_path)
    samples = policy.sample(["ab", "cd"], 64, np.random.default_rng(0))
    with policy.model.disable_adapter():
        base = policy.log_prob(samples)
    distance = float((policy.log_prob(samples) - base).mean())
    assert distance > 0.2
    config = Config(
        tmp_path / "run", rounds=2, draws=64, reference=reference, learning_rate=1e-3, cpu=True, progress=False,
        measure_final=False, schedule="constant",
    )  # fmt: skip
    rows = train(policy, ["ab", "cd"], RewardJudge(reward), wind(0.1, 1.0), config)
    exact = pytest.approx(0, abs=1e-4)  # one from sampling, the other one from scoring
    assert rows[1]["kl"] == (exact if reference == "policy" else pytest.approx(distance, rel=0.5))
    assert (tmp_path / "run" / "snapshots" / "ref").exists() == (reference == "policy")
    # the run goes on with the same reference, whatever the policy is that it gets
    longer = train(policy, ["ab", "cd"], RewardJudge(reward), wind(0.1, 1.0), replace(config, rounds=3))
    again, config = adapter_trained_before(tmp_path), replace(config, rounds=3, out=tmp_path / "whole")
    whole = train(again, ["ab", "cd"], RewardJudge(reward), wind(0.1, 1.0), config)
    assert [row.get("kl") for row in longer] == [row.get("kl") for row in whole]


def test_base_needs_an_adapter(tmp_path):
    with pytest.raises(ValueError, match="the policy has none"):
        lm_run.main(tmp_path, reference="base")

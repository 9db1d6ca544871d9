"""Faults of an earlier version of windlm, each found by somebody who looked for them."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import windgames as wg
from windgames.updates import Plan, Stage
from windlm import Regression, RewardJudge, wind
from windlm.judges import RewardModel, key
from windlm.policy import LanguagePolicy
from windlm.tabular import Enumeration, small_policy
from windlm.train import Config, train

PROMPTS = ["a", "b c"]


def judge():
    return RewardJudge(lambda prompts, responses: [r.count("a") for r in responses])


def quick(out, **settings):
    return Config(out, **{"draws": 8, "rounds": 2, "progress": False, "checkpoint_every": 0, "cpu": True} | settings)


def test_coarse_weights_are_refused(tmp_path):
    """In bfloat16 a step of 1e-5 rounds away, and an anchor never moves."""
    policy = small_policy(3, 2, width=32)
    policy.model.bfloat16()
    with pytest.raises(ValueError, match=r"bfloat16.*load the model in float32"):
        train(policy, PROMPTS, judge(), wind(0.2, 0.4), quick(tmp_path))


def test_another_run_is_not_gone_on_with(tmp_path):
    policy = small_policy(3, 2, width=32)
    train(policy, PROMPTS, judge(), wind(0.2, 0.4), quick(tmp_path, checkpoint_every=1))
    for prompts, width, changed in ((["c", "b"], 32, "prompts"), (PROMPTS, 64, "weights")):
        with pytest.raises(ValueError, match=f"another run with other.*{changed}|holds a run with other.*{changed}"):
            train(
                small_policy(3, 2, width=width), prompts, judge(), wind(0.2, 0.4), quick(tmp_path, checkpoint_every=1)
            )


@pytest.mark.parametrize(
    "settings", [{"draws": 1}, {"prompts_per_round": -1}, {"max_grad_norm": 0.0}, {"reference_draws": -1}], ids=str
)
def test_settings_that_train_nothing_are_refused(tmp_path, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        quick(tmp_path, **settings)


def test_the_final_model_is_written_without_checkpoints(tmp_path):
    policy = small_policy(3, 2, width=32)
    train(policy, PROMPTS, judge(), wind(0.2, 0.4), quick(tmp_path))
    assert (tmp_path / "model" / "config.json").exists()
    assert not (tmp_path / "checkpoints").exists()


@dataclass(frozen=True)
class Odd:
    """A rule whose first stage plays against its past, and whose third starts from what the first wrote."""

    name: str = "odd"

    def plan(self, game):
        look = Stage(game.beta, 4.0, against={"previous": 1.0}, out="half")
        return Plan((look, Stage(game.beta, 4.0, against={"half": 1.0})), {}, "none")


def test_metrics_are_of_the_policy_of_now_whatever_is_drawn_first(tmp_path):
    policy = small_policy(3, 2, width=32, spread=0.15)
    enumeration, exact = Enumeration.of(policy), {}
    log_ref = enumeration.log_policy(PROMPTS)

    def evaluate(number, policy):
        log_p = enumeration.log_policy(PROMPTS)
        exact[number] = float((np.exp(log_p) * (log_p - log_ref)).sum(-1).mean())
        return {}

    rows = train(
        policy,
        PROMPTS,
        judge(),
        Regression(Odd(), 0.1),
        quick(tmp_path, draws=512, rounds=6, learning_rate=5e-3),
        evaluate,
    )
    for row in rows[2:]:  # a round's metrics are those of the policy before its update
        assert abs(row["kl"] - exact[row["round"] - 1]) < 5 * row["kl_error"] + 1e-3
    assert exact[5] > 0.01


@pytest.mark.parametrize("pairing", ["group", "leave-one-out"])
def test_optimistic_steps_are_centred_as_their_score(pairing):
    """OMWU with K own draws and K opponents: the minimiser over all groups is the rule's step, for either pairing."""
    from windgames import objectives as shared

    pi, past, k, m = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5]), 2, 3
    P = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])
    objective = Regression(wg.omwu(2.0), 0.2, pairing=pairing)
    moments, targets = np.zeros((m, m)), np.zeros(m)
    for own in itertools.product(range(m), repeat=k):
        w_own, y = pi[list(own)].prod(), list(own)
        ours = torch.as_tensor(P[np.ix_(y, y)])[None]
        theirs = np.zeros(k)
        for other in itertools.product(range(m), repeat=k):
            weight = past[list(other)].prod()
            label = shared.centred(objective._label(torch.as_tensor(P[np.ix_(y, list(other))])[None], True), pairing)
            theirs += weight * label[0].numpy()
        label = 2 * objective._label(ours, False)[0].numpy() - theirs
        label = shared.centred(label, "group") if True else label
        design = np.stack([shared.centred(np.eye(m)[:, y], pairing)[i] - 0.5 for i in range(m)], axis=1)
        moments += w_own * design.T @ design
        targets += w_own * design.T @ (label - 0.5)
    score = np.linalg.lstsq(moments, targets, rcond=1e-10)[0]
    expected = 2 * P @ pi - P @ past
    np.testing.assert_allclose(score - score[0], expected - expected[0], atol=1e-9)


def test_a_constant_normaliser_needs_a_rule_without_a_pull():
    assert Regression(wg.sppo(0.5), 0.0, pairing="constant").slots == ()
    with pytest.raises(ValueError, match="only holds at beta = 0"):
        wind(0.2, 0.4, pairing="constant")


def test_a_stop_text_that_is_a_special_token_stops(rng):
    policy = small_policy(3, 6, width=32)
    tokenizer = policy.tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["b"]})
    again = LanguagePolicy(policy.model, tokenizer, max_new_tokens=6, stop=["b"])
    samples = again.sample(["a"], 200, rng)
    stop = tokenizer.convert_tokens_to_ids("b")
    ended = [row[mask].tolist() for row, mask in zip(samples.tokens[0], samples.mask[0], strict=True)]
    assert any(stop in row for row in ended)
    assert all(stop not in row[:-1] for row in ended)


def test_reward_models_do_not_read_padding(rng):
    from transformers import GPT2Config, GPT2ForSequenceClassification

    tokenizer = small_policy(4, 2, width=32).tokenizer
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    shape = {"vocab_size": len(tokenizer), "n_embd": 16, "n_layer": 1, "n_head": 2, "num_labels": 1}
    model = GPT2ForSequenceClassification(GPT2Config(**shape, pad_token_id=tokenizer.pad_token_id))
    reward = RewardModel(model, tokenizer)
    prompts, responses = ["a "] * 3, ["c", "c d a a", "d d"]
    alone = [float(reward([p], [r])[0]) for p, r in zip(prompts, responses, strict=True)]
    for side in ("right", "left"):
        tokenizer.padding_side = side
        np.testing.assert_allclose(reward(prompts, responses), alone, atol=1e-5)
    model.config.pad_token_id = tokenizer.pad_token_id + 1
    with pytest.raises(ValueError, match="Make them equal"):
        RewardModel(model, tokenizer)


def test_a_text_and_a_conversation_share_no_verdict():
    assert key('[{"content": "q", "role": "user"}]') != key([{"role": "user", "content": "q"}])


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_virtual_tokens_are_refused():
    peft = pytest.importorskip("peft")
    policy = small_policy(3, 2, width=32)
    adapted = peft.get_peft_model(policy.model, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    with pytest.raises(ValueError, match="virtual tokens"):
        LanguagePolicy(adapted, policy.tokenizer, max_new_tokens=2)

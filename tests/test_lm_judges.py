"""Judges as windgames preferences: symmetric, remembered, with their own tokenizers."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import windgames as wg
from windlm.judges import PairwiseJudge, RewardJudge, RewardModel
from windlm.tabular import small_policy

PROMPTS = ["p", [{"role": "user", "content": "q"}]]
RESPONSES = [["x", "yy", "x"], ["yy", "zzz", ""]]


def lengths(prompts, responses):
    return [len(r) for r in responses]


def test_a_function_is_a_reward_preference_and_is_asked_once():
    asked = []

    def reward(prompts, responses):
        asked.extend(zip(map(str, prompts), responses, strict=True))
        return lengths(prompts, responses)

    judge = RewardJudge(reward)
    preference = judge.preference(PROMPTS, RESPONSES)
    assert isinstance(preference, wg.RewardPreference)
    np.testing.assert_array_equal(preference.reward, [[1, 2, 1], [2, 3, 0]])
    np.testing.assert_array_equal(preference.matrix()[0], [[0.5, 0, 0.5], [1, 0.5, 1], [0.5, 0, 0.5]])
    assert len(asked) == len(set(asked)) == judge.calls == 5
    judge.preference(PROMPTS[1:], [["zzz", "w"]])
    assert asked[5:] == [(str(PROMPTS[1]), "w")]
    weak = RewardJudge(lengths, ties="weak").preference(PROMPTS, RESPONSES)
    assert weak.matrix()[0, 0, 2] == 1


def test_bradley_terry():
    preference = RewardJudge(lengths, "bradley-terry", scale=2.0).preference(PROMPTS, RESPONSES)
    assert preference.matrix()[1, 1, 0] == pytest.approx(1 / (1 + np.exp(-0.5)))


def test_pairs_are_asked_both_ways_and_symmetrised():
    table = {("x", "yy"): 0.9, ("yy", "x"): 0.3, ("yy", "zzz"): 0.6, ("zzz", "yy"): 0.4}
    table |= {("yy", ""): 1.0, ("", "yy"): 0.0, ("zzz", ""): 0.5, ("", "zzz"): 0.7}
    asked = []

    def wins(prompts, first, second):
        asked.extend(zip(first, second, strict=True))
        return [table[pair] for pair in zip(first, second, strict=True)]

    judge = PairwiseJudge(wins)
    preference = judge.preference(PROMPTS, RESPONSES)
    assert preference.is_constant_sum
    p = preference.matrix()
    assert p[0, 0, 1] == pytest.approx((0.9 + 1 - 0.3) / 2)
    assert p[0, 0, 2] == 0.5  # the same response twice
    assert p[1, 1, 2] == pytest.approx(0.4)
    assert judge.worst_asymmetry == pytest.approx(0.2)
    assert judge.mean_asymmetry == pytest.approx((0.2 + 0 + 0 + 0.2) / 4)
    assert judge.calls == len(asked) == 8
    judge.preference(PROMPTS, RESPONSES)
    assert judge.calls == len(asked) == 8


def test_bad_verdicts_are_named():
    def reward(prompts, responses):
        return [float("nan") if r == "zzz" else 0.0 for r in responses]

    with pytest.raises(ValueError, match=r"response 'zzz' to prompt .*'q'.* is nan"):
        RewardJudge(reward).preference(PROMPTS, RESPONSES)
    with pytest.raises(ValueError, match="must return 5 numbers"):
        RewardJudge(lambda p, r: [1.0]).preference(PROMPTS, RESPONSES)
    with pytest.raises(ValueError, match="must return probabilities"):
        PairwiseJudge(lambda p, a, b: [1.5] * len(a)).preference(PROMPTS, RESPONSES)
    with pytest.raises(ValueError, match="preference_kind"):
        RewardJudge(lengths, "elo")


@pytest.fixture
def classifier():
    tokenizer = copy.deepcopy(small_policy(letters=4).tokenizer)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=5, n_positions=12, n_embd=16, n_layer=1, n_head=2, num_labels=1, initializer_range=0.5,
        bos_token_id=4, eos_token_id=4,
    )  # fmt: skip
    return transformers.GPT2ForSequenceClassification(config), tokenizer


def test_a_reward_model_reads_each_text_as_if_it_were_alone(classifier):
    model, tokenizer = classifier
    tokenizer.chat_template = (
        "{% for m in messages %}{{ 'a ' if m.role == 'user' else ' b ' }}{{ m.content }}{% endfor %}"
    )
    reward = RewardModel(model, tokenizer, batch_size=3)
    responses = ["c", "c d a a", "d d"]
    found = reward([[{"role": "user", "content": "c c"}], "d", "c"], responses)
    model.config.pad_token_id = 4
    for value, text in zip(found, ["a c c b c", "a d b c d a a", "a c b d d"], strict=True):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        hidden = model.transformer(ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0, -1]
        assert value == pytest.approx(float(model.score(hidden)[0].detach()), abs=1e-5)
    assert isinstance(RewardJudge(reward).preference(["d"], [responses]), wg.RewardPreference)


def test_a_reward_model_that_cannot_judge_says_so(classifier):
    model, tokenizer = classifier
    reward = RewardModel(model, tokenizer)
    with pytest.raises(ValueError, match=r"Response 'c c.* has 14 tokens .* context of 12"):
        reward(["a "], ["c " * 13])
    with pytest.raises(ValueError, match="no chat template"):
        reward([[{"role": "user", "content": "c"}]], ["c"])
    model.config.num_labels = 2
    with pytest.raises(ValueError, match="one label"):
        RewardModel(model, tokenizer)
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match="no pad token"):
        RewardModel(model, tokenizer)

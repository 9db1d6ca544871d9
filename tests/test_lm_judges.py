"""Judges as windgames preferences: symmetric, remembered, with their own tokenizers."""

import copy
import traceback

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import lm_tiny
import safetensors.torch

import windgames as wg
from windlm import Config, wind
from windlm.judges import JudgeError, PairwiseJudge, RewardJudge, RewardModel
from windlm.models import JudgeSettings, ModelSettings, load_judge, load_policy
from windlm.tabular import small_policy
from windlm.train import train

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

    with pytest.raises(ValueError, match=r"response 'zzz' to the prompt 'q' is nan"):
        RewardJudge(reward).preference(PROMPTS, RESPONSES)
    with pytest.raises(ValueError, match=r"response 'zzz' to the prompt 'q' is None"):
        RewardJudge(lambda p, r: [None if x == "zzz" else 0.0 for x in r]).preference(PROMPTS, RESPONSES)
    for wrong in ([1.0], "text", ["a"] * 5, None, [[1.0]] * 5, [1.0, [2.0]]):
        with pytest.raises(ValueError, match="reward must return 5 numbers"):
            RewardJudge(lambda p, r, wrong=wrong: wrong).preference(PROMPTS, RESPONSES)
    with pytest.raises(ValueError, match="pairwise judge must return 4 numbers"):
        PairwiseJudge(lambda p, a, b: [0.5]).preference(PROMPTS, RESPONSES)
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


# -- contexts ------------------------------------------------------------------------------------------------


def test_contexts_are_checked_before_anything_is_sampled(classifier, tmp_path):
    model, tokenizer = classifier  # of 12 positions
    judge = RewardJudge(RewardModel(model, tokenizer))
    judge.check(["a b c d"], 8)
    with pytest.raises(ValueError, match=r"Prompt 1 has 4 tokens for the reward model; .* up to 9 .* context of 12"):
        judge.check(["a", "a b c d"], 9)
    RewardJudge(lengths).check(["a " * 100], 100)  # a function has no context
    policy, judge.reward.calls = small_policy(letters=4, length=9), 0
    with pytest.raises(ValueError, match="Prompt 0 has 4 tokens for the reward model"):
        train(policy, ["a b c d"], judge, wind(0.1), Config(tmp_path / "run", progress=False, cpu=True))
    assert judge.calls == 0
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_positions_that_count_from_the_padding_index_are_fewer():
    tokenizer = copy.deepcopy(small_policy(letters=4).tokenizer)
    sizes = {
        "vocab_size": 5,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
    }
    config = transformers.RobertaConfig(**sizes, max_position_embeddings=14, pad_token_id=4, num_labels=1)
    reward = RewardModel(transformers.RobertaForSequenceClassification(config), tokenizer)
    assert reward.context == 14 - 4 - 1
    assert np.isfinite(reward(["a "], ["b " * (reward.context - 1)])).all()
    with pytest.raises((IndexError, RuntimeError)):  # the network itself goes no further
        reward.model(torch.zeros(1, reward.context + 1, dtype=torch.long))
    with pytest.raises(ValueError, match="context of 9"):
        reward(["a "], ["b " * 9])


# -- errors of the user's own code ---------------------------------------------------------------------------

BROKEN = """
import json
def reads(prompts, responses):
    return [json.loads(r) for r in responses]
def looks_up(prompts, first, second):
    return [{}[p] for p in prompts]
def converts(prompts, responses):
    return [float(r) for r in responses]
"""


@pytest.mark.parametrize(
    ("kind", "name", "cause"),
    [("reward", "reads", ValueError), ("pairwise", "looks_up", KeyError), ("reward", "converts", ValueError)],
)
def test_an_error_in_a_function_keeps_its_traceback(kind, name, cause, tmp_path):
    (tmp_path / "mine.py").write_text(BROKEN)
    judge = load_judge(JudgeSettings(kind, f"{tmp_path / 'mine.py'}:{name}"))
    with pytest.raises(JudgeError, match=f"mine.py:{name} raised") as caught:
        judge.preference(["p"], [["not json", "x"]])
    assert isinstance(caught.value.__cause__, cause)
    assert not isinstance(caught.value, ValueError)  # which the command line makes one line of
    frames = traceback.extract_tb(caught.value.__cause__.__traceback__)
    assert any(frame.name == name and frame.filename.endswith("mine.py") for frame in frames)


@pytest.mark.parametrize("line", ["import no_such_module_of_theirs", "int('x')", "def f(:"])
def test_an_error_at_import_keeps_its_traceback(line, tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text(f"{line}\ndef f(prompts, responses): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in (f"{tmp_path / 'theirs.py'}:f", "theirs:f"):
        with pytest.raises(JudgeError, match="when imported") as caught:
            load_judge(JudgeSettings("reward", name))
        assert caught.value.__cause__ is not None


# -- checkpoints ---------------------------------------------------------------------------------------------


def test_weights_that_are_not_there_are_not_made_up(tmp_path):
    """A classifier from a causal model's folder, a causal model from an encoder's: a part would be random."""
    lm_tiny.make(tmp_path / "causal")
    with pytest.raises(ValueError, match=r"reward model .* has no weights for score.weight"):
        load_judge(JudgeSettings("reward-model", str(tmp_path / "causal")))
    sizes = {
        "vocab_size": 5,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
    }
    config = transformers.BertConfig(**sizes, max_position_embeddings=16, is_decoder=True)
    transformers.BertModel(config).save_pretrained(tmp_path / "encoder")
    small_policy(letters=4).tokenizer.save_pretrained(tmp_path / "encoder")
    with pytest.raises(ValueError, match=r"causal language model .* has no weights for cls"):
        load_policy(ModelSettings(str(tmp_path / "encoder")))
    lm_tiny.make(tmp_path / "tied", tie_word_embeddings=True)  # no weights of its own for the output layer
    assert load_policy(ModelSettings(str(tmp_path / "tied"))).stop_ids
    lm_tiny.make_reward_model(tmp_path / "reward")
    assert load_judge(JudgeSettings("reward-model", str(tmp_path / "reward"))).calls == 0


@pytest.mark.parametrize(
    ("make", "load"),
    [
        (lm_tiny.make, lambda name: load_policy(ModelSettings(name))),
        (lm_tiny.make_reward_model, lambda name: load_judge(JudgeSettings("reward-model", name))),
    ],
    ids=["causal", "reward"],
)
def test_weights_that_are_no_numbers_are_named(make, load, tmp_path):
    make(tmp_path)
    weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][3, 5] = float("inf")
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.down_proj\.weight hold nan or inf"):
        load(str(tmp_path))

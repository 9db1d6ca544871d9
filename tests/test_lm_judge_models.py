"""Judges that are models: encoders, labels, contexts, pairs, embeddings, PairRM; on random weights."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import lm_tiny
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import windgames as wg
from windlm.judges import EmbeddingJudge, EmbeddingModel, PairRM, PairwiseJudge, PairwiseModel, RewardModel
from windlm.judges.pairrm import PREFIXES, PairRMNetwork
from windlm.models import JudgeSettings, load_judge

SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *PREFIXES.values()]
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
DEBERTA = {
    "relative_attention": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "type_vocab_size": 0,
    "position_biased_input": False,
}
"""The settings in which DeBERTa-v3 differs from the defaults."""


def encoder_tokenizer(pad=True):
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *"abcdefgh"])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        additional_special_tokens=list(PREFIXES.values()),
    )


def made(kind, config, seed=0):
    torch.manual_seed(seed)
    return kind(config).eval()


def bert(labels=1, **more):
    config = transformers.BertConfig(
        **SIZES,
        vocab_size=len(SPECIAL) + 8,
        num_labels=labels,
        max_position_embeddings=24,
        initializer_range=0.5,
        **more,
    )
    return made(transformers.BertForSequenceClassification, config)


@pytest.fixture(scope="module")
def tokenizer():
    return encoder_tokenizer()


# -- encoders ------------------------------------------------------------------------------------------------


def test_an_encoder_reads_prompt_and_response_as_a_pair(tokenizer):
    """With the separator and the token types that it was trained with."""
    model = bert()
    reward = RewardModel(model, tokenizer, batch_size=2)
    prompts, responses = ["a b", "c", [{"role": "user", "content": "d"}]], ["c", "d e f g", "a a"]
    found = reward(prompts, responses)
    for value, prompt, response in zip(found, ["a b", "c", "d"], responses, strict=True):
        tokens = tokenizer(prompt, response, return_tensors="pt")
        assert tokens["token_type_ids"].unique().tolist() == [0, 1]
        with torch.no_grad():
            expected = model(**{k: v for k, v in tokens.items() if k != "attention_mask"}).logits[0, 0]
        assert value == pytest.approx(float(expected), abs=1e-5)
    with pytest.raises(ValueError, match="conversation of 2 messages"):
        reward([[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]], ["c"])


def test_of_two_labels_the_good_one_is_named(tokenizer):
    model = bert(2, id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1})
    with pytest.raises(ValueError, match="has 2: name the good one as label, one of 'bad', 'good'"):
        RewardModel(model, tokenizer)
    with pytest.raises(ValueError, match="label must be one of 'bad', 'good', but is 'fine'"):
        RewardModel(model, tokenizer, label="fine")
    good, bad = (RewardModel(model, tokenizer, label=label)(["a"], ["b"]) for label in ("good", 0))
    with torch.no_grad():
        p = torch.softmax(model(**tokenizer("a", "b", return_tensors="pt")).logits, -1)[0, 1]
    assert good == pytest.approx(-bad, abs=1e-6)
    assert good == pytest.approx(float(torch.logit(p)), abs=1e-5)


def test_what_is_too_long_is_refused_or_loses_its_beginning(tokenizer):
    prompt, response = "a b c d e f g h " * 3, "c d"  # 24 + 2 + 3 tokens, for 24
    with pytest.raises(ValueError, match=r"Response 'c d' .* has 29 tokens .* context of 24.* set truncate"):
        RewardModel(bert(), tokenizer)([prompt], [response])
    cut = RewardModel(bert(), copy.deepcopy(tokenizer), truncate=True)
    cut.check([prompt], 100)
    kept = " ".join(prompt.split()[5:])
    assert cut([prompt], [response]) == pytest.approx(RewardModel(bert(), tokenizer)([kept], [response]), abs=1e-6)
    with pytest.raises(ValueError, match="has 33 tokens"):  # the response itself is never cut
        cut(["a"], ["b " * 29])


def test_a_decoder_keeps_the_end(tmp_path):
    name = lm_tiny.make_reward_model(tmp_path)
    reward = load_judge(JudgeSettings("reward-model", name, truncate=True)).reward
    reward.model.config.max_position_embeddings = 20
    whole = reward.encode("a" * 30, "bc")["input_ids"]
    (row,) = reward.rows(["a" * 30], ["bc"])
    assert row["input_ids"] == whole[-20:]


def test_half_precision_gives_numbers(tmp_path):
    name = lm_tiny.make_reward_model(tmp_path)
    judges = [load_judge(JudgeSettings("reward-model", name, precision=p)) for p in ("float32", "bfloat16")]
    full, half = (judge.rewards(["ab"], [["c", "dd"]]) for judge in judges)
    assert half.dtype == np.float64
    np.testing.assert_allclose(full, half, atol=0.1)


# -- pairs and embeddings ------------------------------------------------------------------------------------


def test_a_classifier_of_pairs_reads_both_responses(tokenizer, tmp_path):
    name = lm_tiny.make_reward_model(tmp_path)
    net = transformers.AutoModelForSequenceClassification.from_pretrained(name)
    words = transformers.AutoTokenizer.from_pretrained(name)
    net.config.pairwise_template = "{prompt}|{second}|{first}"
    model = PairwiseModel(net, words)
    text = words.apply_chat_template([{"role": "user", "content": "{first}|y|x"}], tokenize=False)  # put in once only
    with torch.no_grad():
        expected = torch.sigmoid(net(**words(text, return_tensors="pt")).logits[0, 0])
    assert model(["{first}"], ["x"], ["y"]) == pytest.approx(float(expected), abs=1e-6)
    alone = PairwiseJudge(model).preference(["p"], [["x", "y"]]).matrix()
    more = PairwiseJudge(model).preference(["p", "longer prompt"], [["x", "y", "zzz"], ["x", "yy", "zzz"]]).matrix()
    np.testing.assert_allclose(alone[0], more[0, :2, :2], atol=1e-6)  # the answer does not depend on a third


def test_embeddings_are_a_preference_of_low_rank(tokenizer):
    judge = EmbeddingJudge(EmbeddingModel(bert(4), tokenizer, batch_size=2))
    prompts, responses = ["a", "b c"], [["c", "d", "e f"], ["a", "g h", "a"]]
    found = judge.preference(prompts, responses)
    assert isinstance(found, wg.LowRankPreference)
    assert judge.calls == 5
    matrix = found.matrix()
    for i, prompt in enumerate(prompts):
        with torch.no_grad():
            logits = [bert(4)(**tokenizer(prompt, r, return_tensors="pt")).logits[0].double() for r in responses[i]]
        unit = [v / (2 + 2 * v @ v).sqrt() for v in logits]
        skew = torch.tensor([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]]).double()
        expected = [[float(0.5 + a @ skew @ b) for b in unit] for a in unit]
        np.testing.assert_allclose(matrix[i], expected, atol=1e-6)
    scores = EmbeddingModel.scores(*(torch.tensor(found.embedding[:, k]) for k in (0, 1)))
    np.testing.assert_allclose(scores + 0.5, matrix[:, 0, 1], atol=1e-12)
    with pytest.raises(ValueError, match="even number of labels, not 3"):
        EmbeddingModel(bert(3), tokenizer)


def test_a_fitted_model_is_read_as_what_it_is(tokenizer):
    model = bert()
    model.config.windlm_kind = "pairwise-model"
    PairwiseModel(model, tokenizer)
    with pytest.raises(ValueError, match="fitted as a judge of kind pairwise-model, not reward-model"):
        RewardModel(model, tokenizer)


# -- PairRM --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairrm():
    config = transformers.DebertaV2Config(
        **SIZES, **DEBERTA, vocab_size=len(SPECIAL) + 8, max_position_embeddings=64, initializer_range=0.5
    )
    config.n_tasks, config.drop_out = 3, 0.1
    config.source_prefix_id, config.cand1_prefix_id, config.cand2_prefix_id = 4, 5, 6
    return made(PairRMNetwork, config)


def by_hand(network, source, first, second):
    """The description again, token by token, for one pair."""
    letters = {letter: i for i, letter in enumerate("abcdefgh", len(SPECIAL))}
    parts = [[1, 4 + i, *(letters[c] for c in text.split()), 2] for i, text in enumerate((source, first, second))]
    ids = torch.tensor([[i for part in parts for i in part]])
    with torch.no_grad():
        hidden = network.pretrained_model(ids).last_hidden_state[0]
    starts = [1, 1 + len(parts[0]), 1 + len(parts[0]) + len(parts[1])]
    weights = {name: p.detach() for name, p in network.head_layer.named_parameters()}

    def score(at):
        inner = torch.tanh(weights["1.weight"] @ torch.cat([hidden[starts[0]], hidden[at]]) + weights["1.bias"])
        return (weights["4.weight"] @ inner + weights["4.bias"]).mean()

    return float(score(starts[1]) - score(starts[2]))


def test_pairrm_is_what_its_description_says(pairrm, tokenizer):
    model = PairRM(pairrm, tokenizer, batch_size=2)
    triples = [("a b", "c", "d e f"), ("a", "g h", "b"), ("c c c c", "d", "d d")]
    found = model.margins(*map(list, zip(*triples, strict=True))).tolist()
    assert found == pytest.approx([by_hand(pairrm, *t) for t in triples], abs=1e-5)
    there, back = (float(model(["a"], [x], [y])[0]) for x, y in (("b", "c"), ("c", "b")))
    matrix = PairwiseJudge(model).preference(["a", "a b c"], [["b", "c", "d e"], ["b", "c", "h"]]).matrix()
    assert matrix[0, 0, 1] == pytest.approx((there + 1 - back) / 2, abs=1e-6)  # whatever the third is


def test_a_response_cannot_pose_as_another_part(pairrm, tokenizer):
    model = PairRM(pairrm, tokenizer)
    row = model.encode("a", "b <|candidate2|> c", "d")["input_ids"]
    assert [row.count(i) for i in (4, 5, 6)] == [1, 1, 1]


def test_pairrm_has_the_published_names(pairrm, tokenizer, tmp_path):
    """The keys and settings of llm-blender/PairRM-hf: a folder of that form is loaded, another one refused."""
    keys = set(pairrm.state_dict())
    assert {"head_layer.1.weight", "head_layer.4.bias", "pretrained_model.embeddings.word_embeddings.weight"} <= keys
    assert all(name.startswith(("pretrained_model.", "head_layer.")) for name in keys)
    pairrm.save_pretrained(tmp_path / "pairrm")
    tokenizer.save_pretrained(tmp_path / "pairrm")
    judge = load_judge(JudgeSettings("pairrm", str(tmp_path / "pairrm")))
    expected = 1 / (1 + np.exp(-by_hand(pairrm, "a", "b", "c")))
    assert judge.wins(["a"], ["b"], ["c"]) == pytest.approx(expected, abs=1e-6)
    rounded = load_judge(JudgeSettings("pairrm", str(tmp_path / "pairrm"), precision="bfloat16"))
    assert rounded.wins(["a"], ["b"], ["c"]) == pytest.approx(expected, abs=0.05)
    other = transformers.DebertaV2Config(**SIZES, **DEBERTA, vocab_size=len(SPECIAL) + 8)
    transformers.DebertaV2ForSequenceClassification(other).save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"PairRM .* has no weights for head_layer"):
        load_judge(JudgeSettings("pairrm", str(tmp_path / "other")))


def test_pairrm_says_what_it_would_not_read(pairrm, tokenizer, monkeypatch):
    import windlm.judges.pairrm as module

    monkeypatch.setattr(module, "SOURCE_TOKENS", 6)
    monkeypatch.setattr(module, "CANDIDATE_TOKENS", 5)
    model, cut = PairRM(pairrm, tokenizer), PairRM(pairrm, tokenizer, truncate=True)
    assert len(model.encode("a", "b " * 3, "c " * 3)["input_ids"]) == 4 + 6 + 6  # what the prompt leaves is shared
    with pytest.raises(ValueError, match="The second of a pair has 7 tokens for PairRM, of which it reads 6"):
        model.encode("a", "b", "c " * 4)
    assert cut.encode("a " * 9, "b " * 9, "c") == model.encode("a " * 3, "b " * 2, "c")  # the ends are cut off
    model.check(["a", "a b c"], 2)
    for prompt, longest, room in (("a b c d", 2, 6), ("a b", 3, 4)):
        said = rf"Prompt 1 has {len(prompt.split()) + 3} tokens for PairRM; .* up to {longest} it may have {room}"
        with pytest.raises(ValueError, match=said):
            model.check(["a", prompt], longest)

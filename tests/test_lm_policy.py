"""A language model as a policy: exact log-probabilities, honest draws, enumeration."""

import copy

import numpy as np
import pytest
from scipy import stats

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from windlm.judges import RewardModel
from windlm.policy import LanguagePolicy, Samples
from windlm.sampling import inverse_cdf
from windlm.tabular import Enumeration, small_policy
from windlm.weights import WeightSnapshots

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
PROMPTS = ["a", "b a c", "c c"]
TEMPLATE = "{% for m in messages %}{{ 'a b ' if m.role == 'user' else 'c ' }}{{ m.content }} {% endfor %}c"


@pytest.fixture(scope="module")
def policy():
    return small_policy(letters=4, length=3, width=16, spread=0.4)


def with_model(policy, model, **settings):
    return LanguagePolicy(model, policy.tokenizer, **{"max_new_tokens": policy.max_new_tokens} | settings)


def tiny(kind):
    sizes = {"vocab_size": 5, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    more = {"intermediate_size": 32, "max_position_embeddings": 32, "eos_token_id": 4, "bos_token_id": 4}
    torch.manual_seed(1)
    if kind == "llama":
        config = transformers.LlamaConfig(**sizes, **more, num_key_value_heads=1, initializer_range=0.4, pad_token_id=4)
        return transformers.LlamaForCausalLM(config)
    config = transformers.Gemma2Config(
        **sizes, **more, num_key_value_heads=1, head_dim=8, initializer_range=0.4, final_logit_softcapping=0.5,
        pad_token_id=4, sliding_window=16,
    )  # fmt: skip
    return transformers.Gemma2ForCausalLM(config)


def one_token_at_a_time(model, samples):
    """The same by the chain rule, one unpadded sequence and one token at a time."""
    out = np.zeros(samples.tokens.shape[:2])
    for b, prompt in enumerate(samples.prompts):
        for k in range(out.shape[1]):
            ids = list(prompt)
            for token in samples.tokens[b, k][samples.mask[b, k]].tolist():
                row = torch.tensor([ids])
                logits = model(input_ids=row, attention_mask=torch.ones_like(row), use_cache=False).logits[0, -1]
                out[b, k] += float(logits.double().log_softmax(-1)[token].detach())
                ids.append(token)
    return out


# -- scoring -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2"])
def test_log_probabilities_are_those_of_a_token_loop(policy, kind, rng):
    ours = policy if kind == "gpt2" else with_model(policy, tiny(kind))
    samples = ours.sample(PROMPTS, 6, rng)
    lengths = samples.mask.sum(-1)
    ended = (samples.tokens[..., -1] == 4) & samples.mask[..., -1]
    assert lengths.min() < 3  # some end early,
    assert ((lengths == 3) & ~ended).any()  # some are cut
    expected = one_token_at_a_time(ours.model, samples)
    np.testing.assert_allclose(ours.log_prob(samples), expected, atol=2e-5)
    assert ours._split == (kind != "gemma2")  # capped logits are not the output layer of hidden states
    # what the cache gave while drawing is what scoring sees: a batch of one, a response of one
    one = samples[[1]].first(1)
    np.testing.assert_allclose(ours.log_prob(one), expected[1:2, :1], atol=2e-5)
    pieces = with_model(policy, ours.model, logits_chunk=4, forward_batch_size=1)
    np.testing.assert_allclose(pieces.log_prob(samples), expected, atol=2e-5)


def test_scoring_in_pieces_has_the_same_gradient_and_never_all_logits(policy, rng):
    samples = policy.sample(PROMPTS, 8, rng)
    grads, sizes = [], []
    for chunk in (10_000, 5):
        ours = with_model(policy, copy.deepcopy(policy.model), logits_chunk=chunk)
        ours(samples[[0]])  # the probe
        ours.model.lm_head.register_forward_hook(lambda m, i, out: sizes.append(len(out)))
        ours(samples).square().sum().backward()
        grads.append({n: p.grad for n, p in ours.model.named_parameters()})
        n, widest, sizes[:] = samples.n_tokens, max(sizes), []
        assert widest == min(chunk, n)
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-4, atol=1e-5)


def test_bfloat16_scores_in_single_precision(policy, rng):
    samples = policy.sample(PROMPTS, 4, rng)
    half = with_model(policy, copy.deepcopy(policy.model).bfloat16())
    found = half.log_prob(samples)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, policy.log_prob(samples), rtol=0.05, atol=0.1)


def test_chat_template(policy, rng):
    ours = with_model(policy, policy.model)
    ours.tokenizer = copy.deepcopy(policy.tokenizer)
    ours.tokenizer.chat_template = TEMPLATE
    talk = [{"role": "user", "content": "d"}]
    assert ours.encode([talk]) == policy.encode(["a b d c"])
    samples = ours.sample([talk, "a"], 3, rng)
    np.testing.assert_allclose(ours.log_prob(samples), one_token_at_a_time(ours.model, samples), atol=2e-5)


def test_dropout_stays_off(policy, rng):
    config = copy.deepcopy(policy.model.config)
    config.resid_pdrop = config.embd_pdrop = config.attn_pdrop = 0.5
    ours = with_model(policy, transformers.GPT2LMHeadModel(config))
    samples = ours.sample(PROMPTS, 2, rng)
    ours.train()
    assert torch.equal(ours(samples), ours(samples))


# -- drawing -------------------------------------------------------------------------------------------------


def p_value(policy, enumeration, log_p, prompts, n):
    """Chi-square of drawn frequencies against probabilities, the rare responses together."""
    index = enumeration.index(policy.sample(prompts, n, np.random.default_rng(3)))
    values = []
    for b in range(len(prompts)):
        expected, seen = n * np.exp(log_p[b]), np.bincount(index[b], minlength=len(enumeration))
        rare = expected < 8
        expected = np.append(expected[~rare], expected[rare].sum())
        seen = np.append(seen[~rare], seen[rare].sum())
        expected, seen = expected[expected > 0], seen[expected > 0]
        values.append(stats.chisquare(seen, expected * seen.sum() / expected.sum()).pvalue)
    return min(values)


def test_frequencies_are_the_enumerated_probabilities(policy):
    enumeration = Enumeration.of(policy)
    log_p = enumeration.log_policy(PROMPTS)
    assert p_value(policy, enumeration, log_p, PROMPTS, 20_000) > 1e-3
    warm = with_model(policy, policy.model, temperature=1.15)  # the same test sees a temperature of 1.15
    assert p_value(warm, enumeration, log_p, PROMPTS, 20_000) < 1e-6


def test_temperature_and_top_p_change_draws_and_not_scores(policy):
    enumeration = Enumeration.of(policy)
    warm = with_model(policy, policy.model, temperature=2.0, top_p=0.7)
    expected = np.zeros((1, len(enumeration)))
    for i, (tokens, mask) in enumerate(zip(enumeration.tokens, enumeration.mask, strict=True)):
        ids = policy.encode(["b a c"])[0]
        for token in tokens[mask].tolist():
            row = torch.tensor([ids])
            logits = policy.model(row, attention_mask=torch.ones_like(row)).logits[0, -1].detach().double() / 2
            p = logits.softmax(-1).numpy()
            order = np.argsort(-p)
            kept = order[: int(np.searchsorted(np.cumsum(p[order]), 0.7)) + 1]
            expected[0, i] += np.log(p[token] / p[kept].sum()) if token in kept else -np.inf
            ids = [*ids, token]
    assert np.isclose(np.exp(expected).sum(), 1)
    assert p_value(warm, enumeration, expected, ["b a c"], 10_000) > 1e-3
    samples = warm.sample(["b a c"], 50, np.random.default_rng(0))
    assert (expected[0][enumeration.index(samples)] > -np.inf).all()
    assert torch.equal(warm.log_prob(samples), policy.log_prob(samples))


def test_draws_belong_to_the_prompt_and_not_to_the_batch(policy):
    def streams(which):
        return [np.random.default_rng([5, i]) for i in which]

    together = policy.sample(PROMPTS, 40, streams(range(3)))
    alone = with_model(policy, policy.model, forward_batch_size=7).sample([PROMPTS[2], PROMPTS[0]], 40, streams([2, 0]))
    assert torch.equal(together[[2, 0]].tokens, alone.tokens)
    assert torch.equal(together[[2, 0]].mask, alone.mask)
    assert together[[2, 0]].text == alone.text


def test_inverse_cdf_never_returns_what_has_no_probability():
    log_p = torch.log(torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]]))
    u = torch.tensor([0.0, 0.4999, 0.5, 1 - 1e-9], dtype=torch.float64)
    assert inverse_cdf(log_p.expand(4, -1), u).tolist() == [1, 1, 3, 3]


def test_stop_text_ends_a_response_and_counts(policy, rng):
    ours = with_model(policy, policy.model, stop=["b"])
    samples = ours.sample(PROMPTS, 40, rng)
    assert any(t.endswith("b") for row in samples.text for t in row)
    assert all("b" not in t[:-1] for row in samples.text for t in row)
    np.testing.assert_allclose(ours.log_prob(samples), one_token_at_a_time(ours.model, samples), atol=2e-5)


# -- enumeration ---------------------------------------------------------------------------------------------


def test_enumeration_is_complete_and_agrees_with_scoring(policy, rng):
    enumeration = Enumeration.of(policy)
    assert len(enumeration) == 1 + 4 + 16 + 64
    log_p = enumeration.log_policy(PROMPTS)
    np.testing.assert_allclose(np.exp(log_p).sum(-1), 1, atol=1e-12)
    np.testing.assert_allclose(policy.log_prob(enumeration.samples(PROMPTS)), log_p, atol=2e-5)
    samples = policy.sample(PROMPTS, 9, rng)
    np.testing.assert_allclose(
        np.take_along_axis(log_p, enumeration.index(samples), -1), policy.log_prob(samples), atol=2e-5
    )


def test_a_table_goes_back_into_a_transformer(rng):
    ours = small_policy(letters=3, length=2, width=32)
    enumeration = Enumeration.of(ours)
    target = np.log(rng.dirichlet(np.ones(len(enumeration)), size=2))
    left = enumeration.fit(["a", "b"], target, steps=300)
    found = enumeration.log_policy(["a", "b"])
    np.testing.assert_allclose(left, (np.exp(target) * (target - found)).sum(-1))
    assert left.max() < 1e-3


def test_what_cannot_be_enumerated_says_so(policy):
    with pytest.raises(ValueError, match="more than the limit of 10"):
        Enumeration.of(policy, limit=10)
    with pytest.raises(ValueError, match="exactly one end token"):
        Enumeration.of(with_model(policy, policy.model, stop=["b"]))


# -- weights set aside ---------------------------------------------------------------------------------------


def adapted(policy):
    model = copy.deepcopy(policy.model)
    config = peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    return with_model(policy, peft.get_peft_model(model, config))


def shake(policy):
    with torch.no_grad():
        for p in policy.model.parameters():
            if p.requires_grad:
                p.add_(0.3)


@pytest.mark.parametrize("lora", [False, True])
def test_snapshots_bring_policies_back(policy, rng, tmp_path, lora):
    ours = adapted(policy) if lora else with_model(policy, copy.deepcopy(policy.model))
    samples = ours.sample(PROMPTS, 3, rng)
    snapshots = WeightSnapshots(ours, tmp_path)
    snapshots.save("ref")
    before = ours.log_prob(samples)
    torch.testing.assert_close(before, policy.log_prob(samples))
    if lora:
        assert all("lora" in name for name in snapshots.weights())
    shake(ours)
    after = ours.log_prob(samples)
    assert not torch.allclose(before, after)
    with snapshots.using("ref"):
        assert torch.equal(ours.log_prob(samples), before)
    assert torch.equal(ours.log_prob(samples), after)
    snapshots.blend("ref", 1.0)
    snapshots.load("ref")
    assert torch.equal(ours.log_prob(samples), after)


def test_an_adapter_learns_and_its_reference_stays(policy, rng):
    ours = adapted(policy)
    samples = ours.sample(PROMPTS, 3, rng)
    base = ours.log_prob(samples)
    ours(samples).sum().backward()
    moved = [p for p in ours.model.parameters() if p.requires_grad]
    assert any(p.grad is not None and bool(p.grad.any()) for p in moved)
    shake(ours)
    with ours.model.disable_adapter():
        assert torch.equal(ours.log_prob(samples), base)


# -- bad input -----------------------------------------------------------------------------------------------


def test_bad_input(policy, rng):
    with pytest.raises(ValueError, match="Prompt 1 is empty"):
        policy.sample(["a", ""], 2, rng)
    with pytest.raises(ValueError, match=r"Prompt 0 has 14 tokens.*context of 16"):
        policy.sample(["a " * 14], 2, rng)
    long = Samples([[0] * 14], torch.zeros(1, 1, 4, dtype=torch.long), torch.ones(1, 1, 4, dtype=torch.bool), [["x"]])
    with pytest.raises(ValueError, match="14 tokens with a response of 4 does not fit"):
        policy.log_prob(long)
    with pytest.raises(ValueError, match="k must be"):
        policy.sample(["a"], 0, rng)
    with pytest.raises(ValueError, match="2 prompts, but 1 generators"):
        policy.sample(["a", "b"], 2, [rng])
    for bad in ({"max_new_tokens": 0}, {"temperature": 0.0}, {"top_p": 0.0}, {"logits_chunk": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            with_model(policy, policy.model, **bad)


def test_a_tokenizer_without_an_end(policy):
    tokenizer = copy.deepcopy(policy.tokenizer)
    tokenizer.eos_token = None
    model = copy.deepcopy(policy.model)
    model.generation_config.eos_token_id = None
    with pytest.raises(ValueError, match="no end-of-sequence token"):
        LanguagePolicy(model, tokenizer)
    LanguagePolicy(model, tokenizer, stop=["a"])


# -- prompts that are rendered already -----------------------------------------------------------------------


@pytest.fixture
def opening():
    """A tokenizer that puts a beginning-of-sequence token before every text."""
    from tokenizers import processors

    tokenizer = copy.deepcopy(small_policy(letters=4).tokenizer)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    start = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", start)]
    )
    return tokenizer, start


def test_a_prompt_that_begins_with_the_first_token_has_it_once(opening):
    tokenizer, start = opening
    wide = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=6, n_embd=8, n_layer=1, n_head=1))
    ours = LanguagePolicy(wide, tokenizer, max_new_tokens=2)
    plain, rendered = ours.encode(["a b", "<s> a b"])
    assert plain == rendered
    assert plain.count(start) == 1
    twice, inside = ours.encode(["<s> <s> a", "a <s> b"])  # what is asked for is given
    assert (twice.count(start), inside.count(start)) == (2, 2)
    tokenizer.chat_template = "<s> {% for m in messages %}{{ m.content }} {% endfor %}"
    (chat,) = ours.encode([[{"role": "user", "content": "a b"}]])
    assert chat == plain


def test_a_reward_model_sees_the_first_token_once(opening):
    tokenizer, _ = opening
    sizes = {"vocab_size": len(tokenizer), "n_embd": 8, "n_layer": 1, "n_head": 1, "num_labels": 1}
    reward = RewardModel(
        transformers.GPT2ForSequenceClassification(transformers.GPT2Config(**sizes, pad_token_id=4)), tokenizer
    )
    one, other = reward(["a ", "<s> a "], ["b", "b"])
    assert one == pytest.approx(other, rel=1e-5)


# -- ends and pads -------------------------------------------------------------------------------------------


def test_a_text_to_go_on_with_has_no_end(opening, policy):
    """Some tokenizers put an end token after every text, or a separator; one that is asked for stays."""
    from tokenizers import processors

    tokenizer, start = opening
    end = tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"<s> $A {tokenizer.eos_token}", special_tokens=[("<s>", start), (tokenizer.eos_token, end)]
    )
    assert tokenizer("a b")["input_ids"][-1] == end
    wide = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=6, n_embd=8, n_layer=1, n_head=1))
    ours = LanguagePolicy(wide, tokenizer, max_new_tokens=2)
    bare = policy.encode(["a b"])[0]
    plain, rendered, asked = ours.encode(["a b", "<s> a b", f"a b {tokenizer.eos_token}"])
    assert plain == rendered == [start, *bare]
    assert asked == [start, *bare, end]


def test_every_end_token_ends_a_response(policy, rng):
    model = copy.deepcopy(policy.model)
    model.generation_config.eos_token_id = [0, 2]
    ours = with_model(policy, model)
    assert ours.stop_ids == [0, 2, 4]
    tokens = ours.sample(PROMPTS, 60, rng)
    for row, mask in zip(tokens.tokens.flatten(0, 1), tokens.mask.flatten(0, 1), strict=True):
        ids = row[mask].tolist()
        assert not set(ids[:-1]) & {0, 2, 4}
    ends = {t[m][-1].item() for t, m in zip(tokens.tokens.flatten(0, 1), tokens.mask.flatten(0, 1), strict=True)}
    assert {0, 2, 4} <= ends


def test_the_end_of_a_turn_in_the_chat_template_ends_a_response(policy):
    tokenizer = copy.deepcopy(policy.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["c"]})
    turn = tokenizer.convert_tokens_to_ids("c")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} c {% endfor %}"
    assert LanguagePolicy(policy.model, tokenizer, max_new_tokens=2).stop_ids == [turn, 4]
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} b {% endfor %}"  # an ordinary word
    assert LanguagePolicy(policy.model, tokenizer, max_new_tokens=2).stop_ids == [4]
    tokenizer.chat_template = "{{ raise_exception('three messages, please') }}"
    assert LanguagePolicy(policy.model, tokenizer, max_new_tokens=2).stop_ids == [4]


@pytest.mark.parametrize("pad", [17, -1])
def test_a_pad_token_without_an_embedding_is_not_used(policy, rng, pad, monkeypatch):
    want = policy.sample(PROMPTS, 5, np.random.default_rng(0))
    tokenizer = copy.deepcopy(policy.tokenizer)
    monkeypatch.setattr(type(tokenizer), "pad_token_id", property(lambda self: pad), raising=False)
    ours = LanguagePolicy(policy.model, tokenizer, max_new_tokens=policy.max_new_tokens)
    assert ours.pad_id == 4
    samples = ours.sample(PROMPTS, 5, np.random.default_rng(0))
    assert torch.equal(samples.tokens[samples.mask], want.tokens[want.mask])
    torch.testing.assert_close(ours.log_prob(samples), policy.log_prob(want))


def test_a_token_without_an_embedding_is_named(policy):
    tokenizer = copy.deepcopy(policy.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<new>"]})
    ours = LanguagePolicy(policy.model, tokenizer, max_new_tokens=2)
    with pytest.raises(
        ValueError, match=r"Prompt 1 has the token 5, '<new>', but the model has embeddings of 5 tokens"
    ):
        ours.encode(["a", "a <new>"])
    model = copy.deepcopy(policy.model)
    tokenizer.eos_token = "<new>"
    model.generation_config.eos_token_id = None
    with pytest.raises(ValueError, match="no end-of-sequence token"):
        LanguagePolicy(model, tokenizer)


# -- bfloat16 over float32 weights ---------------------------------------------------------------------------


def test_autocast_samples_what_it_scores(policy, rng):
    """In bfloat16 both, and near what float32 says; the frequencies are those of its own probabilities."""
    ours = with_model(policy, policy.model)
    ours.autocast = torch.bfloat16
    samples = ours.sample(PROMPTS, 40, rng)
    found = ours.log_prob(samples)
    with torch.autocast("cpu", torch.bfloat16):
        expected = one_token_at_a_time(policy.model, samples)
    np.testing.assert_allclose(found, expected, atol=0.03)
    assert not torch.allclose(found, policy.log_prob(samples), atol=1e-4)
    assert {p.dtype for p in policy.model.parameters()} == {torch.float32}
    seen = []
    hook = policy.model.transformer.h[0].mlp.c_fc.register_forward_hook(lambda m, i, out: seen.append(out.dtype))
    ours.sample(["a"], 1, rng)
    drawn, seen[:] = {*seen}, []
    ours.log_prob(samples[[0]])
    hook.remove()
    assert drawn == {*seen} == {torch.bfloat16}

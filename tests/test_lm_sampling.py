"""Drawing with prompts that wait, and scoring with responses that share a row, over many architectures."""

import inspect

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from windlm.policy import LanguagePolicy, Samples, pack_rows
from windlm.tabular import small_policy

COMMON = {"vocab_size": 5, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
MORE = {"intermediate_size": 64, "max_position_embeddings": 128, "initializer_range": 0.4, "num_key_value_heads": 2}
IDS = {"eos_token_id": 4, "bos_token_id": 4, "pad_token_id": 4}
LLAMA = COMMON | MORE | IDS
GPT2 = {"vocab_size": 5, "n_positions": 128, "n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.4, **IDS}
HYBRID = LLAMA | {"num_hidden_layers": 2, "head_dim": 8}
SHARING = {
    "GPT2": GPT2,
    "Llama": LLAMA,
    "Gemma2": LLAMA | {"head_dim": 8, "sliding_window": 64, "initializer_range": 0.1},
    "Gemma3": LLAMA | {"head_dim": 8, "sliding_window": 64, "initializer_range": 0.1},
    "Qwen3": LLAMA | {"head_dim": 8},
    "Mixtral": LLAMA,
    "GPTNeoX": COMMON | IDS | {"intermediate_size": 64, "max_position_embeddings": 128, "initializer_range": 0.2},
    "OPT": COMMON | IDS | {"ffn_dim": 64, "max_position_embeddings": 128, "word_embed_proj_dim": 32, "init_std": 0.4},
    "Falcon": COMMON | IDS | {"max_position_embeddings": 128, "initializer_range": 0.4},
    "Granite": LLAMA,
}
ALONE = {  # these cannot share a row: no position ids, positions in the mask, windows, recurrent states
    "Bloom": {"vocab_size": 5, "hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.4, **IDS},
    "Mpt": {"vocab_size": 5, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128, **IDS},
    "Mistral": LLAMA | {"sliding_window": 6},
    "Lfm2": HYBRID | {"layer_types": ["conv", "full_attention"], "block_ff_dim": 64},
    "Qwen3Next": HYBRID
    | {"layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 2}
    | {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "num_experts": 2, "num_experts_per_tok": 1}
    | {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    "FalconH1": HYBRID | {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8},
}
if "cache" in inspect.signature(transformers.MambaForCausalLM.forward).parameters:  # since transformers 5.24
    MAMBA = COMMON | IDS | {"state_size": 8, "initializer_range": 0.4}
    ALONE |= {"Mamba": MAMBA, "Mamba2": MAMBA | {"num_heads": 4, "head_dim": 16, "n_groups": 1}}
PROMPTS = ["a", "b a c", "c c", "a b c a b", "b"]
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def tokenizer():
    return small_policy(letters=4, length=3, width=16, spread=0.4).tokenizer


def make(kind, settings, tokenizer, **more):
    config = getattr(transformers, f"{kind}TextConfig" if kind == "Gemma3" else f"{kind}Config")(**settings)
    torch.manual_seed(1)
    name = f"{kind}LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM"
    return LanguagePolicy(getattr(transformers, name)(config), tokenizer, **{"max_new_tokens": 7} | more)


def by_the_chain_rule(model, samples):
    """The same, one unpadded sequence a time and without a cache."""
    out = np.zeros(samples.tokens.shape[:2])
    for b, prompt in enumerate(samples.prompts):
        for k in range(out.shape[1]):
            own = samples.tokens[b, k][samples.mask[b, k]].tolist()
            row = torch.tensor([[*prompt, *own]])
            with torch.no_grad():
                logits = model(input_ids=row, attention_mask=torch.ones_like(row), use_cache=False).logits[0]
            log_p = logits.double().log_softmax(-1)[len(prompt) - 1 : -1]
            out[b, k] = float(log_p[torch.arange(len(own)), own].sum())
    return out


def drawn_by_the_chain_rule(policy, prompt, uniform):
    """A response from its uniform numbers, one token at a time and without a cache."""
    ids = list(prompt)
    for u in uniform:
        row = torch.tensor([ids])
        with torch.no_grad():
            logits = policy.model(input_ids=row, attention_mask=torch.ones_like(row), use_cache=False).logits[0, -1]
        ids.append(int(np.searchsorted(np.cumsum(logits.double().softmax(-1).numpy()), u, side="right")))
        if ids[-1] in policy.stop_ids:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("kind", [*SHARING, *ALONE])
def test_draws_and_scores_are_those_of_a_token_loop(kind, tokenizer):
    policy = make(kind, (SHARING | ALONE)[kind], tokenizer, forward_batch_size=6)  # two prompts at a time, three wait
    samples = policy.sample(PROMPTS, 3, [np.random.default_rng(i) for i in range(len(PROMPTS))])
    lengths = samples.mask.sum(-1)
    assert lengths.min() < lengths.max()
    for i, prompt in enumerate(samples.prompts):
        uniform = np.random.default_rng(i).random((3, 7))
        for j in range(3):
            own = samples.tokens[i, j][samples.mask[i, j]].tolist()
            assert own == drawn_by_the_chain_rule(policy, prompt, uniform[j])
    expected = by_the_chain_rule(policy.model, samples)
    np.testing.assert_allclose(policy.log_prob(samples), expected, atol=1e-4)
    np.testing.assert_allclose(samples.known["current"].sum(-1), expected, atol=1e-4)
    shared = policy._responses_per_row(samples)
    assert (shared > 1) == (kind in SHARING)


def test_only_log_probs_of_the_policy_itself_are_known_from_sampling(tokenizer):
    policy = make("Llama", LLAMA, tokenizer)
    others = [make("Llama", LLAMA, tokenizer, temperature=0.7), make("Llama", LLAMA, tokenizer, top_p=0.9)]
    others.append(make("Llama", LLAMA, tokenizer))
    others[-1].model.to(torch.bfloat16)
    others.append(make("Llama", LLAMA, tokenizer))
    others[-1].rescore = True
    for other in others:
        assert not other.sample(PROMPTS, 2, np.random.default_rng(0)).known
    samples = policy.sample(PROMPTS, 3, np.random.default_rng(0))
    some = samples[[3, 1]].at([2, 0])
    np.testing.assert_allclose(some.known["current"].sum(-1), policy.log_prob(some), atol=1e-4)
    assert not Samples.beside([samples, samples]).known
    assert not Samples.stack([samples, samples]).known


def test_a_model_without_a_cache_is_refused_by_name(tokenizer):
    policy = make("Llama", LLAMA, tokenizer)
    policy.model.forward = lambda input_ids, attention_mask=None, use_cache=False: None
    with pytest.raises(ValueError, match="LlamaForCausalLM keeps no keys and values"):
        policy.sample(PROMPTS, 1, np.random.default_rng(0))


@pytest.mark.parametrize("per_row", [2, 3, 6])
def test_gradients_do_not_depend_on_how_responses_share_rows(per_row, tokenizer, rng):
    policy = make("Llama", LLAMA, tokenizer)
    samples = policy.sample(PROMPTS, 6, rng)
    weight = torch.from_numpy(rng.normal(size=(5, 6))).float()

    def gradients(g):
        policy.model.zero_grad()
        (policy._score(samples, samples.mask.sum(-1), g) * weight).sum().backward()
        return torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None])

    alone = gradients(1)
    torch.testing.assert_close(gradients(per_row), alone, rtol=1e-4, atol=1e-4 * float(alone.abs().max()))


@pytest.mark.parametrize("seed", range(3))
def test_scores_and_gradients_do_not_depend_on_the_batches(seed, tokenizer):
    """Random lengths, in batches of any budget, are those of one response at a time."""
    rng, policy = np.random.default_rng(seed), make("Llama", LLAMA, tokenizer)
    b, k = 7, 4
    lengths = torch.from_numpy(rng.integers(1, 12, (b, k)))
    tokens = torch.from_numpy(rng.integers(0, 5, (b, k, 11)))
    prompts = [rng.integers(0, 5, rng.integers(1, 30)).tolist() for _ in range(b)]
    samples = Samples(prompts, tokens, torch.arange(11) < lengths[..., None], [[""] * k] * b)
    weight = torch.from_numpy(rng.normal(size=(b, k))).float()

    def gradients(parts, score):
        policy.model.zero_grad()
        for part in parts:
            (score(samples[part]) * weight[part]).sum().backward()
        return torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None])

    plain = gradients([[i] for i in range(b)], lambda one: policy._score(one, one.mask.sum(-1), 1))
    scores = torch.cat([policy._score(samples[[i]], lengths[[i]], 1) for i in range(b)]).detach()
    sizes = []
    for budget in (1, 60, 150, 8192):
        policy.tokens_per_batch = budget
        batches = policy.batches(samples)
        assert sorted(i for batch in batches for i in batch) == list(range(b))
        for batch in batches:
            rows = pack_rows(samples[batch], lengths[batch], policy._responses_per_row(samples[batch]), 0)[0]
            assert len(batch) == 1 or rows.numel() <= budget
        sizes.append(len(batches))
        torch.testing.assert_close(policy.log_prob(samples), scores, rtol=1e-5, atol=1e-4)
        packed = gradients(batches, policy)
        torch.testing.assert_close(packed, plain, rtol=1e-4, atol=1e-4 * float(plain.abs().max()))
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (b, 1)


def test_a_row_holds_a_prompt_and_its_responses():
    tokens = torch.tensor([[[1, 2, 3], [4, 9, 9]], [[5, 6, 9], [7, 8, 5]]])
    mask = torch.tensor([[[1, 1, 1], [1, 0, 0]], [[1, 1, 0], [1, 1, 1]]]).bool()
    samples = Samples([[10], [11, 12]], tokens, mask, [["", ""]] * 2)
    rows, sees, positions, (row, column) = pack_rows(samples, mask.sum(-1), 2, pad_id=0)
    assert rows.tolist() == [[10, 1, 2, 0, 0], [11, 12, 5, 7, 8]]
    assert positions.tolist() == [[0, 1, 2, 0, 0], [0, 1, 2, 2, 3]]
    # the last response of the second prompt sees the prompt and itself, not the other response
    assert sees[1, 4].tolist() == [True, True, False, True, True]
    assert row.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert column.tolist() == [0, 1, 2, 0, 1, 2, 1, 3, 4]


@pytest.mark.parametrize("rows", [4, 8, 20, 512])
def test_draws_do_not_depend_on_who_waits(rows, tokenizer):
    policy = make("Llama", LLAMA, tokenizer, forward_batch_size=512)
    prompts = [" ".join(p) for p in ("a", "abc", "cc", "abcab", "b", "bcbcbc", "ca")]
    all_at_once = policy.sample(prompts, 4, [np.random.default_rng(i) for i in range(7)])
    policy.forward_batch_size = rows
    some = policy.sample(prompts, 4, [np.random.default_rng(i) for i in range(7)])
    assert torch.equal(some.tokens, all_at_once.tokens)
    assert torch.equal(some.mask, all_at_once.mask)

"""What is saved is what was trained: adapters of every kind, tied weights, precisions."""

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

import lm_tiny
import numpy as np
from transformers import AutoModelForCausalLM, AutoTokenizer

from windlm import models
from windlm.models import ModelSettings, load_policy, save_merged
from windlm.policy import LanguagePolicy

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # peft's
    pytest.mark.filterwarnings("ignore:Model (has|with) `tie_word_embeddings=True`"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tied")
    lm_tiny.make(folder / "tied", tie_word_embeddings=True)
    lm_tiny.make(folder / "apart")
    return folder


def shaken(model, seed=0):
    """The model with other trainable weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model


def adapted(path, precision=torch.float32, **settings):
    net = AutoModelForCausalLM.from_pretrained(path, dtype=precision)
    config = peft.LoraConfig(**{"r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"} | settings)
    return LanguagePolicy(
        shaken(peft.get_peft_model(net, config)), AutoTokenizer.from_pretrained(path), max_new_tokens=8
    )


ADAPTERS = {
    "attention": {},
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "both, rsLoRA": {"target_modules": ["embed_tokens", "lm_head"], "use_rslora": True},
    "head, DoRA": {"target_modules": ["q_proj", "lm_head"], "use_dora": True},
    "whole head": {"modules_to_save": ["lm_head"]},
    "whole embeddings": {"modules_to_save": ["embed_tokens"]},
    "some tokens": {"trainable_token_indices": {"embed_tokens": [97, 98]}},
}


@pytest.mark.parametrize("base", ["tied", "apart"])
@pytest.mark.parametrize("kind", ADAPTERS)
def test_the_saved_model_is_the_trained_one(folder, tmp_path, kind, base):
    policy = adapted(folder / base, **ADAPTERS[kind])
    before = {n: p.detach().clone() for n, p in policy.model.named_parameters()}
    ids = torch.arange(90, 120)[None]
    with torch.no_grad():
        want = policy.model(ids).logits
        assert save_merged(policy, tmp_path / "model") < 1e-4
        found = AutoModelForCausalLM.from_pretrained(tmp_path / "model")(ids).logits
        again = policy.model(ids).logits
    torch.testing.assert_close(found, want, atol=1e-4, rtol=1e-4)
    assert torch.equal(again, want)
    assert all(torch.equal(p, before[n]) for n, p in policy.model.named_parameters())
    tied = json.loads((tmp_path / "model" / "config.json").read_text())["tie_word_embeddings"]
    assert tied == (base == "tied" and kind in ("attention", "some tokens"))


def test_a_model_that_is_not_the_trained_one_is_not_passed_off_as_it(folder, tmp_path, monkeypatch):
    policy = adapted(folder / "tied")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "before").touch()
    monkeypatch.setattr(models, "merged", lambda policy: AutoModelForCausalLM.from_pretrained(folder / "tied"))
    with pytest.raises(ValueError, match=r"model\.wrong is not the trained one: .* 8 responses differ by"):
        save_merged(policy, tmp_path / "model")
    assert (tmp_path / "model" / "before").exists()


def test_the_check_sees_a_small_difference_and_no_rounding(folder, tmp_path):
    policy = adapted(folder / "tied")
    samples = policy.sample(["ab", "c"], 4, np.random.default_rng(0))
    log_prob = policy.log_prob(samples)
    assert save_merged(policy, tmp_path / "model", samples, log_prob) < 1e-5
    with pytest.raises(ValueError, match="is not the trained one"):
        save_merged(policy, tmp_path / "model", samples, log_prob + 0.01)
    half = adapted(folder / "tied", torch.bfloat16, target_modules=["q_proj", "lm_head"])
    assert 0 < save_merged(half, tmp_path / "half") < 0.1
    with pytest.raises(ValueError, match="is not the trained one"):
        save_merged(half, tmp_path / "half", samples, half.log_prob(samples) + 0.4)


def test_weights_are_saved_in_the_precision_of_the_base(folder, tmp_path):
    AutoModelForCausalLM.from_pretrained(folder / "apart", dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    AutoTokenizer.from_pretrained(folder / "apart").save_pretrained(tmp_path / "half")
    policy = load_policy(ModelSettings(str(tmp_path / "half"), max_new_tokens=4))
    assert {p.dtype for p in policy.model.parameters()} == {torch.float32}
    save_merged(policy, tmp_path / "model")
    assert {p.dtype for p in AutoModelForCausalLM.from_pretrained(tmp_path / "model").parameters()} == {torch.bfloat16}
    policy.precision = None
    save_merged(policy, tmp_path / "model")
    assert {p.dtype for p in AutoModelForCausalLM.from_pretrained(tmp_path / "model").parameters()} == {torch.float32}


def test_an_adapter_that_ties_weights_itself_is_refused(folder):
    net = AutoModelForCausalLM.from_pretrained(folder / "tied")
    config = peft.LoraConfig(r=2, target_modules=["embed_tokens"], task_type="CAUSAL_LM", ensure_weight_tying=True)
    policy = LanguagePolicy(peft.get_peft_model(net, config), AutoTokenizer.from_pretrained(folder / "tied"))
    with pytest.raises(ValueError, match="turn that off"):
        models.check_mergeable(policy)

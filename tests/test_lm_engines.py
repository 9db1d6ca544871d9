"""Engines that sample in place of the built-in loop: a merged adapter, and a server (a stand-in, not vLLM)."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import lm_tiny
import servers
from safetensors.torch import load_file
from servers import url

from windlm import RewardJudge, wind
from windlm.engines import Server, merged_adapter, sample_merged
from windlm.models import LoraSettings, ModelSettings, load_policy
from windlm.train import Config, train

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's
PROMPTS = ["say a", "b", "say c", "tell me"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return lm_tiny.make(tmp_path_factory.mktemp("tiny") / "policy")


def adapted(folder, spread=0.3, precision="float32"):
    policy = load_policy(ModelSettings(folder, precision=precision, max_new_tokens=6), LoraSettings(rank=2))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in policy.model.named_parameters():
            if p.requires_grad and "lora_B" in name:
                p.copy_(spread * torch.randn(p.shape, generator=generator))
    return policy


def streams():
    return [np.random.default_rng(i) for i in range(len(PROMPTS))]


# -- a merged adapter ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_merged_adapter_is_the_policy_but_for_rounding_and_leaves_no_trace(folder, precision):
    policy = adapted(folder, precision=precision)
    samples = policy.sample(PROMPTS, 3, streams())
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    kept = policy.log_prob(samples)
    with policy.model.disable_adapter():
        base = policy.log_prob(samples)
    with merged_adapter(policy):
        merged = policy.log_prob(samples)
    assert (base - kept).abs().max() > 0.5  # the adapter does something
    torch.testing.assert_close(merged, kept, rtol=0, atol=1e-4 if precision == "float32" else 0.5)
    policy.engine = sample_merged
    drawn = policy.sample(PROMPTS, 3, streams())
    if precision == "float32":
        assert torch.equal(drawn.tokens, samples.tokens)
    for p in policy.model.parameters():
        p.requires_grad_(p.requires_grad)
    assert all(torch.equal(p, before[name]) for name, p in policy.model.named_parameters())
    assert [n for n, p in policy.model.named_parameters() if p.requires_grad] == [n for n in before if "lora" in n]
    with policy.model.disable_adapter():  # the reference is not merged
        theirs = policy.sample(PROMPTS, 3, streams())
        policy.engine = None
        assert torch.equal(theirs.tokens, policy.sample(PROMPTS, 3, streams()).tokens)


# -- a server ------------------------------------------------------------------------------------------------


class StandIn(servers.StandIn):
    """What `Server` uses of vLLM's documented protocol, with responses of its own."""

    def do_GET(self):
        assert self.path == "/v1/models"
        self.reply({"data": [{"id": self.server.base}, *({"id": name} for name in self.server.adapters)]})

    def do_POST(self):
        body = self.body()
        self.server.log.append((self.path.removeprefix("/v1/"), body))
        if self.path == "/v1/load_lora_adapter":
            if len(self.server.adapters) >= 2:
                return self.reply({"error": {"message": "no room"}}, 400)
            weights = load_file(Path(body["lora_path"]) / "adapter_model.safetensors")
            self.server.adapters[body["lora_name"]] = weights
            self.server.loaded.append(weights)
            return self.reply("Success: LoRA adapter added successfully.")
        if self.path == "/v1/unload_lora_adapter":
            del self.server.adapters[body["lora_name"]]
            return self.reply("Success: LoRA adapter removed successfully.")
        if body["model"] not in (self.server.base, *self.server.adapters):
            return self.reply({"error": {"message": f"The model {body['model']} does not exist."}}, 404)
        rng, end = np.random.default_rng(body["seed"]), body["stop_token_ids"][0]
        choices = [
            {"index": i, "text": "", "token_ids": [*rng.integers(0, end, rng.integers(0, 3)).tolist(), end]}
            for i in range(body["n"])
        ]
        if not self.server.knows_ids:
            choices = [{k: v for k, v in c.items() if k != "token_ids"} for c in choices]
        return self.reply({"choices": choices[::-1]})


@pytest.fixture
def server(folder):
    with servers.serving(StandIn) as made:
        made.base, made.adapters, made.log, made.loaded, made.knows_ids = folder, {}, [], [], True
        yield made


def test_a_run_samples_from_a_server_with_the_adapter_of_the_round(folder, server, tmp_path):
    policy = adapted(folder)
    policy.engine = Server(policy, url(server), tmp_path / "server")
    before = {n: p.detach().clone() for n, p in policy.model.named_parameters() if p.requires_grad}
    settings = {"reference": "base", "reference_draws": 2, "measure_final": False, "progress": False, "cpu": True}
    config = Config(tmp_path, rounds=2, draws=3, learning_rate=0.1, **settings)
    rows = train(policy, PROMPTS, RewardJudge(lm_tiny.vowels), wind(0.1, 0.5), config)
    assert len(rows) == 3
    asked = [body for what, body in server.log if what == "completions"]
    assert [body["model"] for body in asked[::4]] == ["adapter-000001", folder, "adapter-000002"]
    assert {tuple(body["prompt"]) for body in asked} == set(map(tuple, policy.encode(PROMPTS)))
    assert len({(body["model"], body["seed"]) for body in asked}) == len(asked)
    first, second = server.loaded
    assert len(first) == len(before)
    for name, weight in before.items():
        key = name.replace(".default", "")
        torch.testing.assert_close(first[key], weight)
    assert any(not torch.equal(first[key], second[key]) for key in first)
    assert list(server.adapters) == ["adapter-000002"]  # the other one was taken back
    assert [p.name for p in (tmp_path / "server").iterdir()] == ["adapter-000002"]
    assert set(asked[0]) >= {"top_k", "min_p", "repetition_penalty"}  # no settings of the model's own


def test_what_a_server_cannot_do_is_one_line(folder, server, tmp_path):
    policy = adapted(folder)
    with pytest.raises(ValueError, match="cannot be reached"):
        Server(policy, "http://127.0.0.1:9/v1", tmp_path)
    with pytest.raises(ValueError, match="samples with adapters"):
        Server(load_policy(ModelSettings(folder)), url(server), tmp_path)
    engine = policy.engine = Server(policy, url(server), tmp_path)
    server.knows_ids = False
    with pytest.raises(ValueError, match="no token ids"):
        policy.sample(PROMPTS, 2, streams())
    engine.loaded, server.adapters["another"] = None, {}
    with pytest.raises(ValueError, match=r"refused load_lora_adapter \(400\).*no room"):
        policy.sample(PROMPTS, 2, streams())
    server.base = "another model"
    with pytest.raises(ValueError, match="not the base model"):
        Server(policy, url(server), tmp_path)

"""The cost model's operations are those that torch counts when windlm samples, scores and trains."""

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("pandas")

from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import cost

from windlm import GRPO, BestOfN, JBond, Pairs, bond, sppo, wind
from windlm.cli.run import RunConfig
from windlm.cli.settings import settings
from windlm.models import LoraSettings, checkpoint_layers, with_adapter
from windlm.policy import LanguagePolicy, Samples
from windlm.tabular import small_policy

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 6}
SIZES |= {"num_key_value_heads": 2, "head_dim": 10, "vocab_size": 300, "max_position_embeddings": 512}


def policy(rank, **settings):
    tokenizer = small_policy(letters=4, length=3, width=16).tokenizer
    config = transformers.LlamaConfig(**SIZES, attn_implementation="eager", eos_token_id=4, bos_token_id=4)
    net = transformers.LlamaForCausalLM(config)
    net = with_adapter(net, LoraSettings(rank=rank)) if rank else net
    return LanguagePolicy(net, tokenizer, **settings)


def operations(call):
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("lengths", [cost.Lengths(20, 9, 4), cost.Lengths(3, 30, 2), cost.Lengths(60, 2, 6)])
@pytest.mark.parametrize("pieces", [False, True])
def test_operations_are_counted_as_torch_counts_them(rank, lengths, pieces):
    made = policy(rank, max_new_tokens=lengths.new, logits_chunk=5 if pieces else 4096)
    made.stop_ids = []
    ids = np.random.default_rng(0).integers(0, 300, (2, lengths.prompt)).tolist()
    made.encode = lambda prompts: prompts
    samples = made.sample(ids, lengths.draws, np.random.default_rng(0))
    made.log_prob(samples)  # what the model can do has been tried out
    shape, both = cost.Shape.of(made.base.config, rank), len(ids)
    found = operations(lambda: made.sample(ids, lengths.draws, np.random.default_rng(0)))
    assert found == pytest.approx(both * cost.drawing(shape, lengths), rel=0.01)
    per_row = made._responses_per_row(samples)
    shared = per_row == lengths.draws
    row = lengths if shared else cost.Lengths(lengths.prompt, lengths.new, 1)
    times = both * (1 if shared else lengths.draws)
    assert operations(lambda: made.log_prob(samples)) == pytest.approx(times * cost.scoring(shape, row), rel=0.01)
    found = operations(lambda: made(samples).sum().backward())
    expected = times * cost.training(shape, row, pieces=pieces, fused=False)
    assert found == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("rank", [0, 4])
def test_layers_that_are_computed_again_are_counted(rank):
    made, lengths = policy(rank, max_new_tokens=9), cost.Lengths(20, 9, 4)
    checkpoint_layers(made.base)
    made.stop_ids, made.encode = [], lambda prompts: prompts
    samples = made.sample([[5] * lengths.prompt], lengths.draws, np.random.default_rng(0))
    made.log_prob(samples)
    found = operations(lambda: made(samples).sum().backward())
    expected = cost.training(cost.Shape.of(made.base.config, rank), lengths, again=True, fused=False)
    assert found == pytest.approx(expected, rel=1e-9 if rank == 0 else 0.01)


class Counting:
    """A rollout that counts what an objective asks for."""

    def __init__(self):
        self.drawn, self.scored = 0, []

    def sample(self, slot, k):
        self.drawn += k
        tokens = torch.zeros(2, k, 3, dtype=torch.long)
        return Samples([[1], [2]], tokens, tokens == 0, [["a"] * k] * 2)

    def log_prob(self, samples, slot, per_token=False):
        self.scored += [slot] * samples.tokens.shape[1]
        return torch.zeros(samples.tokens.shape[: 3 if per_token else 2])

    def outcomes(self, samples, opponents=None):
        return torch.full((2, samples.tokens.shape[1], samples.tokens.shape[1]), 0.5)

    def rewards(self, samples):
        return np.zeros(samples.tokens.shape[:2])


def test_methods_draw_and_score_what_is_said():
    made = {"WIND": wind(0.1, 0.4), "SPPO": sppo(1.0), "BOND": bond(4), "J-BOND": JBond(), "best-of-n": BestOfN(2)}
    made |= {"GRPO": GRPO(), "online DPO": Pairs(0.1, "dpo")}
    assert list(made) == list(cost.METHODS)
    for name, objective in made.items():
        rollout = Counting()
        (stage,) = objective.stages(0.0)
        batch = objective.collect(stage, rollout, 4)
        slots = [slot for slot in rollout.scored if (name, slot) != ("online DPO", "current")]  # for metrics alone
        assert (rollout.drawn / 4, len(slots) / 4) == cost.METHODS[name]
        assert batch.samples.tokens.shape[1] == rollout.drawn


def test_the_setting_is_that_of_the_recipe():
    run = settings(RunConfig, ["--config", "recipe:llama3-8b"])
    first, *_ = cost.predicted()
    assert (run.train.draws, run.train.prompts_per_round) == (first["draws"], first["prompts"])
    assert (run.train.processes, run.lora.rank, run.model.forward_batch_size) == (8, cost.LLAMA.rank, cost.ROWS)
    assert {run.model.precision, run.judge.precision} == {"bfloat16"}
    assert run.train.mixed_precision == "bf16"
    assert run.gradient_checkpointing


def test_hours_are_operations_over_the_rate_that_is_reached(monkeypatch):
    """On a card without limits of memory they are in proportion to the operations, and below that to the bytes."""
    n = cost.Lengths(50, 20, 4)
    monkeypatch.setattr(cost, "GPUS", {"fast memory": (1e12, 1e30), "slow memory": (1e30, 1e12)})
    fast, slow = ({r["method"]: r for r in cost.predicted(n, 3600, 1) if r["card"] == card} for card in cost.GPUS)
    assert fast["SPPO"]["drawing_low"] == pytest.approx(cost.drawing(cost.LLAMA, n) / 1e12 / 0.5)
    weights = 2 * cost.LLAMA.parameters + 4 * cost.LLAMA.adapter
    keys = sum(2 * 2 * 32 * 8 * 128 * (50 + j) for j in range(1, 20))
    assert slow["SPPO"]["drawing_high"] == pytest.approx(4 * (19 * weights / 128 + keys) / 1e12 / 0.15)
    parts = [fast["J-BOND"][f"{name}_low"] for name in cost.SHARES]
    assert fast["J-BOND"]["hours_low"] == pytest.approx(sum(parts))
    assert slow["J-BOND"]["drawing_low"] == pytest.approx(2 * slow["SPPO"]["drawing_low"])


def test_sharing_the_prompt_costs_less_the_longer_it_is():
    gain = [cost.scoring(cost.LLAMA, n, shared=False) / cost.scoring(cost.LLAMA, n) for n in map(lengths_of, (1, 2, 8))]
    assert 1 < gain[0] < gain[1] < gain[2] < 8


def lengths_of(times):
    return cost.Lengths(64 * times, 64, 8)


def test_parameters_are_those_of_the_model():
    made = policy(0)
    shape = cost.Shape.of(made.base.config)
    norms = sum(p.numel() for name, p in made.base.named_parameters() if "norm" in name)
    embeddings = made.base.get_input_embeddings().weight.numel()  # not tied here
    assert shape.parameters == made.base.num_parameters() - norms - embeddings
    assert 7.4e9 < cost.LLAMA.parameters < 7.6e9  # 8.03e9 with the second embedding

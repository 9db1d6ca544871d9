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

from windlm.models import LoraSettings, with_adapter
from windlm.policy import LanguagePolicy
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

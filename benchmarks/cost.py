r"""What an iteration costs: operations of its parts as a function of model, lengths and draws, and seconds from them.

    python benchmarks/cost.py            two models timed on this machine, and the paper's 8B setting: minutes
    python benchmarks/cost.py --full     the same into the committed tables
    python benchmarks/cost.py --smoke --model FOLDER

For a decoder of :math:`L` layers, width :math:`d`, :math:`h` heads and :math:`g` key-value heads of width :math:`e`, an
inner width :math:`f` and a vocabulary of :math:`V`, its matrices have :math:`M = L(2dhe + 2dge + 3df)` numbers, and a
forward pass over :math:`n` tokens in which :math:`p` pairs of tokens attend to each other and :math:`m` tokens get
logits takes

.. math:: F(n, p, m) = 2Mn + 4Lhep + 2dVm

operations, additions and multiplications counted apart. Of a prompt of :math:`s` tokens with :math:`K` responses of
:math:`t` tokens:

- *drawing* computes the prompt once and then a token at a time:
  :math:`F(s, s^2, 1) + F(K(t-1), K\sum_{j<t}(s+j), K(t-1))`;
- *scoring* under one policy has the prompt and its responses in a row of :math:`n = s + K(t-1)` tokens:
  :math:`F(n, n^2, Kt)`. Other trainers compute the prompt with every response: :math:`K F(s+t, (s+t)^2, t)`;
- *training* an adapter goes forward, and backward to the activations but not to the weights of the model, which costs
  as much again, with twice the attention, or 2.5 times where its probabilities are computed again (a fused kernel).
  Logits that come in pieces, and with gradient checkpointing all layers but their last product, are computed twice;
- *judging* by a reward model of the same kind: :math:`K F(s+t, (s+t)^2, 0)`; by a model that reads all pairs in both
  orders: :math:`K(K-1) F(s+2t, (s+2t)^2, 0)`.

An adapter of rank :math:`r` adds :math:`r` times the sum of the widths of its matrices to :math:`M`, and in training
its own gradients. Norms, activations, softmax and sampling are not counted.

Seconds are operations by the rate that is reached, a share of the card's. Where a card draws :math:`R` responses at a
time, a token also reads its part of the weights, of 16 bits, and of the adapter, of 32, and its keys and values:
:math:`(2(M + dV) + 4A)/R + 4Lge(s+j)` bytes, :math:`A` being the adapter's numbers. Drawing then takes the seconds of
the prompt's operations, and of the tokens' operations or bytes, whichever are more.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("KMP_BLOCKTIME", "0")

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import tyro
from align import SMOLLM, weights
from study import QUICK, RESULTS, show, write_table

from windlm.allocator import keep_freed_memory
from windlm.models import LoraSettings, ModelSettings, load_policy, with_adapter
from windlm.policy import LanguagePolicy

ACTIVITIES = ("drawing", "scoring", "training")


@dataclass(frozen=True)
class Shape:
    """The shape of a decoder."""

    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    head_width: int
    vocabulary: int
    rank: int = 0
    """Rank of an adapter on all matrices of the layers; 0 for none."""

    @staticmethod
    def of(config: Any, rank: int = 0) -> Shape:
        """Return the shape that a transformers configuration describes."""
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return Shape(
            *(config.num_hidden_layers, config.hidden_size, config.intermediate_size),
            *(config.num_attention_heads, config.num_key_value_heads, head, config.vocab_size, rank),
        )

    @property
    def sides(self) -> list[tuple[int, int]]:
        """The widths of a layer's matrices."""
        d, q, kv = self.width, self.heads * self.head_width, self.kv_heads * self.head_width
        return [(d, q), (d, kv), (d, kv), (q, d), (d, self.inner), (d, self.inner), (self.inner, d)]

    @property
    def matrices(self) -> int:
        """Numbers in the matrices of all layers."""
        return self.layers * sum(a * b for a, b in self.sides)

    @property
    def adapter(self) -> int:
        """Numbers in the adapter."""
        return self.layers * self.rank * sum(a + b for a, b in self.sides)

    @property
    def parameters(self) -> int:
        """Numbers in the model without its adapter, norms left out, if input and output embeddings are one."""
        return self.matrices + self.width * self.vocabulary

    def forward(self, tokens: float, pairs: float, logits: float, adapter: bool = True) -> float:
        """Return the operations of a forward pass."""
        matrices = self.matrices + self.adapter * adapter
        return 2 * matrices * tokens + self.attention(pairs) + 2 * self.width * self.vocabulary * logits

    def attention(self, pairs: float) -> float:
        """Return the operations of attention between pairs of tokens."""
        return 4 * self.layers * self.heads * self.head_width * pairs


@dataclass(frozen=True)
class Lengths:
    """A prompt's tokens, a response's tokens, and the number of responses."""

    prompt: int
    new: int
    draws: int

    @property
    def row(self) -> int:
        """Tokens of a prompt and its responses in one row; from the last token of a response nothing is predicted."""
        return self.prompt + self.draws * (self.new - 1)


def prefill(shape: Shape, n: Lengths) -> float:
    """Return the operations of a prompt before its first token is drawn."""
    return shape.forward(n.prompt, n.prompt**2, 1)


def decoding(shape: Shape, n: Lengths) -> float:
    """Return the operations of the tokens that are drawn after the first ones."""
    pairs = n.draws * float((n.prompt + np.arange(1, n.new)).sum())
    decoded = n.draws * (n.new - 1)
    return shape.forward(decoded, pairs, decoded)


def drawing(shape: Shape, n: Lengths) -> float:
    """Return the operations of drawing the responses to a prompt."""
    return prefill(shape, n) + decoding(shape, n)


def scoring(shape: Shape, n: Lengths, shared: bool = True, adapter: bool = True) -> float:
    """Return the operations of scoring them under one policy, with the prompt computed once or with each response."""
    if shared:
        return shape.forward(n.row, n.row**2, n.draws * n.new, adapter)
    each = n.prompt + n.new
    return n.draws * shape.forward(each, each**2, n.new, adapter)


def training(
    shape: Shape,
    n: Lengths,
    shared: bool = True,
    again: bool = False,
    pieces: bool = False,
    fused: bool = True,
) -> float:
    """Return the operations of a forward and backward pass through them.

    Parameters
    ----------
    shared : bool
        Whether the prompt is computed once, or with each response.
    again, pieces, fused : bool
        What is computed twice: the layers (gradient checkpointing), the logits, the probabilities of attention.
    """
    tokens = n.row if shared else n.draws * (n.prompt + n.new)
    pairs = n.row**2 if shared else n.draws * (n.prompt + n.new) ** 2
    logits = n.draws * n.new
    forward = shape.forward(tokens, pairs, logits)
    own = 2 * (shape.adapter or shape.matrices) * tokens
    own += 0 if shape.rank else 2 * shape.width * shape.vocabulary * logits
    if shape.rank:  # nothing before the first layer is trained, so that its first three matrices pass no gradient on
        own -= 2 * sum(a * b + shape.rank * a for a, b in shape.sides[:3]) * tokens
    last = shape.layers * shape.width * (shape.rank or shape.inner)  # what only the next layer needs
    repeated = (shape.forward(tokens, pairs, 0) - 2 * last * tokens) * again + shape.forward(0, 0, logits) * pieces
    return 2 * forward + (1.5 if fused else 1) * shape.attention(pairs) + own + repeated


def judging(shape: Shape, n: Lengths, pairwise: bool = False) -> float:
    """Return the operations of a reward model, or of a model that reads all pairs in both orders."""
    each = n.prompt + (2 if pairwise else 1) * n.new
    return n.draws * (n.draws - 1 if pairwise else 1) * shape.forward(each, each**2, 0)


METHODS = {
    "WIND": (1, 2),
    "SPPO": (1, 1),
    "BOND": (1, 1),
    "J-BOND": (2, 2),
    "best-of-n": (1, 0),
    "GRPO": (1, 2),
    "online DPO": (1, 1),
}
"""Responses drawn, judged and trained on, in units of `K`; and passes over `K` responses to score them. J-BOND draws as
many from its anchor, and scores its own under both. What windlm computes for metrics alone is left out: the reference
for SPPO, BOND, J-BOND and best-of-n, the policy for best-of-n and online DPO."""


# -- measured ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    """What to do."""

    model: str | None = None
    """Folder of the smaller model; None for that of the installed package."""
    prompts: int = 4
    """Prompts that are timed together."""
    threads: int = 1
    """Threads of torch."""
    smoke: bool = False
    """Short lengths, for tests."""
    full: bool = False
    """Into the committed tables."""
    results: Path | None = None
    """Output folder; None for benchmarks/quick, with --full the committed one."""


LARGER = {"hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32} | {
    "num_attention_heads": 15,
    "num_key_value_heads": 5,
}
"""Sizes of SmolLM2-360M, with random weights: what they are costs no time."""


def larger(policy: LanguagePolicy, smoke: bool) -> LanguagePolicy:
    """Return a larger policy of random weights with the same tokenizer and settings."""
    from transformers import AutoModelForCausalLM

    config = type(policy.base.config)(**policy.base.config.to_dict() | ({"num_hidden_layers": 4} if smoke else LARGER))
    net = AutoModelForCausalLM.from_config(config, dtype=next(policy.base.parameters()).dtype)
    net = with_adapter(net, LoraSettings(rank=16))
    return LanguagePolicy(net, policy.tokenizer, max_new_tokens=policy.max_new_tokens)


def timed(policy: LanguagePolicy, n: Lengths, prompts: int) -> dict[str, float]:
    """Return the processor's seconds of each activity for a prompt; each is done twice, and the second one counts."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, policy.vocabulary, (prompts, n.prompt)).tolist()
    policy.max_new_tokens, policy.stop_ids = n.new, []
    policy.encode = lambda prompts: prompts  # type: ignore
    samples = policy.sample(ids, n.draws, rng)

    def step() -> None:
        policy(samples).sum().backward()

    def seconds(do: Callable[[], Any]) -> float:
        do()
        begun = time.process_time()
        do()
        return (time.process_time() - begun) / prompts

    calls: dict[str, Callable[[], Any]] = {"drawing": lambda: policy.sample(ids, n.draws, rng)}
    calls |= {"scoring": lambda: policy.log_prob(samples), "training": step}
    return {name: seconds(do) for name, do in calls.items()}


def counted(shape: Shape, n: Lengths) -> dict[str, float]:
    """Return the operations of each activity for a prompt."""
    return {"drawing": drawing(shape, n), "scoring": scoring(shape, n), "training": training(shape, n)}


def measured(config: Config) -> list[dict[str, Any]]:
    """Time two models; return what the rates of the first one, at the first lengths, predict of the others."""
    torch.set_num_threads(config.threads)
    name = config.model or str(weights(SMOLLM))
    settings = ModelSettings(name, precision="float32" if config.smoke else "bfloat16")
    policy = load_policy(settings, LoraSettings(rank=16))
    sizes = [Lengths(16, 8, 2), Lengths(32, 4, 2)] if config.smoke else [Lengths(128, 64, 8), Lengths(256, 32, 4)]
    cells = [(Path(name).name, policy, n) for n in sizes] + [("larger", larger(policy, config.smoke), sizes[0])]
    rows: list[dict[str, Any]] = []
    rates: dict[str, float] = {}
    for who, one, n in cells:
        operations = counted(Shape.of(one.base.config, 16), n)
        seconds = timed(one, n, config.prompts)
        rates = rates or {a: operations[a] / seconds[a] for a in ACTIVITIES}
        for a in ACTIVITIES:
            row = {
                "model": who,
                "parameters": sum(p.numel() for p in one.base.parameters()),
                **asdict(n),
                "activity": a,
            }
            row |= {"operations": operations[a], "seconds": seconds[a], "rate": operations[a] / seconds[a]}
            expected = operations[a] / rates[a]
            rows.append(row | {"predicted": expected, "ratio": expected / seconds[a]})
    return rows


# -- predicted -----------------------------------------------------------------------------------------------

LLAMA = Shape(32, 4096, 14336, 32, 8, 128, 128_256, rank=64)
"""Llama-3-8B with the adapter of our recipe."""
PAIRRM = Shape(24, 1024, 4096 * 2 // 3, 16, 16, 64, 0)
"""DeBERTa-v3-large, its two inner matrices counted as three smaller ones, its relative positions not at all."""
GPUS = {"A100": (312e12, 2.0e12), "H100": (989e12, 3.35e12)}
"""Operations and bytes a second of a card of 80 GB, dense bfloat16, as published."""
SHARES = {"drawing": (0.15, 0.5), "judging": (0.3, 0.5), "scoring": (0.3, 0.5), "training": (0.3, 0.5)}
"""Assumed shares of both that are reached, low and high; a token's many small kernels can keep a card waiting."""
ROWS = 128
"""Responses that a card draws at a time, with all weights on each card, as in our recipe."""


def predicted(n: Lengths = Lengths(200, 400, 5), prompts: int = 20_000, cards: int = 8) -> list[dict[str, Any]]:
    """Return the hours of an iteration of the paper's setting by method and card, from low and high shares.

    The prompt is computed once in scoring and training, or (not `shared`) with every response.
    """
    rows = []
    for (card, (rate, bandwidth)), method, shared in product(GPUS.items(), METHODS, (True, False)):
        drawn, scored = METHODS[method]
        tokens = max(decoding(LLAMA, n) / rate, bytes_read(LLAMA, n) / bandwidth)
        seconds = {
            "drawing": drawn * (prefill(LLAMA, n) / rate + tokens),
            "judging": judging(PAIRRM, replace(n, draws=drawn * n.draws), pairwise=True) / rate,
            "scoring": scored * scoring(LLAMA, n, shared) / rate,
            "training": drawn * training(LLAMA, n, shared, again=True, pieces=True) / rate,
        }
        row = {"method": method, "card": card, "shared": shared, "cards": cards, "prompts": prompts, **asdict(n)}
        for end, which in (("low", 1), ("high", 0)):
            hours = {a: x / SHARES[a][which] * prompts / cards / 3600 for a, x in seconds.items()}
            row |= {f"hours_{end}": sum(hours.values())} | {f"{a}_{end}": x for a, x in hours.items()}
        rows.append(row)
    return rows


def bytes_read(shape: Shape, n: Lengths) -> float:
    """Return the bytes that are read for the tokens of `decoding`."""
    weights = (2 * shape.parameters + 4 * shape.adapter) / ROWS
    cached = 4 * shape.layers * shape.kv_heads * shape.head_width * (n.prompt + np.arange(1, n.new))
    return n.draws * float((weights + cached).sum())


def main(config: Config) -> None:
    keep_freed_memory()
    begun = time.perf_counter()
    results = config.results or (RESULTS if config.full else QUICK)
    results.mkdir(parents=True, exist_ok=True)
    told = asdict(replace(config, model=None, results=None))
    table = pd.DataFrame(measured(config))
    write_table(table, "cost_measured", results, told, begun)
    others = table.ratio[len(ACTIVITIES) :]
    show("Seconds a prompt", table, f"Predicted are {others.min():.2f} to {others.max():.2f} times what was measured.")
    table = pd.DataFrame(predicted())
    write_table(table, "cost_8b", results, told, begun)
    columns = ["method", "card", "shared", "hours_low", "hours_high", "drawing_high", "judging_high", "scoring_high"]
    show("Hours of an iteration of 20,000 prompts on 8 cards", table[[*columns, "training_high"]], "Assumed, not run.")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))

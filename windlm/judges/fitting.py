r"""Fitting a judge to labelled pairs by maximum likelihood.

Three kinds, each a sequence classifier and an ordinary model folder, which ``--judge.kind`` reads:

- ``reward``: a reward model, :math:`\log\sigma(r(x, y) - r(x, y'))` (Bradley-Terry);
- ``pairwise``: a model that reads both responses, :math:`\log\sigma(m(x, y, y'))`, in both orders;
- ``general``: a model of embeddings, :math:`\log(\frac12 + a(x, y)^\top J a(x, y'))`, which may be intransitive.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

import windgames as wg

from ..data import Data, Pair, load_pairs, read
from ..evaluate.statistics import Interval, wilson
from ..files import write_atomically, write_text
from ..models import LoraSettings, Precision, checkpoint_layers, pretrained, source, with_adapter
from ..policy import Prompt
from ..schedules import rate
from .base import Judge, PairwiseJudge, RewardJudge, ask, key
from .reward_model import TEMPLATE, Classifier, EmbeddingJudge, EmbeddingModel, PairwiseModel, RewardModel, Row

WINDOW = 32
"""Batches among which pairs are sorted by length, so that those of a batch need little padding."""
PASS_TOKENS = 2048
"""The most tokens in a forward and backward pass, unless `micro_pairs` says otherwise: about 5 GB of activations for a
model of 135M parameters in float32."""
SHOWN = 256
"""The most held-out pairs that accuracy is measured on while the model trains."""


@dataclass(frozen=True)
class RewardModelConfig:
    """Fit a reward model, or another judge, to labelled pairs."""

    name: str
    """Initial model, by hub name or folder: a classifier, or a causal model, which gets a new output layer."""
    data: Data
    """Labelled pairs: columns chosen and rejected, or completions with scores."""
    out: Path
    """Output folder of the model. The same command resumes a run that was stopped."""
    kind: Literal["reward", "pairwise", "general"] = "reward"
    """Reward model (reward), a model that reads both responses (pairwise), or embeddings of responses (general), which
    like pairwise can be intransitive, at the price of a reward model."""
    dimension: int = 4
    """Even number of dimensions of the embeddings (general)."""
    held_out: float = 0.2
    """Fraction of the prompts held out to measure the accuracy; all pairs of a prompt are on one side."""
    epochs: int = 1
    """Passes over the training pairs."""
    batch_pairs: int = 8
    """Pairs per optimizer step."""
    micro_pairs: int | None = None
    """Pairs per forward and backward pass, which memory depends on; None for as many as have 2,048 tokens."""
    learning_rate: float | None = None
    """Peak learning rate of AdamW; None for 2e-4 with an adapter and 1e-5 without."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """Decay of the learning rate, after the warmup."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises."""
    max_grad_norm: float = 1.0
    """Largest norm of the gradient; longer ones are shortened to it."""
    lora: LoraSettings = field(default_factory=lambda: LoraSettings(rank=16))
    """Adapter, which is merged into the model in the end; rank 0 trains all weights."""
    precision: Precision = "float32"
    """Precision of the weights; adapter and new output layer are float32. Without an adapter it must be float32."""
    truncate: bool = False
    """Whether texts that exceed the model's context lose the beginning of their prompt; an error otherwise."""
    gradient_checkpointing: bool = False
    """Whether to recompute activations in the backward pass, which takes less memory and more time."""
    evaluations: int = 5
    """Number of times that held-out accuracy is measured and a checkpoint saved while it trains."""
    responses: str | None = None
    """File with columns prompt and responses (three or more texts each) on which to measure how intransitive the judge
    is; None for held-out prompts that have three answers."""
    seed: int = 0
    """Seed of the split, of the order of pairs, and of new weights."""
    progress: bool = True
    """Whether to show a progress bar."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_pairs", "micro_pairs"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but it is {getattr(self, name)}.")
        if self.kind == "general" and (self.dimension < 2 or self.dimension % 2):
            raise ValueError(f"dimension must be an even positive number, but it is {self.dimension}.")
        if not self.lora.rank and self.precision != "float32":
            raise ValueError(
                f"All weights in {self.precision} would lose small steps to rounding: train an adapter (lora.rank), or "
                f"in float32."
            )

    @property
    def rate(self) -> float:
        """The peak learning rate."""
        return self.learning_rate or (2e-4 if self.lora.rank else 1e-5)


@dataclass(frozen=True)
class Fitted:
    """What `fit` found."""

    accuracy: Interval
    """Share of held-out pairs whose chosen answer wins, averaged over prompts, with Wilson's 95% interval."""
    prompts: int
    """Held-out prompts."""
    pairs: int
    """Training pairs."""
    seconds: float
    position_bias: float | None = None
    """Mean disagreement of the two orders on held-out pairs (pairwise)."""
    intransitive: Intransitivity | None = None
    """On prompts with three or more responses, if there are any."""


@dataclass(frozen=True)
class Intransitivity:
    """How far a judge is from an order of the responses; means over prompts, see `windgames.describe`."""

    prompts: int
    cycles: float
    """Share of the triples of responses that are cycles."""
    cyclic_share: float
    """Share of the log-odds that no reward explains."""

    def __str__(self) -> str:
        return (
            f"{self.cycles:.1%} of triples are cycles, and no reward explains {self.cyclic_share:.1%} of the log-odds "
            f"({self.prompts} prompts)"
        )


# -- fitting -------------------------------------------------------------------------------------------------


def fit(config: RewardModelConfig) -> Fitted:
    """Fit a judge and save it with ``fit.jsonl``; a run that was stopped is resumed.

    Raises
    ------
    ValueError
        If the pairs cannot be read, one side of the split has none, a text is too long, the folder holds another run,
        or a loss is not finite.
    """
    known, unknown = split(load_pairs(config.data), config.held_out, config.seed)
    state = Checkpoint(config, known)
    if (done := state.finished()) is not None:
        return done
    triples = load_responses(config.responses) if config.responses else answers(unknown)
    model = initial(config)
    pairs = encoded(model, known)
    encoded(model, unknown)  # so that a text that is too long is named now
    weights = {name: p for name, p in model.model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(weights.values(), config.rate, weight_decay=0.0)
    total = math.ceil(len(known) / config.batch_pairs) * config.epochs
    warmup = math.ceil(config.warmup * total)
    measured = {round(total * (i + 1) / (config.evaluations + 1)) for i in range(config.evaluations)} - {total}
    first, rows, seconds = state.load(weights, optimizer)
    started = time.perf_counter() - seconds

    lengths = [max(len(row["input_ids"]) for row in pair) for pair in pairs]
    bar = tqdm(total=total, initial=first, desc=f"fitting {config.kind}", disable=not config.progress)
    recent: list[float] = []
    for step, index in enumerate(order(lengths, config)):
        if step < first:
            continue
        optimizer.param_groups[0]["lr"] = config.rate * rate(config.schedule, warmup, step, total)
        size = config.micro_pairs or max(1, PASS_TOKENS // (2 * max(lengths[i] for i in index)))
        loss = 0.0
        for start in range(0, len(index), size):
            part = [pairs[i] for i in index[start : start + size]]
            piece = -log_likelihoods(model, part).sum() / len(index)
            piece.backward()
            loss += float(piece.detach())
        norm = float(torch.nn.utils.clip_grad_norm_(weights.values(), config.max_grad_norm))
        if not math.isfinite(loss + norm):
            raise ValueError(f"The loss is {loss} at step {step + 1} of {total}: lower the learning rate.")
        optimizer.step()
        optimizer.zero_grad()
        recent.append(loss)
        bar.update()
        bar.set_postfix_str(shown(rows, recent[-50:]))
        if step + 1 in measured:
            share = accuracy(model, unknown[:SHOWN]).mean
            rows.append({"step": step + 1, "loss": float(np.mean(recent)), "held_out_accuracy": share})
            recent.clear()
            state.save(step + 1, rows, time.perf_counter() - started, weights, optimizer)
    bar.close()

    model.model = finished(model.model)
    judge, bias = as_judge(model), None
    if isinstance(judge, PairwiseJudge):
        judge.preference([p.prompt for p in unknown], [[p.chosen, p.rejected] for p in unknown])
        bias = judge.mean_asymmetry
    report = Fitted(
        accuracy(model, unknown),
        len({key(p.prompt) for p in unknown}),
        len(known),
        round(time.perf_counter() - started, 1),
        bias,
        intransitivity(judge, *triples) if triples[0] else None,
    )
    model.model.save_pretrained(config.out)
    model.tokenizer.save_pretrained(config.out)
    last = {"loss": float(np.mean(recent))} if recent else {}
    rows.append({"step": total, **last, "held_out_accuracy": report.accuracy.mean})
    write_text(config.out / "fit.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    state.finish(report)
    return report


def initial(config: RewardModelConfig) -> Classifier:
    """Return the model to be fitted, on the GPU if there is one; new weights depend on the seed."""
    where = source(config.name)
    tokenizer = pretrained(AutoTokenizer, where)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    labels = config.dimension if config.kind == "general" else 1
    with torch.random.fork_rng(devices=[]), quietly():
        torch.manual_seed(config.seed)
        net = pretrained(
            AutoModelForSequenceClassification, where, num_labels=labels, dtype=getattr(torch, config.precision)
        )
        net.config.pad_token_id = tokenizer.pad_token_id
        if config.kind != "reward":
            net.config.windlm_kind = {"pairwise": "pairwise-model", "general": "general"}[config.kind]
        if config.kind == "pairwise":
            net.config.pairwise_template = TEMPLATE
        if config.gradient_checkpointing:
            checkpoint_layers(net)
        if config.lora.rank:
            net = with_adapter(net, config.lora, task_type="SEQ_CLS")
    for p in net.parameters():
        p.data = p.data.float() if p.requires_grad else p.data
    net.casts = [  # a new output layer in float32 over hidden states that may be in another precision
        module.register_forward_pre_hook(lambda _, inputs: tuple(x.float() for x in inputs))
        for module in net.modules()
        if isinstance(module, torch.nn.Linear) and module.weight.requires_grad and config.precision != "float32"
    ]
    kind = {"reward": RewardModel, "pairwise": PairwiseModel, "general": EmbeddingModel}[config.kind]
    pairs = config.micro_pairs or config.batch_pairs
    net.to("cuda" if torch.cuda.is_available() else "cpu")
    return kind(net, tokenizer, batch_size=2 * pairs, truncate=config.truncate)


@contextmanager
def quietly() -> Iterator[None]:
    """Keep transformers from warning of the new output layer, which is meant."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def finished(net: Any) -> Any:
    """Return a model with its adapter merged into it."""
    if not hasattr(net, "merge_and_unload"):
        return net
    for cast in net.casts:
        cast.remove()
    merged = net.merge_and_unload()
    return merged.to(merged.dtype)


def encoded(model: Classifier, pairs: Sequence[Pair]) -> list[tuple[Row, Row]]:
    """Return what the model reads of each pair: of the chosen and the rejected answer, or of both in both orders."""
    if not pairs:
        return []
    prompts, chosen, rejected = zip(*((p.prompt, p.chosen, p.rejected) for p in pairs), strict=True)
    if isinstance(model, PairwiseModel):
        orders = model.pair_rows(prompts, chosen, rejected), model.pair_rows(prompts, rejected, chosen)
        return list(zip(*orders, strict=True))
    return list(zip(model.rows(prompts, chosen), model.rows(prompts, rejected), strict=True))


def log_likelihoods(model: Classifier, pairs: Sequence[tuple[Row, Row]]) -> Tensor:
    """Return the log-probability that the chosen answer wins, with gradients, shape ``(N,)``.

    `PairwiseModel` is asked in both orders, and the two are averaged.
    """
    n = len(pairs)
    rows = [first for first, _ in pairs] + [second for _, second in pairs]
    if isinstance(model, EmbeddingModel):
        embedded = model.embedding(model.logits(rows))
        return torch.log(0.5 + model.scores(embedded[:n], embedded[n:]))
    odds, log_sigmoid = model.log_odds(rows), torch.nn.functional.logsigmoid
    if isinstance(model, PairwiseModel):
        return (log_sigmoid(odds[:n]) + log_sigmoid(-odds[n:])) / 2
    return log_sigmoid(odds[:n] - odds[n:])


def order(lengths: Sequence[int], config: RewardModelConfig) -> Iterator[list[int]]:
    """Yield the mini-batches of all epochs, of pairs of similar length, in random order."""
    size = config.batch_pairs
    for epoch in range(config.epochs):
        rng = np.random.default_rng([config.seed, epoch])
        mixed = rng.permutation(len(lengths))
        batches: list[list[int]] = []
        for start in range(0, len(mixed), WINDOW * size):
            window = sorted(mixed[start : start + WINDOW * size].tolist(), key=lambda i: -lengths[i])
            batches += [window[i : i + size] for i in range(0, len(window), size)]
        yield from (batches[i] for i in rng.permutation(len(batches)))


def shown(rows: Sequence[dict[str, float]], recent: Sequence[float]) -> str:
    """Return what the progress bar tells."""
    last = [f"held out {row['held_out_accuracy']:.3f}" for row in rows if "held_out_accuracy" in row][-1:]
    return ", ".join([f"loss {np.mean(recent):.3f}", *last])


class Checkpoint:
    """The state of a run that has not ended, in one file, and what came of one that has, in ``fit.json``.

    Raises
    ------
    ValueError
        When read, if the files belong to a run with other settings or pairs.
    """

    def __init__(self, config: RewardModelConfig, pairs: Sequence[Pair]) -> None:
        self.path, self.report = config.out / "checkpoint.pt", config.out / "fit.json"
        changing = ("out", "progress", "evaluations", "responses")
        self.identity = {k: str(v) for k, v in vars(config).items() if k not in changing} | {"pairs": len(pairs)}

    def check(self, identity: dict[str, Any]) -> None:
        """Raise ValueError if this is the identity of another run."""
        if identity != self.identity:
            other = [k for k, v in self.identity.items() if identity.get(k) != v]
            raise ValueError(f"{self.path.parent} holds a run with other {', '.join(other)}: choose another folder.")

    def finished(self) -> Fitted | None:
        """Return what came of the run, None if it has not ended."""
        if not self.report.exists():
            return None
        about = json.loads(self.report.read_text())
        self.check(about["run"])
        cycles = about["found"].pop("intransitive")
        accuracy = Interval(*about["found"].pop("accuracy"))
        return Fitted(accuracy, **about["found"], intransitive=Intransitivity(**cycles) if cycles else None)

    def finish(self, found: Fitted) -> None:
        """Write what came of the run, and delete its state."""
        write_text(self.report, json.dumps({"run": self.identity, "found": asdict(found)}, indent=2) + "\n")
        self.path.unlink(missing_ok=True)

    def load(
        self, weights: dict[str, Tensor], optimizer: torch.optim.Optimizer
    ) -> tuple[int, list[dict[str, float]], float]:
        """Restore weights and optimizer; return the number of steps done, the rows so far, and the seconds spent."""
        if not self.path.exists():
            return 0, [], 0.0
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        self.check(state["identity"])
        with torch.no_grad():
            for name, p in weights.items():
                p.copy_(state["weights"][name])
        optimizer.load_state_dict(state["optimizer"])
        return state["step"], state["rows"], state["seconds"]

    def save(
        self,
        step: int,
        rows: list[dict[str, float]],
        seconds: float,
        weights: dict[str, Tensor],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Write the state, atomically."""
        state = {
            "identity": self.identity,
            "step": step,
            "rows": rows,
            "seconds": seconds,
            "weights": {name: p.detach() for name, p in weights.items()},
            "optimizer": optimizer.state_dict(),
        }
        write_atomically(self.path, lambda temporary: torch.save(state, temporary))


# -- measuring -----------------------------------------------------------------------------------------------


def split(pairs: Sequence[Pair], held_out: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Return training pairs and held-out pairs; all pairs of a prompt are on one side.

    Raises
    ------
    ValueError
        If a side has no pairs.
    """
    prompts = list(dict.fromkeys(key(pair.prompt) for pair in pairs))
    order = np.random.default_rng(seed).permutation(len(prompts))
    kept = {prompts[i] for i in order[: round(held_out * len(prompts))]}
    known, unknown = ([p for p in pairs if (key(p.prompt) in kept) == side] for side in (False, True))
    if not known or not unknown:
        raise ValueError(f"held_out = {held_out} of {len(prompts)} prompts leaves one side without pairs.")
    return known, unknown


def accuracy(model: Any, pairs: Sequence[Pair]) -> Interval:
    """Return the mean over prompts of `right`, with Wilson's interval."""
    found = [*right(model, pairs).values()]
    return wilson(sum(found) / len(found), len(found))


def right(model: Any, pairs: Sequence[Pair]) -> dict[str, float]:
    """Return, by prompt, the share of pairs whose chosen answer wins by a model, or a reward; a tie counts 1/2."""
    prompts, chosen, rejected = map(list, zip(*((p.prompt, p.chosen, p.rejected) for p in pairs), strict=True))
    if isinstance(model, EmbeddingModel):
        with torch.no_grad():
            gap = model.scores(model.embed(prompts, chosen), model.embed(prompts, rejected)).cpu().numpy()
    elif isinstance(model, PairwiseModel):  # of both orders
        gap = model(prompts, chosen, rejected) - model(prompts, rejected, chosen)
    else:
        gap = model(prompts, chosen) - model(prompts, rejected)
    found: dict[str, list[float]] = {}
    for prompt, x in zip(prompts, gap, strict=True):
        found.setdefault(key(prompt), []).append(float(x > 0) + 0.5 * float(x == 0))
    return {name: sum(row) / len(row) for name, row in found.items()}


def as_judge(model: Any) -> Judge:
    """Return a fitted model as a judge."""
    if isinstance(model, EmbeddingModel):
        return EmbeddingJudge(model)
    return PairwiseJudge(model) if isinstance(model, PairwiseModel) else RewardJudge(model, "bradley-terry")


def answers(pairs: Sequence[Pair]) -> tuple[list[Prompt], list[list[str]]]:
    """Return the prompts that have three or more different answers among the pairs, and those answers."""
    found: dict[str, tuple[Prompt, dict[str, None]]] = {}
    for pair in pairs:
        found.setdefault(key(pair.prompt), (pair.prompt, {}))[1].update({pair.chosen: None, pair.rejected: None})
    kept = [(prompt, list(texts)) for prompt, texts in found.values() if len(texts) > 2]
    return [prompt for prompt, _ in kept], [texts for _, texts in kept]


def load_responses(source: str) -> tuple[list[Prompt], list[list[str]]]:
    """Return the prompts of a file and the different responses to each, where there are three or more.

    Raises
    ------
    ValueError
        If the file lacks one of the columns, or no prompt has three responses.
    """
    prompts, responses = [], []
    for i, row in enumerate(read(source)):
        texts = row.get("responses")
        if "prompt" not in row or not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
            raise ValueError(f"Row {i} of {source} must have a prompt and a list of texts, responses.")
        distinct = list(dict.fromkeys(texts))
        if len(distinct) > 2:
            prompts.append(row["prompt"])
            responses.append(distinct)
    if not prompts:
        raise ValueError(f"No prompt of {source} has three different responses.")
    return prompts, responses


def intransitivity(
    judge: Judge, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], columns: Any = None
) -> Intransitivity:
    """Return how far a judge is from an order of three or more responses to each prompt.

    Parameters
    ----------
    judge : Judge
    prompts : sequence of prompts
    responses : sequence of lists of different texts
        The numbers of responses may differ.
    columns : mapping, optional
        What the judge reads beside them.
    """
    cycles, shares = [], []
    columns = columns or {}
    sizes = {len(row) for row in responses}
    for size in sorted(sizes):
        index = [i for i, row in enumerate(responses) if len(row) == size]
        some = {name: [values[i] for i in index] for name, values in columns.items()}
        preference = ask(judge, "preference", [prompts[i] for i in index], [responses[i] for i in index], some)
        matrix = preference.to_numpy().matrix()
        cycles += [cyclic_triples(m) for m in matrix]
        found = wg.describe(wg.MatrixPreference(matrix)).cyclic_share
        shares += [float(x) for x in np.atleast_1d(found) if x is not None]
    return Intransitivity(len(prompts), float(np.mean(cycles)), float(np.mean(shares)) if shares else 0.0)


def cyclic_triples(matrix: np.ndarray) -> float:
    """Return the share of the triples of responses that are cycles: each beats one of the other two."""
    beats = (matrix > 0.5).astype(float)
    cycles = float(np.trace(beats @ beats @ beats)) / 3
    return cycles / math.comb(len(matrix), 3)

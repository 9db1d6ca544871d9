"""Fitting a reward model: a sequence classifier trained on labelled pairs by the Bradley-Terry likelihood.

The result is an ordinary model folder with its tokenizer, which ``--judge.name`` takes like any reward model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from ..data import Data, Pair, load_pairs
from ..evaluate.statistics import Interval, interval
from ..models import Precision, source
from .base import key
from .reward_model import RewardModel


@dataclass(frozen=True)
class RewardModelConfig:
    """Fit a reward model to labelled pairs."""

    name: str
    """Initial model, by hub name or folder: a classifier, or a causal model, which gets a new output layer."""
    data: Data
    """Labelled pairs: columns chosen and rejected, or completions with scores."""
    out: Path
    """Output folder of the reward model."""
    held_out: float = 0.2
    """Fraction of the prompts held out to measure the accuracy; all pairs of a prompt are on one side."""
    epochs: int = 1
    """Passes over the training pairs."""
    batch_pairs: int = 8
    """Pairs per optimizer step."""
    learning_rate: float = 1e-5
    """AdamW learning rate."""
    precision: Precision = "float32"
    """Precision of the weights."""
    seed: int = 0
    """Seed of the split, of the order of pairs, and of a new output layer."""


def fit(config: RewardModelConfig) -> Interval:
    """Fit a reward model, save it, and return its accuracy on held-out pairs with an interval; see `accuracy`.

    Raises
    ------
    ValueError
        If the pairs cannot be read, one side of the split has none, or a loss is not finite.
    """
    tokenizer = AutoTokenizer.from_pretrained(**source(config.name))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # of a new output layer
        net = AutoModelForSequenceClassification.from_pretrained(
            **source(config.name), num_labels=1, dtype=getattr(torch, config.precision)
        )
    net.config.pad_token_id = tokenizer.pad_token_id
    model = RewardModel(net.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer, config.batch_pairs)
    known, unknown = split(load_pairs(config.data), config.held_out, config.seed)

    optimizer = torch.optim.AdamW(net.parameters(), config.learning_rate, weight_decay=0.0)
    for epoch in range(config.epochs):
        order = np.random.default_rng([config.seed, epoch]).permutation(len(known))
        for i in range(0, len(known), config.batch_pairs):
            batch = [known[j] for j in order[i : i + config.batch_pairs]]
            prompts = [pair.prompt for pair in batch]
            chosen, rejected = (model.scores(prompts, [getattr(p, x) for p in batch]) for x in ("chosen", "rejected"))
            loss = torch.nn.functional.softplus(rejected - chosen).mean()  # -log sigmoid(r - r')
            if not math.isfinite(float(loss.detach())):
                raise ValueError(f"The loss is {float(loss.detach())} in epoch {epoch + 1}: lower the learning rate.")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    net.save_pretrained(config.out)
    tokenizer.save_pretrained(config.out)
    return accuracy(model, unknown)


def split(pairs: Sequence[Pair], held_out: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Return training pairs and held-out pairs; all pairs of a prompt are on one side.

    Raises
    ------
    ValueError
        If a side has no pairs.
    """
    prompts = list(dict.fromkeys(repr(pair.prompt) for pair in pairs))
    order = np.random.default_rng(seed).permutation(len(prompts))
    kept = {prompts[i] for i in order[: round(held_out * len(prompts))]}
    known, unknown = ([p for p in pairs if (repr(p.prompt) in kept) == side] for side in (False, True))
    if not known or not unknown:
        raise ValueError(f"held_out = {held_out} of {len(prompts)} prompts leaves one side without pairs.")
    return known, unknown


def accuracy(model: RewardModel, pairs: Sequence[Pair]) -> Interval:
    """Return the fraction of pairs whose chosen answer has the larger reward, averaged over prompts; a tie counts 1/2.

    The bootstrap interval is over prompts, since pairs of one prompt are correlated.
    """
    prompts = [pair.prompt for pair in pairs]
    gap = model(prompts, [p.chosen for p in pairs]) - model(prompts, [p.rejected for p in pairs])
    right: dict[str, list[float]] = {}
    for prompt, x in zip(prompts, gap, strict=True):
        right.setdefault(key(prompt), []).append(float(x > 0) + 0.5 * float(x == 0))
    return interval([sum(row) / len(row) for row in right.values()])

"""The configuration of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class Config:
    """How to train."""

    out: Path
    """Folder of the run: metrics.jsonl, checkpoints, the final model."""
    rounds: int = 100
    draws: int = 16
    """Responses per prompt and round, `K` (of the extragradient, in each half of a round)."""
    epochs: int = 1
    """Passes over a round's draws."""
    prompts_per_round: int | None = None
    """Prompts of a round, in a new order after each pass over all of them; None for all."""
    batch_prompts: int = 8
    """Prompts of an optimiser step, over all processes."""
    micro_prompts: int | None = None
    """Prompts of one forward and backward pass on a process; their gradients are added up. None for all."""
    learning_rate: float = 1e-4
    """Adam's, at its highest."""
    schedule: str = "cosine"
    """How the learning rate falls: "constant", "linear" or "cosine", to zero over the run."""
    warmup: int = 0
    """Optimiser steps over which the learning rate rises first."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Adam's memory of gradients and of their squares; the price of KL is the method's beta."""
    epsilon: float = 1e-8
    """Adam's; below it a gradient counts as rounding. Attention's key biases have no gradient but rounding."""
    weight_decay: float = 0.0
    """Adam's, decoupled."""
    max_grad_norm: float = 1.0
    """Longer gradients are shortened to it; inf for none."""
    seed: int = 0
    """Of draws and of the order of prompts."""
    reference_draws: int = 0
    """Draws of the reference and of the round before against which as many of a round's own are judged for metrics;
    0 for none. A judge of pairs is asked for all pairs among these."""
    checkpoint_every: int = 1
    """Rounds between checkpoints; 0 for none."""
    processes: int | None = None
    """Processes that the run must have; a launcher that starts fewer without a word is an error. None for any."""
    cpu: bool = False
    """Stay on the CPU where there is a GPU."""
    trackers: tuple[str, ...] = ()
    """Names that accelerate knows, such as "tensorboard"."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(map(repr, SCHEDULES))}, but it is {self.schedule!r}.")
        least = {"rounds": 1, "draws": 2, "epochs": 1, "batch_prompts": 1, "reference_draws": 0, "checkpoint_every": 0}
        least |= {"micro_prompts": 1} if self.micro_prompts is not None else {}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, but it is {getattr(self, name)}.")
        if not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be positive (inf for no clipping), but it is {self.max_grad_norm}.")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be positive and finite, but it is {self.learning_rate}.")

"""Settings of a training run."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..policy import LanguagePolicy

OPERATORS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
"""The comparisons of a stopping condition."""


def parse_condition(condition: str) -> tuple[str, Callable[[float, float], bool], float]:
    """Return the metric, the comparison and the threshold of a stopping condition, such as ``kl > 5``.

    Raises
    ------
    ValueError
        If it is none.
    """
    parts = re.fullmatch(r"\s*(\w+)\s*(<=|>=|<|>)\s*(\S+)\s*", condition)
    try:
        threshold = float(parts[3] if parts else "nan")
    except ValueError:
        threshold = math.nan
    if parts is None or math.isnan(threshold):
        raise ValueError(
            f"stop_when must be a metric, one of {', '.join(OPERATORS)}, and a number, such as 'kl > 5', but it is "
            f"{condition!r}."
        )
    return parts[1], OPERATORS[parts[2]], threshold


@dataclass(frozen=True)
class Config:
    """Settings of `windlm.train.train`.

    Raises
    ------
    ValueError
        If a setting is out of range; it is named.
    """

    out: Path
    """Output folder: metrics.jsonl, checkpoints, and the trained model in model/."""
    rounds: int = 100
    """Number of rounds; each samples responses, judges them and trains on them. A run that is over goes on if there are
    more; the learning-rate schedule and a schedule of the method are then those of the longer run."""
    reference: Literal["policy", "base"] = "policy"
    """The reference of an adapter that was trained before: the policy as training begins, or the base model with the
    adapter off. For a new adapter both are the same."""
    draws: int = 16
    """Responses sampled per prompt and round, K (twice as many in an extragradient round)."""
    epochs: int = 1
    """Passes over the responses of a round."""
    prompts_per_round: int | None = None
    """Prompts per round; None for all. Every prompt is used once before any is used twice, each time in a new order."""
    batch_prompts: int = 8
    """Prompts per optimizer step, summed over all processes. A process accumulates gradients over batches of the
    policy's `tokens_per_batch`."""
    learning_rate: float | None = None
    """Peak AdamW learning rate; None for that of the model's size: 2e-4 for a LoRA adapter on 135M parameters, 7e-5 on
    8B, and a twentieth of that for all weights."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Learning-rate schedule after warmup: constant, linear or cosine; the last two end at zero."""
    warmup: int = 0
    """Warmup length, in optimizer steps."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW decay rates of the gradient's first and second moments; unrelated to the method's beta."""
    epsilon: float = 1e-8
    """AdamW epsilon, the gradient magnitude below which an update counts as rounding error."""
    weight_decay: float = 0.0
    """AdamW decoupled weight decay."""
    max_grad_norm: float = 1.0
    """Gradient-norm clipping threshold; inf for no clipping."""
    seed: int = 0
    """Seed of sampling and of the order of prompts."""
    reference_draws: int = 0
    """Responses per prompt of the reference, and of the previous round, that a round is judged against for the win
    rates in the metrics; 0 for no win rates. A pairwise judge is asked for every pair."""
    on_judge_error: Literal["stop", "worst"] = "stop"
    """What becomes of a response at which the judge raises an exception: the run stops and names it, or it counts as
    the worst of its group (worst). A run that stopped goes on from there by the same call."""
    judge_retries: int = 0
    """How often a judge that raises is asked again first, with pauses of 1, 2, 4, ... seconds."""
    shard_prompts: int = 256
    """Prompts that are sampled, judged and scored together, and written to disk as one shard of the round."""
    keep_rollouts: int | None = 3
    """Rounds whose rollouts are kept in rollouts/; None for all."""
    checkpoint_every: int = 1
    """Interval between checkpoints, in rounds; 0 for no checkpoints."""
    checkpoint_steps: int = 0
    """Interval between checkpoints within a round's training, in optimizer steps; 0 for none."""
    keep_checkpoints: int = 1
    """Number of checkpoints that are kept."""
    save_every: int = 0
    """Interval between rounds whose model is kept in checkpoints/ for good, without what resuming needs; 0 for none."""
    keep_best: str | None = None
    """Metric by which the best round's model is kept in the same way, such as eval_win_rate, or -kl for the lowest."""
    measure_final: bool = True
    """Whether the last policy is sampled and measured, too: other metrics are of the policy before a round's update."""
    mixed_precision: Literal["no", "bf16"] | None = None
    """Whether a float32 model computes in bfloat16 (autocast), in sampling, scoring and training alike; None for
    accelerate's configuration."""
    rescore: bool | None = None
    """Whether responses are scored again under the policy that sampled them, rather than with the log-probabilities
    found in sampling; None for where the model does not compute in float32, so that the two differ by rounding, or the
    responses were sampled at another temperature or top_p."""
    processes: int | None = None
    """Required number of processes, so that a launcher that starts fewer is an error; None for any number."""
    cpu: bool = False
    """Whether to train on the CPU even if there is a GPU."""
    trackers: tuple[str, ...] = ()
    """Experiment trackers by accelerate's names, such as tensorboard or wandb; each must be installed."""
    progress: bool = True
    """Whether to show progress: in a terminal a bar over the responses that are sampled, judged and trained on,
    elsewhere one line per round."""
    show_every: int = 0
    """Interval between tables of a few responses in the terminal, in rounds; 0 for none."""
    completions: int = 4
    """Prompts per round whose responses are kept in completions/, for people and reports to read; 0 for none."""
    stop_when: str | None = None
    """Condition on a metric that ends the run early, such as "kl > 5" or "win_rate_reference >= 0.9"."""
    report: bool = True
    """Whether to write report.html when the run ends; windlm report writes it at any time."""

    def __post_init__(self) -> None:
        if isinstance(self.out, str):
            object.__setattr__(self, "out", Path(self.out))
        schedules = ("constant", "linear", "cosine")
        if self.schedule not in schedules:
            raise ValueError(f"schedule must be one of {', '.join(map(repr, schedules))}, but it is {self.schedule!r}.")
        if self.reference not in ("policy", "base"):
            raise ValueError(f"reference must be 'policy' or 'base', but it is {self.reference!r}.")
        least = {"rounds": 1, "draws": 2, "epochs": 1, "batch_prompts": 1, "reference_draws": 0, "checkpoint_every": 0}
        if self.on_judge_error not in ("stop", "worst"):
            raise ValueError(f"on_judge_error must be 'stop' or 'worst', but it is {self.on_judge_error!r}.")
        least |= {"keep_rollouts": 0} if self.keep_rollouts is not None else {}
        least |= {"judge_retries": 0, "shard_prompts": 1, "warmup": 0, "weight_decay": 0, "seed": 0}
        least |= {"show_every": 0, "completions": 0}
        least |= {"checkpoint_steps": 0, "keep_checkpoints": 1, "save_every": 0}
        least |= {n: 1 for n in ("prompts_per_round", "processes") if getattr(self, n) is not None}
        for name, low in least.items():
            if not getattr(self, name) >= low:
                raise ValueError(f"{name} must be at least {low}, but it is {getattr(self, name)}.")
        if not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be positive (inf for no clipping), but it is {self.max_grad_norm}.")
        for name in ("learning_rate", "epsilon"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive and finite, but it is {value}.")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1), but it is {self.betas}.")
        if self.stop_when is not None:
            parse_condition(self.stop_when)

    def filled(self, policy: LanguagePolicy) -> Config:
        """Return the settings with the learning rate for a policy, if there is none."""
        if self.learning_rate is not None:
            return self
        return replace(self, learning_rate=default_learning_rate(policy))


def default_learning_rate(policy: LanguagePolicy) -> float:
    """Return the learning rate of a model of this size.

    For LoRA it is 2e-4 at 135M parameters, where we have run it (``make align``), and falls with the fourth root of the
    size, as in published settings, which we have not run: 1.2e-4 at 1B, 7e-5 at 8B. For all weights it is a twentieth.
    """
    size = sum(p.numel() for p in policy.base.parameters())
    return 2e-4 * (135e6 / max(size, 1)) ** 0.25 / (1 if policy.has_adapter else 20)

"""Metrics of a round: computed from its samples, combined over processes, written to ``metrics.jsonl``."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType, gather_object

from windgames import objectives as shared

from .. import sharding
from ..policy import LanguagePolicy, Samples
from ..rollout import Rollout, RolloutBatch
from .config import Config


def check_trackers(names: Sequence[str]) -> None:
    """Raise ValueError if an experiment tracker is unknown or not installed; accelerate would leave it out silently."""
    known = [str(kind) for kind in LoggerType if kind != LoggerType.ALL]
    installed = [str(kind) for kind in get_available_trackers()]
    for name in names:
        if name not in known:
            raise ValueError(f"trackers must be among {', '.join(map(repr, known))}, but one is {name!r}.")
        if name not in installed:
            raise ValueError(f"The tracker {name!r} is not installed: install its package, or leave it out.")


def scalar(value: Any) -> bool | int | float | str:
    """Return a value as what every tracker can log: lists and None become text."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


class BaselineSamples:
    """Samples of the reference and of the previous round, by prompt, that a round's samples are judged against.

    They belong to the prompts of this process.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.reference: dict[int, Samples] = {}
        self.previous: dict[int, Samples] = {}

    def measure(self, batch: RolloutBatch, rollout: Rollout, indices: Sequence[int]) -> dict[str, float]:
        r"""Return the metrics of the policy before the round's update, from samples of its own.

        `kl` and `entropy` are unbiased estimates of :math:`KL(\pi\|\rho)` and of the entropy, averaged over prompts;
        `kl_error` is the mean variance over a prompt's samples, from which `Metrics.add` makes the standard error, as
        it does from the mean squares over prompts, `reward_square` and `win_rate_reference_square`.

        Parameters
        ----------
        batch : RolloutBatch
            The round's first batch.
        rollout : Rollout
            A copy of the one that made the batch, since what metrics cost is not the method's.
        indices : sequence of int
            Which prompts of the run these are.
        """
        draws = self.config.draws
        own = rollout.own(batch, draws)
        current = batch.fixed["current"] if "current" in batch.fixed else rollout.log_prob(own, "current")
        ref = batch.fixed["ref"] if batch.on_policy and "ref" in batch.fixed else rollout.log_prob(own, "ref")
        log_ratio = (current - ref).double()
        values = {
            "kl": float(log_ratio.mean()),
            "kl_error": float(log_ratio.var(-1).mean()) if log_ratio.shape[-1] > 1 else 0.0,
            "entropy": -float(current.double().mean()),
            "length": float(own.mask.sum(-1).double().mean()),
            "cut": self._cut(own, rollout.policy),
        }
        rewards = rollout.rewards(own)
        if rewards is not None:
            values |= with_square("reward", rewards.mean(-1))
        if self.config.reference_draws:
            values |= self._win_rates(own.first(self.config.reference_draws), rollout, indices)
        return values

    def _cut(self, samples: Samples, policy: LanguagePolicy) -> float:
        """Return the share of responses that were cut at the longest length."""
        last = samples.tokens[..., -1]
        cut = samples.mask.all(-1) & ~torch.isin(last, torch.tensor(policy.stop_ids, dtype=last.dtype))
        return float(cut.double().mean())

    def _win_rates(self, own: Samples, rollout: Rollout, indices: Sequence[int]) -> dict[str, float]:
        new = [j for j, i in enumerate(indices) if i not in self.reference]
        if sharding.is_sharded(rollout.policy) and not sharding.all_agree(not new, rollout.policy):
            new = list(range(len(indices)))  # processes that sample together must sample the same number
        if new:
            generators = [np.random.default_rng([self.config.seed, 0, indices[j]]) for j in new]
            some = replace(rollout, prompts=rollout.prompts.rows(new), generators=lambda: generators)
            samples = some.sample("ref", self.config.reference_draws)
            self.reference |= {indices[j]: samples[[n]] for n, j in enumerate(new)}
        values: dict[str, float] = {}
        for name, earlier in {"reference": self.reference, "previous": self.previous}.items():
            if all(i in earlier for i in indices):
                opponents = Samples.stack([earlier[i] for i in indices])
                outcomes = rollout.outcomes(own, opponents)
                values |= with_square(f"win_rate_{name}", shared.win_rates(outcomes, "independent").mean(-1).numpy())
        self.previous |= {i: own[[j]] for j, i in enumerate(indices)}
        return values


def with_square(name: str, values: np.ndarray) -> dict[str, float]:
    """Return the mean of values, one per prompt, and their mean square, which means over more prompts combine."""
    return {name: float(values.mean()), f"{name}_square": float(np.square(values, dtype=float).mean())}


def standard_error(mean: float, square: float, n: int) -> float:
    """Return the standard error of a mean over `n` prompts from the mean square; 0 for one prompt."""
    return math.sqrt(max(0.0, square - mean**2) / (n - 1)) if n > 1 else 0.0


def mean_over_prompts(parts: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    """Return the mean of each value over parts of so many prompts; a part may lack a value."""
    names = dict.fromkeys(name for _, values in parts for name in values)
    have = {name: [(n, values[name]) for n, values in parts if name in values] for name in names}
    return {name: sum(n * x for n, x in some) / sum(n for n, _ in some) for name, some in have.items()}


class Metrics:
    """``metrics.jsonl``, one line of JSON per round over all processes, and accelerate's trackers."""

    def __init__(self, config: Config, accelerator: Accelerator, identity: dict[str, Any], n_prompts: int) -> None:
        self.accelerator, self.path, self.identity = accelerator, config.out / "metrics.jsonl", identity
        self.n_prompts = config.prompts_per_round or n_prompts
        self.n_draws = config.draws * self.n_prompts
        self.rows: list[dict[str, Any]] = []
        if config.trackers:
            accelerator.init_trackers("windlm", {name: scalar(value) for name, value in identity.items()})

    def start(self, row: dict[str, Any]) -> None:
        """Begin the file with the row of round 0."""
        self.rows = [row]
        self._write()

    def resume(self, done: int) -> None:
        """Keep the rows up to the round of the checkpoint."""
        lines = self.path.read_text().splitlines()
        self.rows = [json.loads(line) for line in lines[: done + 1]]
        self._write()

    def add(
        self, head: dict[str, Any], values: dict[str, float], counts: Mapping[str, float], exact: Mapping[str, float]
    ) -> None:
        """Combine the processes' numbers into a row: `values` by mean, `counts` by sum, seconds by maximum."""
        parts = gather_object([(values, counts)])
        names = dict.fromkeys(k for p in parts for k in p[0])  # a process may lack win rates against the previous round
        row = head | {k: float(np.mean([p[0][k] for p in parts if k in p[0]])) for k in names}
        row["kl_error"] = math.sqrt(row["kl_error"] / self.n_draws)
        for name in [k.removesuffix("_square") for k in row if k.endswith("_square")]:
            row[f"{name}_error"] = standard_error(row[name], row.pop(f"{name}_square"), self.n_prompts)
        for name in counts:
            row[name] = (max if name.startswith("seconds") else sum)(p[1][name] for p in parts)
        row |= exact
        self.rows.append(row)
        if self.accelerator.is_main_process:
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        self.accelerator.log({k: v for k, v in row.items() if isinstance(v, int | float)}, step=row["round"])

    def _write(self) -> None:
        if self.accelerator.is_main_process:
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
            os.replace(temporary, self.path)

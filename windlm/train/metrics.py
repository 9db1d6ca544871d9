"""What a round's draws say, and the file that it is written to."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object

from windgames import objectives as shared

from .. import sharding
from ..policy import Samples
from ..rollout import Rollout, RolloutBatch
from .config import Config


class BaselineSamples:
    """Earlier draws that a round's draws are judged against, for the metrics: by prompt, of this process."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.reference: dict[int, Samples] = {}
        self.previous: dict[int, Samples] = {}

    def measure(self, batch: RolloutBatch, rollout: Rollout, mine: Sequence[int]) -> dict[str, float]:
        r"""Return what a round's own draws say of the policy that drew them.

        `kl` and `entropy` are unbiased estimates for the policy before the round's update, :math:`KL(\pi\|\rho)`
        averaged over prompts; `kl_error` is the standard error of `kl` given the prompts.
        """
        own = (
            batch.samples.first(self.config.draws) if batch.on_policy else rollout.sample("current", self.config.draws)
        )
        current = batch.fixed["current"] if "current" in batch.fixed else rollout.log_prob(own, "current")
        ref = batch.fixed["ref"] if batch.on_policy and "ref" in batch.fixed else rollout.log_prob(own, "ref")
        ratio = (current - ref).double()
        said = {
            "kl": float(ratio.mean()),
            "kl_error": float(ratio.var(-1).mean()) if ratio.shape[-1] > 1 else 0.0,
            "entropy": -float(current.double().mean()),
            "length": float(own.mask.sum(-1).double().mean()),
        }
        rewards = getattr(rollout.judge, "rewards", None)
        if rewards is not None:
            said["reward"] = float(rewards(rollout.prompts, own.text).mean())
        few = self.config.reference_draws
        if few:
            new = [j for j, i in enumerate(mine) if i not in self.reference]
            if sharding.is_sharded(rollout.policy) and not sharding.all_agree(not new, rollout.policy):
                new = list(range(len(mine)))  # processes that draw together draw as much
            if new:
                some = replace(rollout, prompts=[rollout.prompts[j] for j in new])
                streams = [np.random.default_rng([self.config.seed, 0, mine[j]]) for j in new]
                drawn = replace(some, generators=lambda: streams).sample("ref", few)
                self.reference |= {mine[j]: drawn[[n]] for n, j in enumerate(new)}
            for name, earlier in {"reference": self.reference, "previous": self.previous}.items():
                if all(i in earlier for i in mine):
                    opponents = Samples.stack([earlier[i] for i in mine])
                    against = rollout.outcomes(own.first(few), opponents)
                    said[f"win_rate_{name}"] = float(shared.win_rates(against, "independent").mean())
            self.previous |= {i: own.first(few)[[j]] for j, i in enumerate(mine)}
        return said


class Metrics:
    """One line of JSON per round, of all processes together, and accelerate's trackers."""

    def __init__(self, config: Config, accelerator: Accelerator, identity: dict[str, Any], n_prompts: int) -> None:
        self.accelerator, self.path, self.identity = accelerator, config.out / "metrics.jsonl", identity
        self.n_draws = config.draws * (config.prompts_per_round or n_prompts)
        self.rows: list[dict[str, Any]] = []
        if config.trackers:
            accelerator.init_trackers("windlm", identity)

    def start(self, row: dict[str, Any]) -> None:
        """Begin a run."""
        self.rows = [row]
        self._write()

    def resume(self, done: int) -> None:
        """Keep the lines of the rounds that a checkpoint has, and go on after them."""
        lines = self.path.read_text().splitlines()
        self.rows = [json.loads(line) for line in lines[: done + 1]]
        self._write()

    def add(
        self, head: dict[str, Any], said: dict[str, float], counts: Mapping[str, float], exact: Mapping[str, float]
    ) -> None:
        """Put the processes' numbers together: means, sums and the slowest one's seconds."""
        parts = gather_object([(said, counts)])
        names = dict.fromkeys(k for p in parts for k in p[0])  # a process may not have met all its prompts before
        row = head | {k: float(np.mean([p[0][k] for p in parts if k in p[0]])) for k in names}
        row["kl_error"] = math.sqrt(row["kl_error"] / self.n_draws)
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

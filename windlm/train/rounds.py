"""A round in progress: what is known of it, and how its responses are sampled, judged and scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from accelerate.utils import gather_object

from .. import sharding
from ..data import Prompts
from ..objectives import Objective
from ..policy import LanguagePolicy
from ..rollout import Activity, Rollout
from ..weights import WeightSnapshots
from .config import Config
from .metrics import BaselineSamples, mean_over_prompts
from .progress import Progress
from .shards import Journal, write_shard
from .watch import completions

SAMPLES_PER_STAGE = 16
"""Streams of random numbers set aside for each stage of a round; no objective samples that often."""
Part = Literal["generate", "train"]
"""Parts of a round that may be done on different machines; between them, `judge_round`."""
ONLY: dict[Part | None, Activity | None] = {None: None, "generate": "sampling", "train": "scoring"}
"""What each part of a round does to make its data; see `Rollout.only`."""


@dataclass
class Round:
    """What this process knows of a round, and where in the round's training it is."""

    number: int
    indices: list[int]
    """This process's prompts, see `round_prompts`."""
    folder: Path
    measured: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    """Metrics of the policy before its update, each over so many prompts."""
    shown: list[dict[str, Any]] = field(default_factory=list)
    """Responses that are kept for people to read."""
    totals: dict[str, float] = field(default_factory=lambda: {"tokens": 0, "judge_calls": 0, "seconds_training": 0.0})
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    learning_rate: float = math.nan
    """That of the last step."""
    steps: int = 0
    """Optimizer steps taken."""
    loaded: str = "current"
    """The slot whose weights are in the model."""
    stage: int = 0
    epoch: int = 0
    start: int = 0
    """Prompts of the epoch that were trained on."""

    def resume(self, state: Mapping[str, Any], main: bool) -> None:
        """Go on from what `state` returned: with the counts of all processes on the main one."""
        for name in ("losses", "norms", "learning_rate", "steps", "loaded", "stage", "epoch", "start"):
            setattr(self, name, state[name])
        if main:
            self.measured, self.totals, self.shown = state["measured"], state["totals"], state["shown"]
        else:
            self.totals = dict.fromkeys(state["totals"], 0.0)

    def state(self, stage: int, epoch: int, start: int, seconds: float) -> dict[str, Any]:
        """Return what a checkpoint keeps of the round within training; all processes must call this together."""
        totals = self.totals | {"seconds_training": self.totals["seconds_training"] + seconds}
        parts = gather_object([(self.measured, self.shown, self.losses, totals)])
        names = dict.fromkeys(name for part in parts for name in part[3])
        return {
            **{"stage": stage, "epoch": epoch, "start": start, "loaded": self.loaded, "steps": self.steps},
            **{"norms": self.norms, "learning_rate": self.learning_rate},
            "measured": [entry for part in parts for entry in part[0]],
            "shown": [entry for part in parts for entry in part[1]],
            "losses": np.mean([part[2] for part in parts], axis=0).tolist(),
            "totals": {
                name: (max if name.startswith("seconds") else sum)(part[3].get(name, 0) for part in parts)
                for name in names
            },
        }

    def metrics(self) -> dict[str, float]:
        """Return the round's means over this process's prompts and steps."""
        means = {"loss": sum(self.losses) / len(self.losses), "gradient_norm": sum(self.norms) / len(self.norms)}
        return mean_over_prompts(self.measured) | means


@dataclass
class Collector:
    """Samples, judges and scores the responses of a round, a shard of prompts at a time.

    Memory is that of a shard: results go into its journal as they come, and the finished shard into a file.
    """

    policy: LanguagePolicy
    prompts: Prompts
    judge: Any
    objective: Objective
    config: Config
    snapshots: WeightSnapshots
    baselines: BaselineSamples
    progress: Progress
    per_round: int
    rank: int
    world: int
    part: Part | None

    def begin(self, number: int) -> Round:
        """Return a round with this process's prompts."""
        self.baselines.round = number
        chosen = round_prompts(len(self.prompts), self.per_round, number, self.config.seed)
        own = chosen[self._first : (self.rank + 1) * self.per_round // self.world]
        return Round(number, own, self.config.out / "rollouts" / f"round-{number:06d}")

    def collect(self, round: Round, n: int, stage: Any) -> None:
        """Write the rollouts of a stage; in the first one also measure the policy."""
        config, folder = self.config, round.folder / f"stage-{n}"
        for first, shard, own in self._shards(round):
            self.progress.expect(2 * len(shard) * config.draws)
            name = f"shard-{self._first + first:08d}"
            journal = Journal(folder / f"{name}.journal", partial(sharding.all_agree, policy=self.policy))
            if not journal.has("prompts"):
                journal.write("prompts", own)
            streams = count_streams([config.seed, round.number], shard, n * SAMPLES_PER_STAGE)
            rollout = self._rollout(own, streams.__next__, round.loaded, journal)
            batch = self.objective.collect(stage, rollout, config.draws)
            if self.part == "generate":
                rollout.own(batch, config.draws)
                continue
            if n == 0:
                apart = replace(rollout, seconds=dict(rollout.seconds))
                round.measured.append((len(shard), self.baselines.measure(batch, apart, own)))
                left = config.completions - len(round.shown)
                round.shown += completions(batch, apart, own, self.baselines.reference, config.draws, left)
            write_shard(folder / f"{name}.arrow", own, rollout.prompts, batch, self.policy)
            add_up(round.totals, rollout, config.on_judge_error == "worst")

    def measure(self, number: int) -> Round:
        """Measure the policy on the prompts of a round that is not trained on."""
        round = self.begin(number)
        round.totals = {"tokens": 0, "judge_calls": 0}
        for _, shard, own in self._shards(round):
            rollout = self._rollout(own, count_streams([self.config.seed, number], shard).__next__)
            round.measured.append((len(shard), self.baselines.measure(None, rollout, own)))
            add_up(round.totals, rollout, False)
        return round

    @property
    def _first(self) -> int:
        return self.rank * self.per_round // self.world

    def _shards(self, round: Round) -> Iterator[tuple[int, list[int], list[int]]]:
        for first in range(0, len(round.indices), self.config.shard_prompts):
            shard = round.indices[first : first + self.config.shard_prompts]
            getattr(self.judge, "known", {}).clear()  # verdicts are remembered within a shard: memory stays bounded
            yield first, shard, [i % len(self.prompts) for i in shard]

    def _rollout(
        self, own: Sequence[int], streams: Callable[[], Any], loaded: str = "current", journal: Journal | None = None
    ) -> Rollout:
        only = ONLY[self.part] if journal is not None else None
        return Rollout(
            *(self.policy, self.snapshots, self.judge, self.prompts.rows(own), streams, loaded, journal, only),
            on_judge_error=self.config.on_judge_error,
            judge_retries=self.config.judge_retries,
        )


def add_up(totals: dict[str, float], rollout: Rollout, failures: bool) -> None:
    """Add the counts of a shard to those of its round."""
    counts = {"tokens": rollout.tokens, "judge_calls": rollout.calls}
    counts |= {f"seconds_{activity}": seconds for activity, seconds in rollout.seconds.items()}  # type: ignore[misc]
    counts |= {"judge_errors": rollout.failed} if failures else {}
    for name, value in counts.items():
        totals[name] = totals.get(name, 0) + value


def round_prompts(n: int, per_round: int, number: int, seed: int) -> list[int]:
    """Return the indices of a round's prompts; every prompt occurs once before any occurs twice.

    A round may end one pass over the prompts and begin the next; a prompt `i` of the next is then ``n + i``.
    """
    if per_round == n:
        return list(range(n))
    turn, place = divmod((number - 1) * per_round, n)
    passes = [j * n + np.random.default_rng([seed, turn + j]).permutation(n) for j in range(2)]
    return np.concatenate(passes)[place : place + per_round].tolist()


def count_streams(seed: list[int], prompts: Sequence[int], count: int = 0) -> Iterator[list[np.random.Generator]]:
    """Yield lists of generators, one per prompt, that depend only on seed, prompt and position, which is `count` on."""
    while True:
        yield [np.random.default_rng([*seed, count, i]) for i in prompts]
        count += 1

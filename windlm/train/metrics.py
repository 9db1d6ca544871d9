"""Metrics of a round: computed from its samples, combined over processes, written to ``metrics.jsonl``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType, gather_object

from windgames import objectives as shared

from .. import sharding
from ..data import Prompts
from ..evaluate.statistics import interval
from ..files import write_text
from ..judges.columns import endings
from ..policy import LanguagePolicy, Samples
from ..rollout import Rollout, RolloutBatch
from ..weights import WeightSnapshots
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

    They belong to the prompts of this process, and are kept for all prompts that were measured, in memory and in every
    checkpoint: some 8 bytes a token. With many prompts, compare on held-out prompts instead (`HeldOut`).
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.reference: dict[int, Samples] = {}
        self.previous: dict[int, Samples] = {}
        self.round = 0
        """The round that is measured."""
        self.rounds: dict[int, int] = {}
        """The round that the previous samples of a prompt are of."""

    def measure(self, batch: RolloutBatch | None, rollout: Rollout, indices: Sequence[int]) -> dict[str, float]:
        r"""Return the metrics of the policy before the round's update, from samples of its own.

        `kl` and `entropy` are unbiased estimates of :math:`KL(\pi\|\rho)` and of the entropy, averaged over prompts;
        where the divergence is small the estimate may be negative.
        `kl_error` is the mean variance over a prompt's samples, from which `Metrics.add` makes the standard error, as
        it does from the mean squares over prompts, `reward_square` and `win_rate_reference_square`.
        `reward_spread` is the standard deviation of the rewards of a prompt's samples, averaged over prompts, and
        `tied` the share of prompts whose samples all tie, from which nothing is learned. `asymmetry` is how much a
        pairwise judge's verdicts have differed between the two orders so far.

        Parameters
        ----------
        batch : RolloutBatch, optional
            The round's first batch; None to sample.
        rollout : Rollout
            A copy of the one that made the batch, since what metrics cost is not the method's.
        indices : sequence of int
            Which prompts of the run these are.
        """
        draws, drawn = self.config.draws, batch is not None and batch.on_policy
        fixed = batch.fixed if batch is not None else {}
        own = rollout.sample("current", draws) if batch is None else rollout.own(batch, draws)
        current = fixed["current"] if "current" in fixed else rollout.log_prob(own, "current")
        ref = fixed["ref"] if drawn and "ref" in fixed else rollout.log_prob(own, "ref")
        log_ratio = (current - ref).double()
        values = {
            "kl": float(log_ratio.mean()),
            "kl_error": float(log_ratio.var(-1).mean()) if log_ratio.shape[-1] > 1 else 0.0,
            "entropy": -float(current.double().mean()),
            "length": float(own.mask.sum(-1).double().mean()),
            "cut": float(np.mean(np.array(endings(own, rollout.policy)) == "cut")),
        }
        rewards = rollout.rewards(own)
        if rewards is not None:
            values |= with_square("reward", rewards.mean(-1))
            values |= {f"reward_{name}": float(part.mean()) for name, part in rollout.reward_parts(own).items()}
            values["reward_spread"] = float(rewards.std(-1, ddof=1).mean())
            values["tied"] = float((rewards == rewards[:, :1]).all(-1).mean())
        elif drawn and rollout.outcome is not None:
            outcome = rollout.outcome[:, :draws, :draws]
            values["tied"] = float((outcome == outcome.mT).all(-1).all(-1).double().mean())
        if hasattr(rollout.judge, "mean_asymmetry"):
            values["asymmetry"] = float(rollout.judge.mean_asymmetry)
        if getattr(rollout.judge, "unread", 0):
            values["unread"] = rollout.judge.unread / rollout.judge.calls  # type: ignore[attr-defined]
        if self.config.reference_draws:
            values |= self._win_rates(own.first(self.config.reference_draws), rollout, indices)
        return values

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
        self.previous |= {i: replace(own[[j]], known={}) for j, i in enumerate(indices)}
        self.rounds |= dict.fromkeys(indices, self.round)
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


# -- held-out prompts ----------------------------------------------------------------------------------------


@dataclass
class HeldOut:
    """Prompts outside the training data, on which the policy is compared with the reference during training.

    Parameters
    ----------
    prompts : Prompts
    every : int
        Interval between comparisons, in rounds; the last round has one in any case.
    draws : int
        Responses per prompt, of the policy and of the reference.
    seed : int

    Raises
    ------
    ValueError
        If there are no prompts, or a number is less than 1.
    """

    prompts: Prompts
    every: int = 1
    draws: int = 4
    seed: int = 0
    reference: Samples | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.prompts = Prompts.of(self.prompts)
        if not len(self.prompts):
            raise ValueError("There are no held-out prompts.")
        for name in ("every", "draws"):
            if getattr(self, name) < 1:
                raise ValueError(f"eval.{name} must be at least 1, but it is {getattr(self, name)}.")

    def measure(
        self, policy: LanguagePolicy, snapshots: WeightSnapshots, judge: Any, accelerator: Accelerator
    ) -> dict[str, float]:
        """Return the win rate against the reference with its 95% interval over prompts, reward, KL and length.

        The same random numbers are used each time, so that rounds differ by the policy only.
        """
        n, world, rank = len(self.prompts), accelerator.num_processes, accelerator.process_index
        size = -(-n // world)  # processes that sample together must sample the same number
        own = [i % n for i in range(rank * size, (rank + 1) * size)]
        rollout = Rollout(policy, snapshots, judge, self.prompts.rows(own), partial(self._generators, own, 1))
        samples = rollout.sample("current", self.draws)
        if self.reference is None:
            self.reference = replace(rollout, generators=partial(self._generators, own, 0)).sample("ref", self.draws)
        wins = shared.win_rates(rollout.outcomes(samples, self.reference), "independent").mean(-1).numpy()
        columns = {"win_rate": wins, "length": samples.mask.sum(-1).double().mean(-1).numpy()}
        columns["kl"] = (
            (rollout.log_prob(samples, "current") - rollout.log_prob(samples, "ref")).double().mean(-1).numpy()
        )
        rewards = rollout.rewards(samples)
        if rewards is not None:
            columns["reward"] = rewards.mean(-1)
        rows = {i: {name: float(x[j]) for name, x in columns.items()} for j, i in enumerate(own)}
        everyone = [row for _, row in sorted({i: r for part in gather_object([rows]) for i, r in part.items()}.items())]
        values = {f"eval_{name}": float(np.mean([row[name] for row in everyone])) for name in columns}
        win = interval([row["win_rate"] for row in everyone])
        return values | {"eval_win_rate_low": win.low, "eval_win_rate_high": win.high}

    def _generators(self, which: Sequence[int], who: int) -> list[np.random.Generator]:
        # six numbers, so that these seeds are none of the training's
        return [np.random.default_rng([self.seed, who, 0, 0, 2, i]) for i in which]


class Metrics:
    """``metrics.jsonl``, one line of JSON per round over all processes, and accelerate's trackers."""

    def __init__(self, config: Config, accelerator: Accelerator, identity: dict[str, Any], n_prompts: int) -> None:
        self.accelerator, self.path, self.identity = accelerator, config.out / "metrics.jsonl", identity
        self.n_prompts = config.prompts_per_round or n_prompts
        self.n_draws = config.draws * self.n_prompts
        self.rows: list[dict[str, Any]] = []
        if config.trackers:
            settings = identity | {"rounds": config.rounds}
            accelerator.init_trackers("windlm", {name: scalar(value) for name, value in settings.items()})

    def start(self, row: dict[str, Any]) -> None:
        """Begin the file with the row of round 0."""
        self.rows = [row]
        self._write()

    def resume(self, done: int) -> None:
        """Keep the rows up to the round of the checkpoint, and that of the final policy if there is one."""
        rows = [json.loads(line) for line in self.path.read_text().splitlines()]
        self.rows = rows[: done + 1] + [row for row in rows[done + 1 : done + 2] if row.get("final")]
        self._write()

    def add(
        self, head: dict[str, Any], values: dict[str, float], counts: Mapping[str, float], exact: Mapping[str, float]
    ) -> None:
        """Combine the processes' numbers into a row: `values` by mean, `counts` by sum, seconds by maximum.

        `tokens_per_second` are the sampled tokens over the seconds of all activities.
        """
        parts = gather_object([(values, counts)])
        names = dict.fromkeys(k for p in parts for k in p[0])  # a process may lack win rates against the previous round
        row = head | {k: float(np.mean([p[0][k] for p in parts if k in p[0]])) for k in names}
        row["kl_error"] = math.sqrt(row["kl_error"] / self.n_draws)
        for name in [k.removesuffix("_square") for k in row if k.endswith("_square")]:
            row[f"{name}_error"] = standard_error(row[name], row.pop(f"{name}_square"), self.n_prompts)
        for name in counts:
            row[name] = (max if name.startswith("seconds") else sum)(p[1][name] for p in parts)
        seconds = sum(value for name, value in row.items() if name.startswith("seconds_"))
        row["tokens_per_second"] = row["tokens"] / seconds if seconds else 0.0
        row |= exact
        if self.rows[-1].get("final"):  # of a run that now has more rounds
            self.rows.pop()
        self.rows.append(row)
        self._write()
        self.accelerator.log({k: v for k, v in row.items() if isinstance(v, int | float)}, step=row["round"])

    def _write(self) -> None:
        if self.accelerator.is_main_process:
            text = "".join(json.dumps(row) + "\n" for row in self.rows)
            write_text(self.path, text)

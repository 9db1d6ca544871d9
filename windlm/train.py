r"""The training loop, read from top to bottom: draw, judge, freeze, regress, measure, keep.

A round is a function of the weights, the optimiser's state, the seed and the round's number: every draw comes from a
generator of (seed, round, prompt), every order of mini-batches from (seed, round, epoch). So a run that was killed goes
on from its last checkpoint to the same weights as one that was not, and two processes make the draws that one makes.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm import tqdm

from windgames import objectives as shared

from . import sharding
from .judges import Judge, key
from .objectives import Frozen, Objective, Table
from .policy import LanguagePolicy, Prompt, Samples, Slots

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


def train(
    policy: LanguagePolicy,
    prompts: Sequence[Prompt],
    judge: Judge,
    objective: Objective,
    config: Config,
    evaluate: Callable[[int, LanguagePolicy], Mapping[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """Train a policy and return the metrics of all rounds; its weights at the start are the reference.

    A folder that holds a checkpoint of the same run is gone on with.

    Parameters
    ----------
    policy : LanguagePolicy
        Changed in place.
    prompts : sequence of prompts
    judge : Judge
    objective : Objective
        `windlm.objectives.wind`, `sppo`, `bond`, `JBond`, `BestOfN`, or a `Regression` of any rule.
    config : Config
    evaluate : callable, optional
        Called as ``evaluate(round, policy)`` after each round, and with 0 before the first; what it returns joins the
        metrics.

    Raises
    ------
    ValueError
        If prompts do not divide among processes, an objective and the number of draws do not fit, a judge gives NaN,
        a loss is not finite, or the folder holds another run.
    """
    if isinstance(prompts, str):
        raise ValueError("prompts must be a list of prompts, but it is one text: put it into a list.")
    accelerator = Accelerator(cpu=config.cpu, log_with=list(config.trackers) or None, project_dir=str(config.out))
    world, rank = accelerator.num_processes, accelerator.process_index
    per_round = config.prompts_per_round or len(prompts)
    check_layout(config, len(prompts), per_round, world)
    policy.encode(prompts)

    slots = Slots(policy, config.out / "slots" / f"rank-{rank}")
    weights = list(slots.weights().values())
    coarse = sorted({str(p.dtype) for p in weights if p.dtype not in (torch.float32, torch.float64)})
    if coarse:
        raise ValueError(
            f"Trainable weights are {', '.join(coarse)}, in which small steps round away: load the model in float32 "
            f"(dtype=torch.float32), or train a float32 adapter over it."
        )
    optimizer = torch.optim.AdamW(weights, config.learning_rate, config.betas, config.epsilon, config.weight_decay)
    stages_per_round = len(objective.plan(0.0))
    total = config.rounds * stages_per_round * config.epochs * math.ceil(per_round / config.batch_prompts)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(config, step, total))
    model, optimizer = sharding.prepare(accelerator, policy, optimizer)
    weights = list(slots.weights().values())  # this process's shares, if they are sharded

    # the reference is the policy as it came; a checkpoint brings back everything else
    seen, checkpoints = Seen(config), config.out / "checkpoints"
    metrics = Metrics(config, accelerator, describe(config, objective, policy, prompts), len(prompts))
    state = load_checkpoint(checkpoints, rank)
    if state is None:
        done = 0
        for name in ("ref", *objective.slots):
            slots.save(name)
        metrics.start({"round": 0, **(evaluate(0, policy) if evaluate else {})})
    else:
        done = state["round"]
        if state["identity"] != metrics.identity:
            changed = [k for k, v in metrics.identity.items() if state["identity"].get(k) != v]
            raise ValueError(f"{config.out} holds a run with other {', '.join(changed)}: take another folder.")
        slots.put(state["weights"])
        optimizer.load_state_dict(sharding.unpack(state["optimizer"], optimizer))
        scheduler.load_state_dict(state["scheduler"])
        seen.reference, seen.previous = state["seen"]
        getattr(judge, "known", {}).update(state["judge"])
        for name, kept in state["slots"].items():
            torch.save(kept, slots.path(name))
        metrics.resume(done)

    for number in tqdm(
        range(done + 1, config.rounds + 1),
        desc="rounds",
        total=config.rounds,
        initial=done,
        disable=bool(rank) or not config.progress,
    ):
        chosen = round_prompts(len(prompts), per_round, number, config.seed)
        mine = chosen[rank * per_round // world : (rank + 1) * per_round // world]
        streams = count_streams([config.seed, number], mine)
        table = Table(policy, slots, judge, [prompts[i] for i in mine], streams.__next__)
        asked, training, losses, norms = judge.calls, 0.0, [], []
        stages = objective.plan((number - 1) / max(1, config.rounds - 1))
        if len(stages) > 1 or "previous" in objective.slots:
            slots.save("current")
            shutil.copy(slots.path("current"), slots.path("begin"))

        for stage in stages:
            # draw, judge and freeze: from here on only log pi_theta of the draws moves
            frozen = objective.collect(stage, table, config.draws)
            if stage is stages[0]:
                calls = judge.calls  # measuring is not the method's expense
                said = seen.measure(frozen, replace(table, seconds=dict(table.seconds)), mine)
                asked += judge.calls - calls
            frozen = Frozen.stack(gather_object([frozen]))

            # regress: E epochs in mini-batches, each split among the processes
            started = time.perf_counter()
            for epoch in range(config.epochs):
                # five numbers: draws have streams of four, and trailing zeros make no other stream
                order = np.random.default_rng([config.seed, number, epoch, 0, 1]).permutation(per_round)
                for i in range(0, per_round, config.batch_prompts):
                    batch = order[i : i + config.batch_prompts]
                    part = batch[rank * len(batch) // world : (rank + 1) * len(batch) // world]
                    micro = config.micro_prompts or len(part)
                    pieces = [frozen[part[j : j + micro]] for j in range(0, len(part), micro)]
                    total_loss = 0.0
                    for piece in pieces:
                        last = piece is pieces[-1]  # gradients meet those of other processes once a step
                        with nullcontext() if last else accelerator.no_sync(model):
                            loss = objective.loss(stage, model(piece.samples), piece).sum() / len(part)
                            accelerator.backward(loss)
                            total_loss += float(loss.detach())
                    losses.append(total_loss)
                    norms.append(float(sharding.whole(accelerator.clip_grad_norm_(weights, config.max_grad_norm))))
                    if not math.isfinite(losses[-1] + norms[-1]):
                        raise ValueError(
                            f"Round {number}: the loss is {losses[-1]} and its gradient's norm {norms[-1]}. Lower the "
                            f"learning rate, or look at the judge's verdicts."
                        )
                    optimizer.step()
                    scheduler.step()
                    optimizer.zero_grad()
            training += time.perf_counter() - started
            table.here = getattr(stage, "out", "current")
            objective.finish(stage, slots)
        if "previous" in objective.slots:
            shutil.copy(slots.path("begin"), slots.path("previous"))

        # measure and keep
        said |= {"loss": sum(losses) / len(losses), "gradient_norm": sum(norms) / len(norms)}
        counts = {"tokens": table.tokens, "judge_calls": judge.calls - asked}
        seconds = {f"seconds_{name}": value for name, value in (table.seconds | {"training": training}).items()}
        exact = evaluate(number, policy) if evaluate else {}
        metrics.add({"round": number, "learning_rate": scheduler.get_last_lr()[0]}, said, counts | seconds, exact)
        if config.checkpoint_every and (number % config.checkpoint_every == 0 or number == config.rounds):
            state = {
                "round": number,
                "identity": metrics.identity,
                "optimizer": sharding.pack(optimizer.state_dict()),
                "scheduler": scheduler.state_dict(),
                "seen": (seen.reference, seen.previous),
                "judge": getattr(judge, "known", {}),
                "slots": {name: torch.load(slots.path(name)) for name in objective.slots},
            }
            save_checkpoint(checkpoints, accelerator, number, state, slots)
    whole = sharding.whole_weights(policy, accelerator.is_main_process)
    accelerator.end_training()
    if accelerator.is_main_process:
        policy.save(config.out / "final", whole)
    return metrics.rows


# -- lines of the loop --------------------------------------------------------------------------------------


def check_layout(config: Config, n: int, per_round: int, world: int) -> None:
    """Refuse what would make processes wait for each other, or an unbalanced mean."""
    if n == 0:
        raise ValueError("There are no prompts.")
    if config.processes is not None and config.processes != world:
        raise ValueError(
            f"The run must have {config.processes} processes, but has {world}: start it with "
            f"torchrun --nproc_per_node {config.processes}."
        )
    if not 1 <= per_round <= n or n % per_round:
        raise ValueError(f"prompts_per_round must divide the {n} prompts, but it is {per_round}.")
    last = per_round % config.batch_prompts
    if per_round % world or min(config.batch_prompts, per_round) % world or last % world:
        raise ValueError(
            f"{per_round} prompts in mini-batches of {config.batch_prompts} do not divide evenly among {world} "
            f"processes: change prompts_per_round or batch_prompts."
        )


def rate(config: Config, step: int, total: int) -> float:
    """Return the factor of the learning rate at an optimiser step."""
    if step < config.warmup:
        return (step + 1) / (config.warmup + 1)
    progress = min(1.0, (step - config.warmup) / max(1, total - config.warmup))
    return {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}[config.schedule]


def round_prompts(n: int, per_round: int, number: int, seed: int) -> list[int]:
    """Return the prompts of a round: all of them once before any a second time."""
    if per_round == n:
        return list(range(n))
    turn, place = divmod((number - 1) * per_round, n)
    return np.random.default_rng([seed, turn]).permutation(n)[place : place + per_round].tolist()


def count_streams(seed: list[int], prompts: Sequence[int]) -> Iterator[list[np.random.Generator]]:
    """Yield new generators, one per prompt, that depend on nothing but seed, prompt and how many went before."""
    count = 0
    while True:
        yield [np.random.default_rng([*seed, count, i]) for i in prompts]
        count += 1


class Seen:
    """Earlier draws that a round's draws are judged against, for the metrics: by prompt, of this process."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.reference: dict[int, Samples] = {}
        self.previous: dict[int, Samples] = {}

    def measure(self, frozen: Frozen, table: Table, mine: Sequence[int]) -> dict[str, float]:
        r"""Return what a round's own draws say of the policy that drew them.

        `kl` and `entropy` are unbiased estimates for the policy before the round's update, :math:`KL(\pi\|\rho)`
        averaged over prompts; `kl_error` is the standard error of `kl` given the prompts.
        """
        own = frozen.samples.first(self.config.draws) if frozen.on_policy else table.draw("now", self.config.draws)
        now = frozen.fixed["now"] if "now" in frozen.fixed else table.log_prob(own, "now")
        ref = frozen.fixed["ref"] if frozen.on_policy and "ref" in frozen.fixed else table.log_prob(own, "ref")
        ratio = (now - ref).double()
        said = {
            "kl": float(ratio.mean()),
            "kl_error": float(ratio.var(-1).mean()) if ratio.shape[-1] > 1 else 0.0,
            "entropy": -float(now.double().mean()),
            "length": float(own.mask.sum(-1).double().mean()),
        }
        rewards = getattr(table.judge, "rewards", None)
        if rewards is not None:
            said["reward"] = float(rewards(table.prompts, own.text).mean())
        few = self.config.reference_draws
        if few:
            new = [j for j, i in enumerate(mine) if i not in self.reference]
            if sharding.is_sharded(table.policy) and not sharding.all_agree(not new, table.policy):
                new = list(range(len(mine)))  # processes that draw together draw as much
            if new:
                some = replace(table, prompts=[table.prompts[j] for j in new])
                streams = [np.random.default_rng([self.config.seed, 0, mine[j]]) for j in new]
                drawn = replace(some, generators=lambda: streams).draw("ref", few)
                self.reference |= {mine[j]: drawn[[n]] for n, j in enumerate(new)}
            for name, earlier in {"reference": self.reference, "previous": self.previous}.items():
                if all(i in earlier for i in mine):
                    opponents = Samples.stack([earlier[i] for i in mine])
                    against = table.outcomes(own.first(few), opponents)
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


# -- checkpoints ---------------------------------------------------------------------------------------------


def describe(config: Config, objective: Objective, policy: LanguagePolicy, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Return what makes two runs the same run, as far as it can be told: a judge is code, and is not looked into."""
    free = ("out", "progress", "checkpoint_every", "trackers", "processes", "cpu")
    settings = {k: v for k, v in asdict(config).items() if k not in free}
    draws = {name: getattr(policy, name) for name in ("max_new_tokens", "temperature", "top_p", "stop")}
    name = re.sub(r" at 0x[0-9a-f]+", "", repr(objective))
    shapes = [[n, *p.shape] for n, p in policy.model.named_parameters() if p.requires_grad]
    digests = {
        k: sha256(json.dumps(x).encode()).hexdigest()[:16]
        for k, x in (("prompts", [*map(key, prompts)]), ("weights", shapes))
    }
    return json.loads(json.dumps(settings | draws | digests | {"objective": name}))


def save_checkpoint(folder: Path, accelerator: Accelerator, number: int, state: dict[str, Any], slots: Slots) -> None:
    """Write a checkpoint beside the others and give it its name in one step; then drop the older ones."""
    temporary, final = folder / f"writing-{number:06d}", folder / f"round-{number:06d}"
    if accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    accelerator.wait_for_everyone()
    path = temporary / f"rank-{accelerator.process_index}.pt"
    torch.save(state | {"weights": slots.plain()}, path)
    sync(path)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        sync(temporary)
        os.replace(temporary, final)
        sync(folder)
        for old in sorted(folder.glob("round-*"))[:-1]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def load_checkpoint(folder: Path, rank: int) -> dict[str, Any] | None:
    """Return this process's part of the newest checkpoint, or None."""
    found = sorted(folder.glob("round-*"))
    if not found:
        return None
    path = found[-1] / f"rank-{rank}.pt"
    if not path.exists():
        raise ValueError(
            f"{found[-1]} has no part for process {rank}: resume with as many processes as it was saved by."
        )
    return torch.load(path, map_location="cpu", weights_only=False)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

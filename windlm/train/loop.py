r"""The training loop, to be read from top to bottom: sample, judge and score, regress, measure, save.

A round is a function of the weights, the optimizer state, the seed and the round number: every sample comes from a
generator seeded by (seed, round, prompt), every order of mini-batches from (seed, round, epoch). A run that was killed
therefore resumes from its last checkpoint to the same weights as an uninterrupted one, and two processes draw the same
samples as one.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from .. import sharding
from ..data import Prompts
from ..judges import Judge
from ..objectives import Objective, for_judge, remarks
from ..policy import LanguagePolicy, finite
from ..rollout import Activity, Rollout
from ..weights import WeightSnapshots
from .checkpoints import describe, load_checkpoint, save_checkpoint
from .config import Config
from .metrics import BaselineSamples, Metrics, check_trackers, mean_over_prompts
from .progress import Progress
from .shards import Journal, ShardedRollouts, check_writable, drop_old_rounds, open_round, write_shard
from .watch import StopWhen, any_stops, completions, responses_table, try_report, write_completions

SAMPLES_PER_STAGE = 16
"""Streams of random numbers set aside for each stage of a round; no objective samples that often."""
ONLY: dict[str | None, Activity | None] = {None: None, "generate": "sampling", "train": "scoring"}
"""What each part of a round does to make its data; see `Rollout.only`."""


def train(
    policy: LanguagePolicy,
    prompts: Any,
    judge: Judge,
    objective: Objective,
    config: Config,
    evaluate: Callable[[int, LanguagePolicy], Mapping[str, float]] | None = None,
    callbacks: Sequence[Any] = (),
    part: Literal["generate", "train"] | None = None,
) -> list[dict[str, Any]]:
    """Train a policy and return the metrics of all rounds.

    The reference is the policy as passed in; with an adapter, it is the base model with the adapter off. Resumes if
    `config.out` holds a checkpoint of this run.

    Parameters
    ----------
    policy : LanguagePolicy
        Trained in place.
    prompts : Prompts, list, or datasets.Dataset
        Texts, conversations, or rows with a prompt and with columns that the judge may read; see `Prompts.of`.
    judge : Judge
        Not used if there is a `part`.
    objective : Objective
        `windlm.objectives.wind`, `sppo`, `bond`, `JBond`, `BestOfN`, or a `Regression` of any rule.
    config : Config
    evaluate : callable, optional
        Called as ``evaluate(round, policy)`` after each round, and with round 0 before the first; the numbers it
        returns are added to the metrics.
    callbacks : sequence of objects
        With methods ``on_round(row, policy)``, ``on_resume(rows, policy)`` or both, see `windlm.train.watch.Callback`;
        one that returns True ends the run early.
    part : {"generate", "train"}, optional
        One part of the next round, where parts are done on different machines: "generate" samples its responses and
        stops; then `judge_round` judges them; then "train" scores them, trains on them and stops. By default all parts
        of all rounds are done.

    Returns
    -------
    list of dict
        The rows of ``metrics.jsonl``, the first of round 0; it has a ``remark`` if no theorem covers the run.

    Raises
    ------
    ValueError
        If the prompts do not divide evenly among processes, the number of draws does not suit the objective, the
        judge returns NaN, a loss is not finite, or the folder holds another run.
    """
    prompts, objective = Prompts.of(prompts), for_judge(objective, judge)
    check_trackers(config.trackers)
    callbacks = [*callbacks, *([StopWhen(config.stop_when)] if config.stop_when else [])]
    accelerator = Accelerator(cpu=config.cpu, log_with=list(config.trackers) or None, project_dir=str(config.out))
    world, rank = accelerator.num_processes, accelerator.process_index
    per_round = config.prompts_per_round or len(prompts)
    check_layout(config, len(prompts), per_round, world)
    check_part(part, config, objective)
    check_writable(config.out)
    policy.encode(prompts)
    finite(policy.model)
    if hasattr(judge, "check"):
        judge.check(prompts, policy.max_new_tokens)

    snapshots = WeightSnapshots(policy, config.out / "snapshots" / f"rank-{rank}")
    weights = list(snapshots.weights().values())
    imprecise = sorted({str(p.dtype) for p in weights if p.dtype not in (torch.float32, torch.float64)})
    if imprecise:
        raise ValueError(
            f"Trainable weights are {', '.join(imprecise)}, in which small steps are lost to rounding: load the model "
            f"in float32 (dtype=torch.float32), or train a float32 adapter on it."
        )
    optimizer = torch.optim.AdamW(weights, config.learning_rate, config.betas, config.epsilon, config.weight_decay)
    stages_per_round, per_token = len(objective.stages(0.0)), getattr(objective, "per_token", False)
    total = config.rounds * stages_per_round * config.epochs * math.ceil(per_round / config.batch_prompts)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(config, step, total))
    model, optimizer = sharding.prepare(accelerator, policy, optimizer)
    weights = list(snapshots.weights().values())  # this process's shards, if there are any

    # a checkpoint restores everything but the reference, which is the policy as passed in
    baselines, checkpoints = BaselineSamples(config), config.out / "checkpoints"
    metrics = Metrics(config, accelerator, describe(config, objective, policy, prompts), len(prompts))
    state = load_checkpoint(checkpoints, rank)
    if state is None:
        done = 0
        for name in ("ref", *objective.slots):
            snapshots.save(name)
        if accelerator.is_main_process:
            shutil.rmtree(config.out / "completions", ignore_errors=True)
        remark = remarks(objective, config.rounds)
        head = {"round": 0, "remark": remark} if remark else {"round": 0}
        if part != "generate":
            metrics.start(head | dict(evaluate(0, policy) if evaluate else {}))
    else:
        done = state["round"]
        if state["identity"] != metrics.identity:
            changed = [k for k, v in metrics.identity.items() if state["identity"].get(k) != v]
            raise ValueError(f"{config.out} holds a run with other {', '.join(changed)}: choose another folder.")
        snapshots.put(state["weights"])
        optimizer.load_state_dict(sharding.unpack(state["optimizer"], optimizer))
        scheduler.load_state_dict(state["scheduler"])
        baselines.reference, baselines.previous = state["baselines"]
        for name, kept in state["slots"].items():
            torch.save(kept, snapshots.path(name))
        metrics.resume(done)
    stopped = done > 0 and any_stops(callbacks, "on_resume", metrics.rows, policy)

    units = per_round // world * config.draws * stages_per_round * (2 + config.epochs)
    progress = Progress(config.rounds, units, done, config.progress and accelerator.is_main_process)
    policy.report = progress.add
    last_round = config.rounds if part is None else min(done + 1, config.rounds)
    for number in range(done + 1, done + 1 if stopped else last_round + 1):
        progress.round(number)
        chosen = round_prompts(len(prompts), per_round, number, config.seed)
        indices = chosen[rank * per_round // world : (rank + 1) * per_round // world]
        folder, measured = config.out / "rollouts" / f"round-{number:06d}", []
        totals: dict[str, float] = {"tokens": 0, "judge_calls": 0, "seconds_training": 0.0}
        losses, norms, loaded = [], [], "current"
        shown: list[dict[str, Any]] = []
        stages = objective.stages((number - 1) / max(1, config.rounds - 1))
        if len(stages) > 1 or "previous" in objective.slots:
            snapshots.save("current")
            shutil.copy(snapshots.path("current"), snapshots.path("begin"))
        if accelerator.is_main_process:
            open_round(folder, metrics.identity | {"processes": world}, policy, part is not None)
        accelerator.wait_for_everyone()

        for n, stage in enumerate(stages):
            # sample, judge and score, a shard of prompts at a time: from here on only log pi_theta changes
            for first in range(0, len(indices), config.shard_prompts):
                shard = indices[first : first + config.shard_prompts]
                progress.expect(2 * len(shard) * config.draws)
                name = f"shard-{rank * per_round // world + first:08d}"
                streams = count_streams([config.seed, number], shard, n * SAMPLES_PER_STAGE)
                journal = Journal(folder / f"stage-{n}" / f"{name}.journal", partial(sharding.all_agree, policy=policy))
                own = [i % len(prompts) for i in shard]
                texts = prompts.rows(own)
                if not journal.has("prompts"):
                    journal.write("prompts", own)
                getattr(judge, "known", {}).clear()  # verdicts are remembered within a shard: memory stays bounded
                rollout = Rollout(
                    policy, snapshots, judge, texts, streams.__next__, loaded, journal, ONLY[part],
                    config.on_judge_error, config.judge_retries,
                )  # fmt: skip
                batch = objective.collect(stage, rollout, config.draws)
                if part == "generate":
                    rollout.own(batch, config.draws)
                    continue
                if n == 0:
                    apart = replace(rollout, seconds=dict(rollout.seconds))
                    measured.append((len(shard), baselines.measure(batch, apart, own)))
                    left = config.completions - len(shown)
                    shown += completions(batch, apart, own, baselines.reference, config.draws, left)
                write_shard(folder / f"stage-{n}" / f"{name}.arrow", own, texts, batch, policy)
                spent = {f"seconds_{activity}": s for activity, s in rollout.seconds.items()}
                for count, value in {"tokens": rollout.tokens, "judge_calls": rollout.calls, **spent}.items():
                    totals[count] = totals.get(count, 0) + value
                if config.on_judge_error == "worst":
                    totals["judge_errors"] = totals.get("judge_errors", 0) + rollout.failed
            accelerator.wait_for_everyone()
            if part == "generate":
                progress.close()
                return metrics.rows
            rollouts = ShardedRollouts(folder / f"stage-{n}")

            # regress: epochs of mini-batches, each split among the processes
            started = time.perf_counter()
            for epoch in range(config.epochs):
                # five numbers, so that this seed is none of the samples' seeds of four numbers
                order = np.random.default_rng([config.seed, number, epoch, 0, 1]).permutation(per_round)
                for i in range(0, per_round, config.batch_prompts):
                    step = order[i : i + config.batch_prompts]
                    mine = step[rank * len(step) // world : (rank + 1) * len(step) // world]
                    batch, total_loss = rollouts[mine], 0.0
                    pieces = policy.batches(batch.samples)
                    progress.expect(len(mine) * config.draws)
                    for j, rows in enumerate(pieces):
                        piece, last = batch[rows], j == len(pieces) - 1
                        with nullcontext() if last else accelerator.no_sync(model):  # exchange gradients once a step
                            log_policy = model(piece.samples, **({"per_token": True} if per_token else {}))
                            loss = objective.loss(stage, log_policy, piece).sum() / len(mine)
                            accelerator.backward(loss)
                            total_loss += float(loss.detach())
                        progress.add("training", len(rows) * config.draws, piece.samples.n_tokens)
                    losses.append(total_loss)
                    norms.append(float(sharding.whole(accelerator.clip_grad_norm_(weights, config.max_grad_norm))))
                    if not math.isfinite(losses[-1] + norms[-1]):
                        raise ValueError(
                            f"Round {number}: the loss is {losses[-1]} and the gradient norm {norms[-1]}. Lower the "
                            f"learning rate, or check the judge's output."
                        )
                    optimizer.step()
                    scheduler.step()
                    optimizer.zero_grad()
            totals["seconds_training"] += time.perf_counter() - started
            loaded = getattr(stage, "out", "current")
            objective.finish(stage, snapshots)
        if "previous" in objective.slots:
            shutil.copy(snapshots.path("begin"), snapshots.path("previous"))
        for slot, every in getattr(objective, "renew", {}).items():
            if number % every == 0:
                snapshots.save(slot)

        # measure and save
        values = mean_over_prompts(measured)
        values |= {"loss": sum(losses) / len(losses), "gradient_norm": sum(norms) / len(norms)}
        exact = evaluate(number, policy) if evaluate else {}
        metrics.add({"round": number, "learning_rate": scheduler.get_last_lr()[0]}, values, totals, exact)
        shown = gather_object(shown)[: config.completions]
        if accelerator.is_main_process and shown:
            write_completions(config.out / "completions" / f"round-{number:06d}.jsonl", shown)
            if config.show_every and number % config.show_every == 0:
                progress.write(responses_table(number, shown))
        progress.update(metrics.rows[-1])
        stopped = any_stops(callbacks, "on_round", metrics.rows[-1], policy)
        last = stopped or number == last_round
        if config.checkpoint_every and (number % config.checkpoint_every == 0 or last):
            state = {
                "round": number,
                "identity": metrics.identity,
                "optimizer": sharding.pack(optimizer.state_dict()),
                "scheduler": scheduler.state_dict(),
                "baselines": (baselines.reference, baselines.previous),
                "slots": {name: torch.load(snapshots.path(name)) for name in objective.slots},
            }
            save_checkpoint(checkpoints, accelerator, number, state, snapshots)
        if accelerator.is_main_process and (last or (checkpoints / f"round-{number:06d}").exists()):
            drop_old_rounds(config.out / "rollouts", config.keep_rollouts)
        accelerator.wait_for_everyone()
        if stopped:
            break
    progress.close()
    whole = sharding.whole_weights(policy, accelerator.is_main_process)
    accelerator.end_training()
    if accelerator.is_main_process:
        policy.save(config.out / "final", whole)
        if config.report:
            try_report(config.out)
    return metrics.rows


# -- steps of the loop --------------------------------------------------------------------------------------


def check_layout(config: Config, n: int, per_round: int, world: int) -> None:
    """Raise ValueError unless the prompts divide evenly among rounds, mini-batches and processes."""
    if n == 0:
        raise ValueError("There are no prompts.")
    if config.processes is not None and config.processes != world:
        raise ValueError(
            f"The run requires {config.processes} processes, but has {world}: start it with "
            f"torchrun --nproc_per_node {config.processes}."
        )
    if per_round > n:
        raise ValueError(f"prompts_per_round must be at most {n}, the number of prompts, but it is {per_round}.")
    last = per_round % config.batch_prompts
    if per_round % world or min(config.batch_prompts, per_round) % world or last % world:
        raise ValueError(
            f"{per_round} prompts in mini-batches of {config.batch_prompts} do not divide evenly among {world} "
            f"processes: change prompts_per_round or batch_prompts."
        )


def check_part(part: str | None, config: Config, objective: Objective) -> None:
    """Raise ValueError if a round cannot be done in parts."""
    if part not in ONLY:
        raise ValueError(f"part must be 'generate', 'train' or None, but it is {part!r}.")
    if part and len(objective.stages(0.0)) > 1:
        raise ValueError("A round of this method samples again between trainings: it cannot be done in parts.")
    if part and config.reference_draws:
        raise ValueError("Win rates against the reference need a judge in training: set reference_draws to 0.")
    if part == "train" and not config.checkpoint_every:
        raise ValueError("A round that is trained on alone must be saved: set checkpoint_every to 1.")


def rate(config: Config, step: int, total: int) -> float:
    """Return the learning rate at an optimizer step, as a fraction of its peak."""
    if step < config.warmup:
        return (step + 1) / (config.warmup + 1)
    progress = min(1.0, (step - config.warmup) / max(1, total - config.warmup))
    return {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}[config.schedule]


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

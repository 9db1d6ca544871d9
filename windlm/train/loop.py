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
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from .. import schedules, sharding
from ..allocator import keep_freed_memory
from ..data import Prompts
from ..files import check_writable, writing
from ..models import ModelSettings, check_mergeable, judge_of, policy_of, save_merged, write_check
from ..objectives import Objective, for_judge, remarks
from ..policy import LanguagePolicy, finite, ignore
from ..weights import WeightSnapshots
from .checkpoints import Checkpoints, describe
from .config import Config
from .metrics import BaselineSamples, HeldOut, Metrics, check_trackers, mean_over_prompts
from .progress import Progress
from .rounds import ONLY, Collector, Part
from .shards import ShardedRollouts, open_round
from .watch import StopWhen, any_stops, check_callbacks, responses_table, try_report, write_completions


def train(
    policy: LanguagePolicy | ModelSettings | str | Path,
    prompts: Any,
    judge: Any,
    objective: Objective,
    config: Config,
    evaluate: Callable[[int, LanguagePolicy], Mapping[str, float]] | None = None,
    callbacks: Sequence[Any] = (),
    part: Part | None = None,
    held_out: HeldOut | None = None,
) -> list[dict[str, Any]]:
    """Train a policy and return the metrics of all rounds.

    The reference is the policy as passed in, also if it is an adapter that was trained before; with
    ``config.reference = "base"`` it is the base model with the adapter off. Resumes if `config.out` holds a checkpoint
    of this run, and goes on with a run that is over if there are more rounds now.

    The trained model is saved in ``model/``, an adapter merged into it and in ``adapter/``, too; see
    `windlm.models.save_merged`. Of an adapter on sharded weights there is ``adapter/`` only.

    Parameters
    ----------
    policy : LanguagePolicy, ModelSettings or str
        Trained in place. Settings, or a model's name or folder, are loaded as by the command line, with an adapter.
    prompts : Prompts, list, or datasets.Dataset
        Texts, conversations, or rows with a prompt and with columns that the judge may read; see `Prompts.of`.
    judge : Judge, callable or str
        A function is taken for a reward, a name for that of a reward model, or of a function as ``module:function``.
        With a `part`, only its `interaction` is read, so that its settings do as well.
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
    held_out : HeldOut, optional
        Prompts outside the training data, on which the policy is compared with the reference every so many rounds.

    Returns
    -------
    list of dict
        The rows of ``metrics.jsonl``, the first of round 0; it has a ``remark`` if no theorem covers the run. The row
        of a round is of the policy before its update, and the last one, with ``final``, of the trained policy.

    Raises
    ------
    ValueError
        If the prompts do not divide evenly among processes, the number of draws does not suit the objective, the
        judge returns NaN, a loss is not finite, the folder holds another run, or the saved model is not the trained
        one.
    """
    judge = judge_of(judge)
    prompts, objective = Prompts.of(prompts), for_judge(objective, judge)
    policy = policy_of(policy, config.seed)
    config = config.filled(policy)
    assert config.learning_rate is not None
    callbacks = [*callbacks, *([StopWhen(config.stop_when)] if config.stop_when else [])]
    held_out = replace(held_out, reference=None) if held_out else None
    check_callbacks(callbacks)
    check_trackers(config.trackers)
    accelerator = Accelerator(cpu=config.cpu, log_with=list(config.trackers) or None, project_dir=str(config.out))
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    world, rank, main = accelerator.num_processes, accelerator.process_index, accelerator.is_main_process
    per_round = config.prompts_per_round or len(prompts)
    policy.rescore = config.rescore
    check_layout(config, len(prompts), per_round, world)
    check_part(part, config, objective)
    check_writable(config.out)
    encoded = policy.encode(prompts)
    check_policy(policy, config, objective)
    if held_out:
        policy.encode(held_out.prompts)
    if part is None and hasattr(judge, "check"):
        judge.check(prompts, policy.max_new_tokens)

    snapshots = WeightSnapshots(policy, config.out / "snapshots", rank, world)
    weights = list(snapshots.weights().values())
    optimizer = torch.optim.AdamW(weights, config.learning_rate, config.betas, config.epsilon, config.weight_decay)
    stages_per_round, per_token = len(objective.stages(0.0)), getattr(objective, "per_token", False)
    total = config.rounds * stages_per_round * config.epochs * math.ceil(per_round / config.batch_prompts)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: schedules.rate(config.schedule, config.warmup, step, total)
    )
    model, optimizer = sharding.prepare(accelerator, policy, optimizer, config.mixed_precision)
    weights = list(snapshots.weights().values())  # this process's shards, if there are any

    identity, baselines = describe(config, objective, policy, prompts), BaselineSamples(config)
    metrics = Metrics(config, accelerator, identity, len(prompts))
    checkpoints = Checkpoints(
        *(config, accelerator, policy, snapshots, optimizer, scheduler, baselines, judge, identity, objective.slots)
    )
    state = checkpoints.resume(encoded)
    done, within = (state["round"], state["within"]) if state else (0, None)
    if state is None:
        if main:
            for name in ("snapshots", "completions"):
                shutil.rmtree(config.out / name, ignore_errors=True)
        accelerator.wait_for_everyone()
        checkpoints.begin()
        remark = remarks(objective, config.rounds)
        head = {"round": 0, "remark": remark} if remark else {"round": 0}
        if part != "generate":
            metrics.start(head | dict(evaluate(0, policy) if evaluate else {}))
    else:
        metrics.resume(done)
    stopped = done > 0 and any_stops(callbacks, "on_resume", metrics.rows[: done + 1], policy)

    units = per_round // world * config.draws * stages_per_round * (2 + config.epochs)
    progress = Progress(config.rounds, units, done, config.progress and main)
    policy.report = progress.add
    collector = Collector(
        *(policy, prompts, judge, objective, config, snapshots, baselines, progress, per_round, rank, world, part)
    )
    last_round = config.rounds if part is None else min(done + 1, config.rounds)
    for number in range(done + 1, done + 1 if stopped else last_round + 1):
        progress.round(number)
        stages = objective.stages((number - 1) / max(1, config.rounds - 1))
        round = collector.begin(number)
        if within:
            round.resume(within, main)
            within = None
        else:
            if len(stages) > 1 or "previous" in objective.slots:
                snapshots.save("current")
                snapshots.copy("current", "begin")
            if main:
                about = identity | {"rounds": config.rounds, "processes": world}
                open_round(round.folder, about, policy, part is not None)
        accelerator.wait_for_everyone()

        for n, stage in enumerate(stages):
            if n < round.stage:
                continue
            # sample, judge and score: from here on only log pi_theta changes
            resumed = n == round.stage and round.steps > 0
            if not resumed:
                collector.collect(round, n, stage)
            accelerator.wait_for_everyone()
            if part == "generate":
                progress.close()
                return metrics.rows
            rollouts = ShardedRollouts(round.folder / f"stage-{n}")

            # regress: epochs of mini-batches, each split among the processes
            started = time.perf_counter()
            for epoch in range(round.epoch if resumed else 0, config.epochs):
                # five numbers, so that this seed is none of the samples' seeds of four numbers
                order = np.random.default_rng([config.seed, number, epoch, 0, 1]).permutation(per_round)
                begin = round.start if resumed and epoch == round.epoch else 0
                for i in range(begin, per_round, config.batch_prompts):
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
                    round.losses.append(total_loss)
                    norm = accelerator.clip_grad_norm_(weights, config.max_grad_norm)
                    round.norms.append(float(sharding.whole(norm)))
                    if not math.isfinite(round.losses[-1] + round.norms[-1]):
                        raise ValueError(
                            f"Round {number}: the loss is {round.losses[-1]} and the gradient norm {round.norms[-1]}. "
                            f"Lower the learning rate, or check the judge's output."
                        )
                    round.learning_rate = optimizer.param_groups[0]["lr"]
                    optimizer.step()
                    scheduler.step()
                    optimizer.zero_grad()
                    round.steps += 1
                    if config.checkpoint_steps and round.steps % config.checkpoint_steps == 0:
                        seconds = time.perf_counter() - started
                        checkpoints.save(number, round.state(n, epoch, i + config.batch_prompts, seconds))
            round.totals["seconds_training"] += time.perf_counter() - started
            round.loaded = getattr(stage, "out", "current")
            objective.finish(stage, snapshots)
        if "previous" in objective.slots:
            snapshots.copy("begin", "previous")
        for slot, every in getattr(objective, "renew", {}).items():
            if number % every == 0:
                snapshots.save(slot)

        # measure and save
        exact = dict(evaluate(number, policy) if evaluate else {})
        if held_out and (number % held_out.every == 0 or number == config.rounds):
            exact |= held_out.measure(policy, snapshots, judge, accelerator)
        metrics.add({"round": number, "learning_rate": round.learning_rate}, round.metrics(), round.totals, exact)
        shown = gather_object(round.shown)[: config.completions]
        if main and shown:
            write_completions(config.out / "completions" / f"round-{number:06d}.jsonl", shown)
            if config.show_every and number % config.show_every == 0:
                progress.write(responses_table(number, shown))
        progress.update(metrics.rows[-1])
        try:
            checkpoints.note(metrics.rows[-1], exact)
            stopped = any_stops(callbacks, "on_round", metrics.rows[-1], policy)
        except Exception:  # of a callback, or there is no such metric: the round is not lost
            checkpoints.after_round(number, over=False, last=True)
            raise
        checkpoints.after_round(number, over=stopped or number == config.rounds, last=stopped or number == last_round)
        accelerator.wait_for_everyone()
        if stopped:
            break
    progress.close()
    policy.report = ignore

    # the policy that the last round has made
    number = metrics.rows[-1]["round"] - bool(metrics.rows[-1].get("final"))
    if stopped or number >= config.rounds:
        if done < number or not (config.out / "model").exists():
            save_trained(policy, prompts.rows(range(min(2, len(prompts)))), config, main)
        if config.measure_final and part is None and not metrics.rows[-1].get("final"):
            round = collector.measure(number + 1)
            metrics.add({"round": number + 1, "final": True}, mean_over_prompts(round.measured), round.totals, {})
            checkpoints.note(metrics.rows[-1], {})
    accelerator.end_training()
    if main and config.report:
        try_report(config.out)
    return metrics.rows


# -- steps of the loop --------------------------------------------------------------------------------------


def save_trained(policy: LanguagePolicy, prompts: Prompts, config: Config, main: bool) -> None:
    """Save the trained model, compared with the policy on a few draws."""
    draws = [np.random.default_rng([config.seed, config.rounds, 0, 0, 3, i]) for i in range(len(prompts))]
    engine, policy.engine = policy.engine, None
    samples = policy.sample(prompts, 4, draws)
    policy.engine = engine
    expected, whole = policy.log_prob(samples), sharding.whole_weights(policy, main)
    if not main:
        return
    with writing(config.out):
        if policy.has_adapter:
            policy.save(config.out / "adapter", whole)
        if whole is None or not policy.has_adapter:
            save_merged(policy, config.out / "model", samples, expected, whole)
        else:
            write_check(config.out / "adapter", samples, expected)


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


def check_policy(policy: LanguagePolicy, config: Config, objective: Objective) -> None:
    """Raise ValueError if a policy cannot be trained: its weights, its adapter, or the number of responses."""
    finite(policy.model)
    check_mergeable(policy)
    trained = [p.dtype for p in policy.model.parameters() if p.requires_grad]
    imprecise = sorted({str(dtype) for dtype in trained if dtype not in (torch.float32, torch.float64)})
    if imprecise:
        raise ValueError(
            f"Trainable weights are {', '.join(imprecise)}, in which small steps are lost to rounding: load the model "
            f"in float32 (dtype=torch.float32), or train a float32 adapter on it."
        )
    check_draws = getattr(objective, "check", None)
    if check_draws is not None:
        check_draws(config.draws)
    if config.reference == "base" and not policy.has_adapter:
        raise ValueError("reference='base' is the base model of an adapter, but the policy has none: leave it out.")


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

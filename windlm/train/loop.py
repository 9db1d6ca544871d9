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
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from .. import schedules, sharding
from ..data import Prompts
from ..files import check_writable, writing
from ..models import ModelSettings, check_mergeable, judge_of, policy_of, save_merged, write_check
from ..objectives import Objective, for_judge, remarks
from ..policy import LanguagePolicy, finite, ignore
from ..rollout import Activity, Rollout
from ..weights import WeightSnapshots
from .checkpoints import Checkpoints, describe
from .config import Config
from .metrics import BaselineSamples, HeldOut, Metrics, check_trackers, mean_over_prompts
from .progress import Progress
from .shards import Journal, ShardedRollouts, drop_old_rounds, open_round, write_shard
from .watch import StopWhen, any_stops, completions, responses_table, try_report, write_completions

SAMPLES_PER_STAGE = 16
"""Streams of random numbers set aside for each stage of a round; no objective samples that often."""
ONLY: dict[str | None, Activity | None] = {None: None, "generate": "sampling", "train": "scoring"}
"""What each part of a round does to make its data; see `Rollout.only`."""


def train(
    policy: LanguagePolicy | ModelSettings | str | Path,
    prompts: Any,
    judge: Any,
    objective: Objective,
    config: Config,
    evaluate: Callable[[int, LanguagePolicy], Mapping[str, float]] | None = None,
    callbacks: Sequence[Any] = (),
    part: Literal["generate", "train"] | None = None,
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
    check_trackers(config.trackers)
    callbacks = [*callbacks, *([StopWhen(config.stop_when)] if config.stop_when else [])]
    accelerator = Accelerator(cpu=config.cpu, log_with=list(config.trackers) or None, project_dir=str(config.out))
    world, rank = accelerator.num_processes, accelerator.process_index
    per_round = config.prompts_per_round or len(prompts)
    check_layout(config, len(prompts), per_round, world)
    check_part(part, config, objective)
    check_writable(config.out)
    encoded = policy.encode(prompts)
    finite(policy.model)
    check_mergeable(policy)
    check_precision(policy)
    check_draws(objective, config.draws)
    if config.reference == "base" and not policy.has_adapter:
        raise ValueError("reference='base' is the base model of an adapter, but the policy has none: leave it out.")
    if held_out:
        held_out = replace(held_out, reference=None)
        policy.encode(held_out.prompts)
    if part is None and hasattr(judge, "check"):
        judge.check(prompts, policy.max_new_tokens)

    snapshots = WeightSnapshots(policy, config.out / "snapshots", rank, world)
    weights = list(snapshots.weights().values())
    optimizer = torch.optim.AdamW(weights, config.learning_rate, config.betas, config.epsilon, config.weight_decay)
    stages_per_round, per_token = len(objective.stages(0.0)), getattr(objective, "per_token", False)
    total = config.rounds * stages_per_round * config.epochs * math.ceil(per_round / config.batch_prompts)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(config, step, total))
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
        if accelerator.is_main_process:
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
    progress = Progress(config.rounds, units, done, config.progress and accelerator.is_main_process)
    policy.report = progress.add
    last_round = config.rounds if part is None else min(done + 1, config.rounds)
    for number in range(done + 1, done + 1 if stopped else last_round + 1):
        progress.round(number)
        chosen = round_prompts(len(prompts), per_round, number, config.seed)
        indices = chosen[rank * per_round // world : (rank + 1) * per_round // world]
        folder, measured = config.out / "rollouts" / f"round-{number:06d}", []
        totals: dict[str, float] = {"tokens": 0, "judge_calls": 0, "seconds_training": 0.0}
        losses, norms, loaded, taken = [], [], "current", 0
        shown: list[dict[str, Any]] = []
        baselines.round = number
        stages = objective.stages((number - 1) / max(1, config.rounds - 1))
        at = {"stage": 0, "epoch": 0, "start": 0}
        if within:  # of this round's training
            at, within = within, None
            losses, norms, loaded, taken = at["losses"], at["norms"], at["loaded"], at["step"]
            if accelerator.is_main_process:
                measured, totals, shown = at["measured"], at["totals"], at["shown"]
            else:
                totals = dict.fromkeys(at["totals"], 0.0)
        else:
            if len(stages) > 1 or "previous" in objective.slots:
                snapshots.save("current")
                snapshots.copy("current", "begin")
            if accelerator.is_main_process:
                open_round(folder, identity | {"rounds": config.rounds, "processes": world}, policy, part is not None)
        accelerator.wait_for_everyone()

        for n, stage in enumerate(stages):
            if n < at["stage"]:
                continue
            # sample, judge and score, a shard of prompts at a time: from here on only log pi_theta changes
            drawn = n == at["stage"] and taken > 0
            for first in range(0, 0 if drawn else len(indices), config.shard_prompts):
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
                totals = add_up(totals, rollout)
                if config.on_judge_error == "worst":
                    totals["judge_errors"] = totals.get("judge_errors", 0) + rollout.failed
            accelerator.wait_for_everyone()
            if part == "generate":
                progress.close()
                return metrics.rows
            rollouts = ShardedRollouts(folder / f"stage-{n}")

            # regress: epochs of mini-batches, each split among the processes
            started = time.perf_counter()
            for epoch in range(at["epoch"] if drawn else 0, config.epochs):
                # five numbers, so that this seed is none of the samples' seeds of four numbers
                order = np.random.default_rng([config.seed, number, epoch, 0, 1]).permutation(per_round)
                begin = at["start"] if drawn and epoch == at["epoch"] else 0
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
                    losses.append(total_loss)
                    norms.append(float(sharding.whole(accelerator.clip_grad_norm_(weights, config.max_grad_norm))))
                    if not math.isfinite(losses[-1] + norms[-1]):
                        raise ValueError(
                            f"Round {number}: the loss is {losses[-1]} and the gradient norm {norms[-1]}. Lower the "
                            f"learning rate, or check the judge's output."
                        )
                    learning_rate = optimizer.param_groups[0]["lr"]
                    optimizer.step()
                    scheduler.step()
                    optimizer.zero_grad()
                    taken += 1
                    if config.checkpoint_steps and taken % config.checkpoint_steps == 0:
                        seconds = totals["seconds_training"] + time.perf_counter() - started
                        known = combined(measured, shown, losses, totals | {"seconds_training": seconds})
                        where = {"stage": n, "epoch": epoch, "start": i + config.batch_prompts, "loaded": loaded}
                        checkpoints.save(number, where | known | {"step": taken, "norms": norms})
            totals["seconds_training"] += time.perf_counter() - started
            loaded = getattr(stage, "out", "current")
            objective.finish(stage, snapshots)
        if "previous" in objective.slots:
            snapshots.copy("begin", "previous")
        for slot, every in getattr(objective, "renew", {}).items():
            if number % every == 0:
                snapshots.save(slot)

        # measure and save
        values = mean_over_prompts(measured)
        values |= {"loss": sum(losses) / len(losses), "gradient_norm": sum(norms) / len(norms)}
        exact = dict(evaluate(number, policy) if evaluate else {})
        if held_out and (number % held_out.every == 0 or number == config.rounds):
            exact |= held_out.measure(policy, snapshots, judge, accelerator)
        metrics.add({"round": number, "learning_rate": learning_rate}, values, totals, exact)
        checkpoints.note(metrics.rows[-1], exact)
        shown = gather_object(shown)[: config.completions]
        if accelerator.is_main_process and shown:
            write_completions(config.out / "completions" / f"round-{number:06d}.jsonl", shown)
            if config.show_every and number % config.show_every == 0:
                progress.write(responses_table(number, shown))
        progress.update(metrics.rows[-1])
        stopped = any_stops(callbacks, "on_round", metrics.rows[-1], policy)
        last = stopped or number == last_round
        asked = bool(config.save_every) and number % config.save_every == 0
        if asked or (config.checkpoint_every and (last or number % config.checkpoint_every == 0)):
            # the model of the last round is in model/
            checkpoints.save(
                number, model=asked or number in checkpoints.best[:1] or not (stopped or number == config.rounds)
            )
        if accelerator.is_main_process and (last or (checkpoints.folder / f"round-{number:06d}").exists()):
            drop_old_rounds(config.out / "rollouts", config.keep_rollouts)
        accelerator.wait_for_everyone()
        if stopped:
            break
    progress.close()
    policy.report = ignore

    # the policy that the last round has made
    number = metrics.rows[-1]["round"] - bool(metrics.rows[-1].get("final"))
    if stopped or number >= config.rounds:
        if done < number or not (config.out / "model").exists():
            save_trained(policy, prompts.rows(range(min(2, len(prompts)))), config, accelerator.is_main_process)
        if config.measure_final and part is None and not metrics.rows[-1].get("final"):
            chosen = round_prompts(len(prompts), per_round, number + 1, config.seed)
            indices, measured = chosen[rank * per_round // world : (rank + 1) * per_round // world], []
            baselines.round, totals = number + 1, {"tokens": 0, "judge_calls": 0}
            for first in range(0, len(indices), config.shard_prompts):
                shard = indices[first : first + config.shard_prompts]
                own = [i % len(prompts) for i in shard]
                streams = count_streams([config.seed, number + 1], shard)
                getattr(judge, "known", {}).clear()
                rollout = Rollout(
                    policy, snapshots, judge, prompts.rows(own), streams.__next__,
                    on_judge_error=config.on_judge_error, judge_retries=config.judge_retries,
                )  # fmt: skip
                measured.append((len(shard), baselines.measure(None, rollout, own)))
                totals = add_up(totals, rollout)
            metrics.add({"round": number + 1, "final": True}, mean_over_prompts(measured), totals, {})
            checkpoints.note(metrics.rows[-1], {})
    accelerator.end_training()
    if accelerator.is_main_process and config.report:
        try_report(config.out)
    return metrics.rows


# -- steps of the loop --------------------------------------------------------------------------------------


def add_up(totals: Mapping[str, float], rollout: Rollout) -> dict[str, float]:
    """Return the round's counts with those of a shard."""
    spent = {f"seconds_{activity}": s for activity, s in rollout.seconds.items()}
    counts = {"tokens": rollout.tokens, "judge_calls": rollout.calls, **spent}
    return {**totals, **{name: totals.get(name, 0) + value for name, value in counts.items()}}


def combined(
    measured: Sequence[Any], shown: Sequence[Any], losses: Sequence[float], totals: Mapping[str, float]
) -> dict[str, Any]:
    """Return what the processes know of a round that is not over, for the first process of a run that resumes it."""
    parts = gather_object([(measured, shown, losses, totals)])
    names = dict.fromkeys(name for part in parts for name in part[3])
    return {
        "measured": [entry for part in parts for entry in part[0]],
        "shown": [entry for part in parts for entry in part[1]],
        "losses": np.mean([part[2] for part in parts], axis=0).tolist(),
        "totals": {
            name: (max if name.startswith("seconds") else sum)(part[3].get(name, 0) for part in parts) for name in names
        },
    }


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


def check_precision(policy: LanguagePolicy) -> None:
    """Raise ValueError if trainable weights are too coarse for small steps."""
    trained = [p.dtype for p in policy.model.parameters() if p.requires_grad]
    imprecise = sorted({str(dtype) for dtype in trained if dtype not in (torch.float32, torch.float64)})
    if imprecise:
        raise ValueError(
            f"Trainable weights are {', '.join(imprecise)}, in which small steps are lost to rounding: load the model "
            f"in float32 (dtype=torch.float32), or train a float32 adapter on it."
        )


def check_draws(objective: Objective, draws: int) -> None:
    """Raise ValueError if an objective cannot use so many responses per prompt."""
    check = getattr(objective, "check", None)
    if check is not None:
        check(draws)


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
    return schedules.rate(config.schedule, config.warmup, step, total)


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

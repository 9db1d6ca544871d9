"""The command plan: what a run would cost, and everything that it would refuse, before a weight is loaded."""

from __future__ import annotations

import importlib.util
import math
import tempfile
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from ..data import fitting, load_prompts
from ..files import check_writable
from ..models import (
    as_policy,
    base_of,
    checkpoint_layers,
    load_judge,
    load_policy,
    pretrained,
    skeleton,
    source,
)
from ..objectives import for_judge, remarks
from ..train import train
from ..train.loop import check_layout, check_policy
from ..train.metrics import check_trackers
from .run import RunConfig, check_same, held_out

GIB = 2.0**30
ACTIVATIONS = 34
"""Vectors of the hidden size that a layer keeps for a token in training, with fused attention; with checkpointing every
layer keeps 1, and the one that is computed again all."""


@dataclass(frozen=True)
class PlanConfig(RunConfig):
    """Print what a run costs, and refuse what it would refuse; takes the flags of windlm train."""

    measure: bool = False
    """Whether to load the models and do one mini-batch of a round, to say how long the run takes."""


def plan_run(run: RunConfig) -> dict[str, Any]:
    """Return the cost of a run, without loading any weights.

    Tokens and judge calls are upper bounds, reached if every response has maximum length. Memory is an estimate for one
    device at the peak of training: weights, gradients, AdamW moments, activations and logits of one batch, or the cache
    of sampling; a reward model comes on top. Sharded, each of the processes has its part of all but the activations.

    Raises
    ------
    ValueError
        For whatever training would refuse; GPUs, servers and the hub apart.
    """
    config, n_processes = run.train, run.train.processes or 1
    check_trackers(config.trackers)
    check_writable(config.out, make=False)
    check_same(run, config.out)
    if run.sampler == "vllm" and importlib.util.find_spec("vllm") is None:
        raise ValueError("vLLM is not installed: install it, or set sampler to 'own'.")
    judge = load_judge(run.judge, weights=False)
    prompts = load_prompts(run.data, getattr(judge, "columns", ()))
    name, adapter = base_of(run.model, run.lora)
    net = skeleton(run.model, run.lora)
    if run.gradient_checkpointing:
        checkpoint_layers(net.get_base_model() if hasattr(net, "peft_config") else net)
    where = source(name) | ({} if adapter else {"revision": run.model.revision})
    policy = as_policy(net, pretrained(AutoTokenizer, where), run.model)
    prompts = fitting(policy, prompts, run.data)
    rule = for_judge(run.method.objective(), run.judge)
    check_policy(policy, config, rule)
    per_round = config.prompts_per_round or len(prompts)
    check_layout(config, len(prompts), per_round, n_processes)
    length = max(map(len, policy.encode(prompts))) + run.model.max_new_tokens
    others = held_out(run)
    if others is not None:
        policy.encode(others.prompts)
    if hasattr(judge, "check"):
        for asked in (prompts, *([others.prompts] if others else [])):
            judge.check(asked, run.model.max_new_tokens)

    stages = rule.stages(0.0)
    drawn = {"j-bond": 2}.get(run.method.name, len(stages)) * config.draws
    pairs = math.comb(drawn, 2) * 2 if run.judge.pairwise else drawn
    # the last policy is sampled once more, and held-out prompts every so many rounds
    measured = config.rounds * drawn + config.draws * config.measure_final
    extra = 0 if others is None else len(others.prompts) * others.draws * (1 + -(-config.rounds // others.every))
    tokens = (measured * per_round + extra) * run.model.max_new_tokens

    parts = list(net.parameters())
    size, moving = sum(p.numel() for p in parts), [p for p in parts if p.requires_grad]
    trained = sum(p.numel() for p in moving)
    weights = sum(p.numel() * p.element_size() for p in parts) / GIB
    judging = judge_bytes(judge) / GIB
    state = 3 * sum(p.numel() * p.element_size() for p in moving) / GIB
    activations, cache = working_memory(run, net, length, drawn)
    work, many = max(activations, cache), run.train.processes or 8
    slots = len(set(rule.slots) | {s for stage in stages for s in [getattr(stage, "out", "current")]} | {"ref"})
    model = size * (policy.base.config.dtype or torch.float32).itemsize / GIB
    kept = 1 + (config.rounds // config.save_every if config.save_every else 0) + (config.keep_best is not None)
    rounds = config.rounds if config.keep_rollouts is None else min(config.rounds, config.keep_rollouts)
    disk = {
        "checkpoints": config.keep_checkpoints * state * (config.checkpoint_every > 0),
        "snapshots": slots * state / 3,
        "models": (model if not policy.has_adapter else state / 3) * (kept - 1) + model,
        "rollouts": 2 * rounds * per_round * drawn * run.model.max_new_tokens * 4 / GIB,  # ids, and as much text
    }
    return {
        "prompts": len(prompts),
        "rounds": config.rounds,
        "responses per round": per_round * drawn,
        "generated tokens at most": tokens,
        "judge calls at most": config.rounds * per_round * pairs + config.measure_final * per_round * pairs + 2 * extra,
        "optimizer steps": config.rounds * config.epochs * len(stages) * math.ceil(per_round / config.batch_prompts),
        "parameters": size,
        "trained parameters": trained,
        "GiB weights": round(weights, 3),
        "GiB gradients and AdamW": round(state, 3),
        "GiB activations": round(activations, 3),
        "GiB cache in sampling": round(cache, 3),
        "GiB judge": round(judging, 3),
        "GiB at the peak, roughly": round(weights + state + work + judging, 3),
        f"GiB sharded over {many}": round((weights + state) / many + work + judging, 3),
        "GiB disk, roughly": round(sum(disk.values()), 3),
        "learning rate": f"{config.filled(policy).learning_rate:.3g}",
        **target(run, stages),
        **({"remark": remark} if (remark := remarks(rule, config.rounds)) else {}),
    }


def working_memory(run: RunConfig, net: Any, length: int, drawn: int) -> tuple[float, float]:
    """Return the GiB of activations and logits in training, and of the cache in sampling."""
    text, item = net.config.get_text_config(), next(net.parameters()).element_size()
    rows = min(run.train.batch_prompts, run.train.prompts_per_round or run.train.batch_prompts) * drawn
    tokens = min(rows * length, max(run.model.tokens_per_batch, drawn * length))
    layers = text.num_hidden_layers
    kept = layers + ACTIVATIONS if run.gradient_checkpointing else layers * ACTIVATIONS
    activations = tokens * text.hidden_size * kept * item
    logits = min(run.model.logits_chunk, rows * run.model.max_new_tokens) * text.vocab_size * 4 * 3
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    cache = 2 * run.model.forward_batch_size * length * layers * heads * width * item
    return (activations + logits) / GIB, cache / GIB


def target(run: RunConfig, stages: Any) -> dict[str, Any]:
    r"""Return how far a round's target can be from the policy, and the step in units of the theorem's.

    At the reference the target's score is :math:`\eta P/(1+\beta\eta)` and win rates lie in [0, 1], so that
    log-probabilities of two responses move apart by at most :math:`\eta/(1+\beta\eta)` nats.
    """
    steps = [(s.eta, s.beta) for s in stages if hasattr(s, "eta")]
    if not steps:
        return {}
    found: dict[str, Any] = {"largest target, nats": round(max(eta / (1 + beta * eta) for eta, beta in steps), 4)}
    if "eta" in {f.name for f in fields(run.method)} and steps[0][1] > 0:
        try:
            method: Any = run.method
            free = replace(method, eta=None, **({"step": 1.0} if hasattr(method, "step") else {}))
            (proven, *_) = for_judge(free.objective(), run.judge).stages(0.0)
        except (ValueError, TypeError):  # of a method without a step of its own
            return found
        found["eta in the theorem's steps"] = round(steps[0][0] / proven.eta, 4)
    return found


def judge_bytes(judge: Any) -> int:
    """Return the bytes that the weights of a judge's network take."""
    for place in ("reward.model", "wins.model", "model.model"):
        with suppress(AttributeError):
            return sum(p.numel() * p.element_size() for p in attrgetter(place)(judge).parameters())
    return 0


def measure(run: RunConfig) -> dict[str, Any]:
    """Return the hours that a run takes and the judge's share, from one mini-batch of a round on this machine."""
    judge = load_judge(run.judge)
    prompts = load_prompts(run.data, getattr(judge, "columns", ()))
    policy = load_policy(run.model, run.lora, run.gradient_checkpointing, run.train.seed)
    prompts = fitting(policy, prompts, run.data)
    per_round = run.train.prompts_per_round or len(prompts)
    few = min(per_round, run.train.batch_prompts)
    with tempfile.TemporaryDirectory() as folder:
        short = replace(
            run.train, out=Path(folder), rounds=1, prompts_per_round=None, checkpoint_every=0, checkpoint_steps=0,
            save_every=0, keep_best=None, measure_final=False, trackers=(), progress=False, completions=0, report=False,
            stop_when=None,
        )  # fmt: skip
        rule = for_judge(run.method.objective(), run.judge)
        row = train(policy, prompts.rows(range(few)), judge, rule, short)[-1]
    seconds = {name: value for name, value in row.items() if name.startswith("seconds_")}
    total = sum(seconds.values())
    return {
        "hours, roughly": round(total * per_round / few * run.train.rounds / 3600, 4),
        "judge's share of the time": round(seconds["seconds_judging"] / total, 3),
        "tokens per second": round(row["tokens_per_second"], 1),
    }

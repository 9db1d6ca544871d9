"""The command train: one configuration, checked, planned, run, and recorded next to its model."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from accelerate import PartialState
from huggingface_hub import ModelCard, whoami
from transformers import AutoModelForCausalLM, AutoTokenizer

from ..data import Data, fitting, load_prompts
from ..engines import VLLM, Server, sample_merged
from ..files import check_writable
from ..judges.settings import AnyJudge
from ..models import (
    LoraSettings,
    ModelSettings,
    as_policy,
    judge_columns,
    load_judge,
    load_policy,
    read_check,
    save_merged,
    skeleton,
    source,
)
from ..objectives import for_judge, remarks
from ..policy import LanguagePolicy
from ..sharding import is_sharded
from ..train import Config, judge_round, train
from ..train.checkpoints import MAY_CHANGE
from .methods import MethodSettings, Wind
from .settings import plain


@dataclass(frozen=True)
class RunConfig:
    """Align a model with a judge."""

    model: ModelSettings
    data: Data
    judge: AnyJudge
    train: Config
    method: MethodSettings = field(default_factory=Wind)
    lora: LoraSettings = field(default_factory=LoraSettings)
    sampler: Literal["own", "merged", "vllm", "server"] = "own"
    """How responses are sampled in training: built in (own); the same with the adapter merged into the weights, faster
    and off by rounding (merged); by vllm here, or by a vLLM server. The last two are untested with vLLM itself."""
    server: str = "http://127.0.0.1:8000/v1"
    """Address of the server that samples (sampler server)."""
    gradient_checkpointing: bool = False
    """Whether to recompute activations in the backward pass, which takes less memory and more time."""
    judged: bool = False
    """Whether to train on one round only, which windlm generate and windlm judge have prepared; loads no judge."""
    push_to_hub: str | None = None
    """Hub repository, owner/name, that the trained model is uploaded to when the run ends; untested."""
    dry_run: bool = False
    """Whether to print the plan only: tokens, judge calls, optimizer steps, memory."""


# -- the plan ------------------------------------------------------------------------------------------------


def plan_run(run: RunConfig) -> dict[str, Any]:
    """Return the cost of a run, without loading any weights.

    Tokens and judge calls are upper bounds, reached if every response has maximum length. Memory is an estimate for
    the device at the peak of training: weights, gradients, AdamW moments, activations and logits of one micro-batch.
    """
    prompts, net = load_prompts(run.data, judge_columns(run.judge)), skeleton(run.model, run.lora)
    tokenizer = AutoTokenizer.from_pretrained(**source(run.model.name), revision=run.model.revision)
    policy = as_policy(net, tokenizer, run.model)
    prompts = fitting(policy, prompts, run.data)
    length = max(map(len, policy.encode(prompts))) + run.model.max_new_tokens
    rule = for_judge(run.method.objective(), run.judge)
    config, text = run.train, net.config.get_text_config()
    per_round = config.prompts_per_round or len(prompts)
    drawn = {"j-bond": 2}.get(run.method.name, len(rule.stages(0.0))) * config.draws
    pairs = math.comb(drawn, 2) * 2 if run.judge.pairwise else drawn

    size = sum(p.numel() for p in net.parameters())
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    weights = sum(p.numel() * p.element_size() for p in net.parameters())
    moving = sum(p.numel() * p.element_size() for p in net.parameters() if p.requires_grad)
    item = next(net.parameters()).element_size()
    rows = min(config.batch_prompts, per_round) * drawn
    tokens = min(rows * length, max(run.model.tokens_per_batch, drawn * length))
    # per layer and token: about 34 vectors of the hidden size with fused attention kernels, 1 with checkpointing
    kept = 1 if run.gradient_checkpointing else 34
    activations = tokens * text.hidden_size * text.num_hidden_layers * kept * item
    logits = min(run.model.logits_chunk, rows * run.model.max_new_tokens) * text.vocab_size * 4 * 3
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    cache = 2 * run.model.forward_batch_size * length * text.num_hidden_layers * heads * width * item
    gib = 2.0**30
    return {
        "prompts": len(prompts),
        "rounds": config.rounds,
        "responses per round": per_round * drawn,
        "generated tokens at most": config.rounds * per_round * drawn * run.model.max_new_tokens,
        "judge calls at most": config.rounds * per_round * pairs,
        "optimizer steps": config.rounds
        * config.epochs
        * len(rule.stages(0.0))
        * math.ceil(per_round / config.batch_prompts),
        "parameters": size,
        "trained parameters": trained,
        "GiB weights": round(weights / gib, 3),
        "GiB gradients and AdamW": round(3 * moving / gib, 3),
        "GiB activations": round((activations + logits) / gib, 3),
        "GiB cache in sampling": round(cache / gib, 3),
        "GiB at the peak, roughly": round((weights + 3 * moving + max(activations + logits, cache)) / gib, 3),
    } | ({"remark": remark} if (remark := remarks(rule, config.rounds)) else {})


# -- the run -------------------------------------------------------------------------------------------------


def start(run: RunConfig, part: Literal["generate", "train"] | None = None) -> list[dict[str, Any]]:
    """Train; save ``config.json``, ``metrics.jsonl`` and the model folder ``model``; return the metrics.

    Parameters
    ----------
    run : RunConfig
    part : {"generate", "train"}, optional
        One part of the next round; see `windlm.train.train`.

    Raises
    ------
    ValueError
        If the folder holds another run, or the configuration is invalid; see `windlm.train.train`.
    """
    rule, out = for_judge(run.method.objective(), run.judge), run.train.out
    check_writable(out)
    check_same(run, out)
    if run.push_to_hub:
        check_hub(run.push_to_hub)
    judge: Any = run.judge if part else load_judge(run.judge)
    prompts = load_prompts(run.data, judge_columns(run.judge) if part else getattr(judge, "columns", ()))
    policy = load_policy(run.model, run.lora, run.gradient_checkpointing, run.train.seed)
    found, prompts = len(prompts), fitting(policy, prompts, run.data)
    if len(prompts) < found and PartialState().is_main_process:
        print(f"Dropped {found - len(prompts)} of {found} prompts, which are longer than {policy.prompt_room} tokens.")
    if run.sampler == "merged":
        policy.engine = sample_merged
    elif run.sampler == "vllm":
        policy.engine = VLLM(policy)
    elif run.sampler == "server":
        policy.engine = Server(policy, run.server, out / "server")
    (out / "config.json").write_text(json.dumps(plain(run), indent=2) + "\n")
    rows = train(policy, prompts, judge, rule, run.train, part=part)
    if PartialState().is_main_process and any((out / name).exists() for name in ("model", "adapter")):
        if is_sharded(policy) and policy.has_adapter:
            whole = load_trained(run)
            save_merged(whole, out / "model", *read_check(out / "adapter", whole))
        (out / "model" / "README.md").write_text(card(run, rows))
        if run.push_to_hub:
            push(out / "model", run.push_to_hub)
    return rows


def judge_next(run: RunConfig) -> int:
    """Judge the responses that were sampled last; return the number of their round. No weights are loaded."""
    check_same(run, run.train.out)
    judge = load_judge(run.judge)
    prompts = load_prompts(run.data, getattr(judge, "columns", ()))
    tokenizer = AutoTokenizer.from_pretrained(**source(run.model.name), revision=run.model.revision)
    policy = as_policy(skeleton(run.model, run.lora), tokenizer, run.model)
    prompts = fitting(policy, prompts, run.data)
    return judge_round(policy, prompts, judge, for_judge(run.method.objective(), run.judge), run.train)


def push(folder: Path, name: str) -> None:
    """Upload a model folder with its tokenizer and card to the hub."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    model.push_to_hub(name)
    AutoTokenizer.from_pretrained(folder).push_to_hub(name)
    ModelCard.load(folder / "README.md").push_to_hub(name)


def check_hub(name: str) -> None:
    """Raise ValueError if a model could not be uploaded, before it is trained."""
    if name.count("/") != 1:
        raise ValueError(f"push_to_hub must be a repository, owner/name, but it is {name!r}.")
    try:
        whoami()
    except Exception as error:  # no token, no network, a token that is not valid
        told = " ".join(str(error).split())
        raise ValueError(f"push_to_hub needs the hub ({told}): log in with hf auth login, or leave it out.") from None


def load_trained(run: RunConfig) -> LanguagePolicy:
    """Load the adapter that a run has saved, on its base, unsharded."""
    import peft

    policy = load_policy(run.model)
    policy.model = peft.PeftModel.from_pretrained(policy.model, run.train.out / "adapter")
    return policy


def check_same(run: RunConfig, out: Path) -> None:
    """Raise ValueError if the folder holds a checkpoint of a run with another configuration."""
    if not list(out.glob("checkpoints/round-*")) or not (out / "config.json").exists():
        return
    before, now = json.loads((out / "config.json").read_text()), plain(run)
    for config in (before, now):
        for name in ("dry_run", "judged", "server", "push_to_hub"):
            config.pop(name, None)
        config["train"] = {k: v for k, v in config["train"].items() if k not in MAY_CHANGE}
    changed = [
        f"{part}.{name}" if isinstance(now[part], dict) else part
        for part in now
        for name in (now[part] if isinstance(now[part], dict) else [None])
        if (now[part] if name is None else now[part][name])
        != (before.get(part) if name is None else before.get(part, {}).get(name))
    ]
    if changed:
        raise ValueError(f"{out} holds a run with other {', '.join(changed)}: choose another folder.")


def card(run: RunConfig, rows: list[dict[str, Any]]) -> str:
    """Return the model card of a run: base model, data, judge, method, metrics and configuration."""
    name = Path(run.model.name)
    base = name.name if name.exists() else run.model.name
    names = ("round", "reward", "win_rate_reference", "kl", "entropy", "length", "loss")
    shown = [n for n in names if any(n in row for row in rows)]
    chosen = [rows[i] for i in sorted({1, len(rows) // 2, len(rows) - 1} & set(range(1, len(rows))))]
    table = [f"| {' | '.join(shown)} |", "|" + " --- |" * len(shown)]
    table += [f"| {' | '.join(f'{row[n]:.4g}' if n in row else '' for n in shown)} |" for row in chosen]
    head = {"library_name": "transformers", "tags": ["windlm", run.method.name]}
    if not name.exists():
        head["base_model"] = run.model.name
    tokens, calls = (sum(int(row.get(n, 0)) for row in rows) for n in ("tokens", "judge_calls"))
    return "\n".join(
        [
            "---",
            yaml.safe_dump(head, sort_keys=False).strip(),
            "---",
            f"# {base}, aligned by {run.method.name}",
            "",
            f"{base} was trained with `windlm train` for {run.train.rounds} rounds against the judge "
            f"{judge_names(run.judge)} ({run.judge.kind}) on prompts of `{Path(run.data.source).name}`: {tokens} "
            f"generated tokens, {calls} judge calls.",
            "",
            *([f"Remark: {rows[0]['remark']}", ""] if rows[0].get("remark") else []),
            "Metrics on the training prompts, of the policy before each round's update:",
            "",
            *table,
            "",
            "Configuration:",
            "",
            "```yaml",
            yaml.safe_dump(plain(run), sort_keys=False).strip(),
            "```",
            "",
        ]
    )


def judge_names(judge: AnyJudge) -> str:
    """Return the names of a judge's models or functions, without folders."""
    names = judge.name if isinstance(judge.name, tuple) else (judge.name,)
    return ", ".join(f"`{Path(name).name}`" for name in names)

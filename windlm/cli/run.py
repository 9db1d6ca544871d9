"""The command train: one configuration, checked, planned, run, and recorded next to its model."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from accelerate import PartialState
from huggingface_hub import ModelCard, whoami
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from ..data import Data, fitting, load_prompts
from ..engines import VLLM, Server, sample_merged
from ..files import check_writable, write_text
from ..judges.settings import AnyJudge
from ..models import (
    LoraSettings,
    ModelSettings,
    as_policy,
    judge_columns,
    load_judge,
    load_policy,
    pretrained,
    read_check,
    save_merged,
    skeleton,
    source,
)
from ..objectives import for_judge
from ..policy import LanguagePolicy
from ..sharding import is_sharded
from ..train import Config, HeldOut, judge_round, train
from ..train.checkpoints import MAY_CHANGE
from ..train.metrics import check_trackers
from .methods import MethodSettings, Wind
from .settings import plain


@dataclass(frozen=True)
class EvalSettings:
    """Held-out prompts, on which the policy is compared with the reference during training."""

    data: Data = field(default_factory=lambda: Data(""))
    """The prompts; none if the source is empty."""
    every: int = 1
    """Interval between comparisons, in rounds."""
    draws: int = 4
    """Responses per prompt, of the policy and of the reference."""


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
    save_precision: Literal["base", "trained"] = "base"
    """Precision of the weights in model/: that of the base model's files (base), or that of training (trained)."""
    judged: bool = False
    """Whether to train on one round only, which windlm generate and windlm judge have prepared; loads no judge."""
    push_to_hub: str | None = None
    """Hub repository, owner/name, that the trained model is uploaded to when the run ends; untested."""
    eval: EvalSettings = field(default_factory=EvalSettings)


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
    if not run.train.progress:  # the bars of loading and saving, too
        disable_progress_bar()
    check_writable(out)
    check_same(run, out)
    if run.push_to_hub:
        check_hub(run.push_to_hub)
    check_trackers(run.train.trackers)
    prompts = load_prompts(run.data, judge_columns(run.judge))
    others = None if part else held_out(run)
    judge: Any = run.judge if part else load_judge(run.judge)  # after the cheap checks: it may be large
    policy = load_policy(run.model, run.lora, run.gradient_checkpointing, run.train.seed)
    found, prompts = len(prompts), fitting(policy, prompts, run.data)
    if len(prompts) < found and PartialState().is_main_process:
        print(f"Dropped {found - len(prompts)} of {found} prompts, which are longer than {policy.prompt_room} tokens.")
    if run.save_precision == "trained":
        policy.precision = None
    if run.sampler == "merged":
        policy.engine = sample_merged
    elif run.sampler == "vllm":
        policy.engine = VLLM(policy)
    elif run.sampler == "server":
        policy.engine = Server(policy, run.server, out / "server")
    text = json.dumps(plain(run), indent=2) + "\n"
    write_text(out / "config.json", text)
    rows = train(policy, prompts, judge, rule, run.train, part=part, held_out=others)
    if PartialState().is_main_process and any((out / name).exists() for name in ("model", "adapter")):
        if is_sharded(policy) and policy.has_adapter:
            whole = load_trained(run)
            save_merged(whole, out / "model", *read_check(out / "adapter", whole))
        (out / "model" / "README.md").write_text(card(run, rows))
        if run.push_to_hub:
            push(out / "model", run.push_to_hub)
    return rows


def held_out(run: RunConfig) -> HeldOut | None:
    """Return the held-out prompts of a run, if it has any."""
    settings = run.eval
    if not settings.data.source:
        return None
    return HeldOut(
        load_prompts(settings.data, judge_columns(run.judge)), settings.every, settings.draws, run.train.seed
    )


def judge_next(run: RunConfig) -> int:
    """Judge the responses that were sampled last; return the number of their round. No weights are loaded."""
    check_same(run, run.train.out)
    judge = load_judge(run.judge)
    prompts = load_prompts(run.data, getattr(judge, "columns", ()))
    tokenizer = pretrained(AutoTokenizer, source(run.model.name), revision=run.model.revision)
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
    """Raise ValueError if the folder holds a checkpoint of a run with another configuration, or of more rounds."""
    if not list(out.glob("checkpoints/round-*")) or not (out / "config.json").exists():
        return
    before, now = json.loads((out / "config.json").read_text()), plain(run)
    for config in (before, now):
        for name in ("judged", "server", "measure", "push_to_hub"):
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
    states = out.glob("checkpoints/round-*/state/state.json")
    done = max((int(path.parents[1].name.removeprefix("round-")) for path in states), default=0)
    if done > run.train.rounds:
        raise ValueError(f"{out} holds a run of {done} rounds: rounds must be at least that.")


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

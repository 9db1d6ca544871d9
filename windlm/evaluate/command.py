"""What a model is worth, in one table: benchmarks, win rate, divergence, diversity, grades; and texts for a reader."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import Data, load_prompts
from ..models import JudgeSettings, ModelSettings, load_judge, load_policy
from ..policy import LanguagePolicy, Prompt
from .benchmarks import benchmarks
from .chat import Chat, ChatJudge, Endpoint, LocalChat, converse, load_questions
from .statistics import Interval, diversity, interval, win_rates
from .tables import Row, row

TASKS = ("gsm8k", "hellaswag", "mmlu")
"""The benchmarks of the paper."""


@dataclass(frozen=True)
class ChatJudgeSettings:
    """The chat model that grades and compares conversations."""

    model: str = ""
    """Name for the server, or a local model if there is no url."""
    url: str = ""
    """Of an OpenAI-compatible server, up to the version: http://localhost:8000/v1. Empty for a local model."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the server's key."""
    max_tokens: int = 1024
    """Longest answer of the judge."""
    tries: int = 3
    """How often an answer that cannot be read is asked for; then it is reported, and not scored."""


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluate a model, alone or against a reference."""

    model: ModelSettings
    reference: str | None = None
    """Model to compare with, drawn from with the same settings."""
    out: Path = Path("evaluation.json")
    """File for the table's numbers."""
    tasks: tuple[str, ...] | None = None
    """lm-eval's names of benchmarks, which it loads from the hub. By default gsm8k, hellaswag and mmlu if neither
    prompts nor questions are given, else none."""
    task_folder: Path | None = None
    """Folder of your own task files for lm-eval, which are then the only ones."""
    limit: int | None = None
    """Questions per benchmark, also of MT-Bench's or your own; None for all."""
    shots: int | None = None
    """Examples in the prompt; None for each benchmark's own."""
    chat_template: bool = False
    """Whether benchmarks are asked through the model's chat template."""
    data: Data = field(default_factory=lambda: Data(""))
    """Prompts for win rate and diversity; none without a source."""
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    """For the win rate; none without a name."""
    draws: int = 4
    """Responses per prompt, of each model."""
    questions: str | None = None
    """MT-Bench's or your own questions, JSON lines with turns: a file, or package:path."""
    references: str | None = None
    """Right answers to them for the judge, in FastChat's form: a file, or package:path."""
    grader: ChatJudgeSettings = field(default_factory=ChatJudgeSettings)
    """For the questions."""
    seed: int = 0


@dataclass(frozen=True)
class SampleConfig:
    """Put responses of one or two policies side by side."""

    model: ModelSettings
    data: Data
    reference: str | None = None
    """The other model."""
    draws: int = 1
    """Responses per prompt, of each."""
    width: int = 60
    """Of a column, in letters."""
    seed: int = 0


def load(model: ModelSettings, name: str | None = None) -> LanguagePolicy:
    """Return a policy on the GPU if there is one; `name` takes the place of the model's."""
    policy = load_policy(replace(model, name=name, revision="main") if name else model)
    return policy.to("cuda" if torch.cuda.is_available() else "cpu")


def evaluate(config: EvaluateConfig) -> list[Row]:
    """Return the rows of the table, each a measure of a model with its interval.

    Raises
    ------
    ValueError
        If something that is asked for is not installed or not given, or nothing is asked for.
    """
    if config.judge.name and not (config.reference and config.data.source):
        raise ValueError("A win rate needs a reference and prompts: give --reference and --data.source.")
    if config.questions and not config.grader.model:
        raise ValueError("Questions need a judge: give --grader.model, and --grader.url if it is a server.")
    if config.tasks is None:
        config = replace(config, tasks=() if config.data.source or config.questions else TASKS)
    if not (config.tasks or config.data.source or config.questions):
        raise ValueError("There is nothing to evaluate: give --tasks, --data.source or --questions.")
    names = {"model": None} | ({"reference": config.reference} if config.reference else {})
    policies = {who: load(config.model, name) for who, name in names.items()}
    rows: list[Row] = []
    if config.data.source:
        rows += responses(config, policies)
    if config.questions:
        rows += grades(config, policies)
    for who, policy in policies.items():
        if config.tasks:
            rows += benchmarks(
                policy,
                who,
                config.tasks,
                folder=config.task_folder,
                shots=config.shots,
                limit=config.limit,
                chat_template=config.chat_template,
                seed=config.seed,
            )
    return rows


def responses(config: EvaluateConfig, policies: dict[str, LanguagePolicy]) -> list[Row]:
    """Return win rate, divergence and diversity on the prompts."""
    prompts = load_prompts(config.data)
    seeds = dict(zip(policies, np.random.SeedSequence(config.seed).spawn(len(policies)), strict=True))
    drawn = {who: sample_responses(policy, prompts, config.draws, seeds[who]) for who, policy in policies.items()}
    rows = []
    if config.judge.name:
        judge = load_judge(config.judge)
        won = win_rates(prompts, drawn["model"], drawn["reference"], judge)
        rows.append(row("win rate against the reference", "model", interval(won), len(prompts)))
        if hasattr(judge, "rewards"):
            rows += [
                row("reward", who, interval(judge.rewards(prompts, s.text).mean(-1)), len(prompts))
                for who, s in drawn.items()
            ]
    logs = {who: policies[who].log_prob(samples).double() for who, samples in drawn.items()}
    if len({json.dumps(p.tokenizer.get_vocab(), sort_keys=True) for p in policies.values()}) < len(policies):
        ratio = (logs["model"] - policies["reference"].log_prob(drawn["model"]).double()).mean(-1)
        rows.append(row("KL to the reference, nats", "model", interval(ratio.numpy()), len(prompts)))
    for who, samples in drawn.items():
        for name, value in diversity(samples.text, logs[who].numpy()).items():
            rows.append(row(name.replace("_", "-"), who, Interval(value, math.nan, math.nan), len(prompts)))
    return rows


def sample_responses(policy: LanguagePolicy, prompts: Sequence[Prompt], k: int, seed: Any) -> Any:
    """Draw `k` responses to each prompt."""
    return policy.sample(prompts, k, np.random.default_rng(seed))


def grades(config: EvaluateConfig, policies: dict[str, LanguagePolicy]) -> list[Row]:
    """Return grades of each model, and of both the comparison; what could not be read is counted."""
    questions = load_questions(str(config.questions), config.references, config.limit)
    judge, chats = ChatJudge(chat_model(config.grader), config.grader.tries), {}
    rows = []
    for who, policy in policies.items():
        chats[who] = converse(questions, LocalChat(policy, config.seed))
        table = judge.grade(questions, chats[who])
        for turn in range(table.shape[1]):
            rows.append(judged(f"grade, turn {turn + 1}", who, table[:, turn]))
    if "reference" in policies:
        wins, bias = judge.compare(questions, chats["model"], chats["reference"])
        for turn in range(wins.shape[1]):
            rows.append(judged(f"win rate, turn {turn + 1}", "model", wins[:, turn]))
            rows.append(judged(f"the two orders differ, turn {turn + 1}", "model", bias[:, turn]))
    unread = Interval(len(judge.unread), math.nan, math.nan)
    rows.append(row("verdicts that could not be read", "judge", unread, judge.calls))
    return rows


def judged(measure: str, who: str, values: np.ndarray) -> Row:
    """Return a row of the values that there are."""
    kept = values[~np.isnan(values)]
    return row(measure, who, interval(kept) if len(kept) else Interval(math.nan, math.nan, math.nan), len(kept))


def chat_model(grader: ChatJudgeSettings) -> Chat:
    """Return the judge's side of the conversation; a local one draws nearly greedily."""
    if grader.url:
        return Endpoint(grader.url, grader.model, grader.key_variable, max_tokens=grader.max_tokens)
    return LocalChat(load(ModelSettings(grader.model, max_new_tokens=grader.max_tokens, temperature=1e-3)))


# -- tables --------------------------------------------------------------------------------------------------


def side_by_side(config: SampleConfig) -> str:
    """Return the responses of one or two policies to each prompt, in columns."""
    prompts = load_prompts(config.data)
    names = [None, *([config.reference] if config.reference else [])]
    texts = [sample_responses(load(config.model, name), prompts, config.draws, config.seed).text for name in names]
    heads = [name or config.model.name for name in names]
    out = [" | ".join(f"{head[-config.width :]:<{config.width}}" for head in heads)]
    for i, prompt in enumerate(prompts):
        asked = prompt if isinstance(prompt, str) else "\n".join(f"{m['role']}: {m['content']}" for m in prompt)
        out.append(f"\n> {asked}")
        for j in range(config.draws):
            columns = [wrapped(text[i][j], config.width) for text in texts]
            for k in range(max(map(len, columns))):
                cells = [f"{column[k] if k < len(column) else '':<{config.width}}" for column in columns]
                out.append(" | ".join(cells).rstrip())
            out.append("-" * (len(columns) * (config.width + 3) - 3))
    return "\n".join(out)


def wrapped(text: str, width: int) -> list[str]:
    """Return the lines of a text, none wider than `width`."""
    return [piece for line in text.splitlines() for piece in textwrap.wrap(line, width) or [""]] or [""]

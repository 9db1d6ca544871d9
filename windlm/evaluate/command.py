"""The commands evaluate and sample: one table of measures of one or more models, and responses side by side."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import Data, fitting, load_prompts
from ..files import check_writable
from ..judges.base import ask
from ..judges.columns import columns_for
from ..judges.settings import AnyJudge, RewardModelSettings
from ..models import ModelSettings, load_judge, load_policy
from ..policy import LanguagePolicy, Prompt
from .benchmarks import benchmarks
from .chat import Chat, ChatJudge, Endpoint, LocalChat, converse, load_questions
from .statistics import Interval, diversity, interval, win_rates
from .tables import Row, row, with_differences

TASKS = ("gsm8k", "hellaswag", "mmlu")
"""Default benchmarks, those of the WIND paper."""


SAMPLING = ("max_new_tokens", "temperature", "top_p", "stop")
"""Settings of sampling that a model takes from the run that trained it."""


@dataclass(frozen=True)
class EvaluatedModel(ModelSettings):
    """A causal language model, sampled as in the run that trained it unless a setting is given."""

    max_new_tokens: int | None = None  # type: ignore[assignment]
    """Maximum length of a response, in tokens; None for that of the run that trained the model, else 128."""
    temperature: float | None = None  # type: ignore[assignment]
    """Sampling temperature; None for the run's, else 1."""
    top_p: float | None = None  # type: ignore[assignment]
    """Nucleus-sampling threshold; None for the run's, else 1."""
    stop: tuple[str, ...] | None = None  # type: ignore[assignment]
    """Strings that end a response, in addition to the end-of-sequence tokens; None for the run's, else none."""


def settled(model: ModelSettings) -> ModelSettings:
    """Return a model's settings with those of the run that trained it wherever none is given.

    A run's models are in its folders ``model``, ``adapter`` and ``checkpoints/round-...``; it has a ``config.json``.
    """
    path, defaults = Path(model.name).expanduser(), ModelSettings(model.name)
    made: dict[str, Any] = {}
    for run in path.resolve().parents[:2]:
        if (run / "metrics.jsonl").exists() and (run / "config.json").exists():
            made = json.loads((run / "config.json").read_text()).get("model", {})
            break
    values = {f.name: getattr(model, f.name) for f in fields(ModelSettings)}
    for name in SAMPLING:
        if values[name] is None:
            found = made.get(name, getattr(defaults, name))
            values[name] = tuple(found) if name == "stop" else found
    return ModelSettings(**values)


@dataclass(frozen=True)
class ChatJudgeSettings:
    """A chat model that grades and compares conversations."""

    model: str = ""
    """Model name on the server, or a local model if url is empty."""
    url: str = ""
    """Base URL of an OpenAI-compatible server, such as http://localhost:8000/v1; empty for a local model."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the server's API key."""
    max_tokens: int = 1024
    """Maximum length of a reply of the judge, in tokens."""
    tries: int = 3
    """Maximum number of requests until a reply can be parsed; then it is counted as unparsed, not scored."""


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluate a model, alone, against a reference or beside others."""

    model: EvaluatedModel
    reference: str | None = None
    """Hub name or folder of the model to compare with, sampled with the same settings."""
    others: tuple[str, ...] = ()
    """Hub names or folders of more models for the table, sampled with the same settings."""
    out: Path = Path("evaluation.json")
    """Output file of the table, as JSON."""
    tasks: tuple[str, ...] | None = None
    """Benchmarks by lm-eval's task names, loaded from the hub; None for gsm8k, hellaswag and mmlu, or for no benchmark
    if prompts or questions are given."""
    benchmark_data: Path | None = None
    """Folder of local copies of the benchmarks' data sets, so that no hub is needed: gsm8k/test.jsonl and train.jsonl,
    hellaswag/validation.jsonl, mmlu/test.jsonl and dev.jsonl and so on, with the hub's columns (also .gz)."""
    cache: Path | None = None
    """Folder that keeps the models' answers to benchmarks, from which an evaluation that was stopped goes on; None for
    one beside the output file."""
    benchmark_batch_size: int = 8
    """Questions per forward pass in benchmarks."""
    task_folder: Path | None = None
    """Folder of task files for lm-eval, which replace its own."""
    limit: int | None = None
    """Maximum number of questions per benchmark and of chat questions; None for all."""
    shots: int | None = None
    """Number of examples in a benchmark's prompt; None for each benchmark's own."""
    chat_template: bool = False
    """Whether to apply the model's chat template in benchmarks."""
    data: Data = field(default_factory=lambda: Data(""))
    """Prompts for win rate and diversity; none if the source is empty."""
    judge: AnyJudge = field(default_factory=RewardModelSettings)
    """Judge for the win rate; none if the name is empty."""
    draws: int = 4
    """Number of responses per prompt and model."""
    questions: str | None = None
    """Chat questions, such as MT-Bench's: JSON lines with turns, as a file or package:path."""
    references: str | None = None
    """Reference answers to the chat questions in FastChat's format, as a file or package:path."""
    grader: ChatJudgeSettings = field(default_factory=ChatJudgeSettings)
    """Judge of the chat questions."""
    seed: int = 0
    """Seed of sampling and of lm-eval."""


@dataclass(frozen=True)
class SampleConfig:
    """Print responses of one or two models side by side."""

    model: EvaluatedModel
    data: Data
    reference: str | None = None
    """Hub name or folder of the second model."""
    draws: int = 1
    """Number of responses per prompt and model."""
    width: int = 60
    """Column width, in characters."""
    seed: int = 0
    """Seed of sampling."""


def load(model: ModelSettings, name: str | None = None) -> LanguagePolicy:
    """Load a policy, on the GPU if there is one; `name` replaces the model's name."""
    model = settled(model)
    policy = load_policy(replace(model, name=name, revision="main") if name else model)
    return policy.to("cuda" if torch.cuda.is_available() else "cpu")


def evaluate(config: EvaluateConfig) -> list[Row]:
    """Return the rows of the table, each one measure of one model with its interval.

    Raises
    ------
    ValueError
        If a required setting is missing, lm-eval is not installed, or there is nothing to evaluate.
    """
    if config.out.is_dir():
        raise ValueError(f"Cannot write {config.out}: it is a folder. Give the file to write as --out.")
    check_writable(config.out.parent)  # before the work that it is to hold
    config = replace(config, model=settled(config.model))  # type: ignore[arg-type]
    if config.judge.name and not (config.reference and config.data.source):
        raise ValueError("A win rate needs a reference and prompts: give --reference and --data.source.")
    if config.questions and not config.grader.model:
        raise ValueError("Questions need a judge: give --grader.model, and --grader.url if it is a server.")
    if config.tasks is None:
        config = replace(config, tasks=() if config.data.source or config.questions else TASKS)
    if not (config.tasks or config.data.source or config.questions):
        raise ValueError("There is nothing to evaluate: give --tasks, --data.source or --questions.")
    names = models(config)
    rows: list[Row] = []
    policies: dict[str, LanguagePolicy] = {}
    if config.data.source:
        policies = {who: load(config.model, name) for who, name in names.items()}
        rows += responses(config, policies)
    if config.questions:
        rows += grades(config, names, policies)
    for who, name in names.items() if config.tasks else ():
        rows += benchmarks(
            policies.get(who) or load(config.model, name),  # one in memory at a time
            who,
            config.tasks or (),
            folder=config.task_folder,
            data=config.benchmark_data,
            cache=config.cache or config.out.with_suffix(".cache"),
            batch_size=config.benchmark_batch_size,
            shots=config.shots,
            limit=config.limit,
            chat_template=config.chat_template,
            seed=config.seed,
        )
    order = {measure: i for i, measure in enumerate(dict.fromkeys(r["measure"] for r in rows))}
    rows.sort(key=lambda r: order[r["measure"]])  # the models of a measure one below the other
    return with_differences(rows, "reference" if config.reference else "model")


def models(config: EvaluateConfig) -> dict[str, str | None]:
    """Return the models of the table by the names that it gives them: the shortest ends of paths that differ."""
    names: dict[str, str | None] = {"model": None} | ({"reference": config.reference} if config.reference else {})
    depth = 1
    while len({short(name, depth) for name in config.others}) < len(set(config.others)):
        depth += 1
    return names | {short(name, depth): name for name in config.others}


def short(name: str, depth: int) -> str:
    """Return the last parts of a path or name; the folder model of a run belongs to its name."""
    parts = [part for part in name.split("/") if part]
    return "/".join(parts[-depth - (parts[-1] == "model") :])


def responses(config: EvaluateConfig, policies: dict[str, LanguagePolicy]) -> list[Row]:
    """Return win rate, KL divergence and diversity on the prompts."""
    judge = load_judge(config.judge) if config.judge.name else None
    prompts = load_prompts(config.data, getattr(judge, "columns", ()))
    for policy in policies.values():
        prompts = fitting(policy, prompts, config.data)
    if judge is not None and hasattr(judge, "check"):
        judge.check(prompts, config.model.max_new_tokens)
    seeds = dict(zip(policies, np.random.SeedSequence(config.seed).spawn(len(policies)), strict=True))
    samples = {who: sample_responses(policy, prompts, config.draws, seeds[who]) for who, policy in policies.items()}
    candidates = [who for who in policies if who != "reference"]
    rows = []
    if judge is not None:
        theirs = (samples["reference"], policies["reference"])
        for who in candidates:
            columns = columns_for(judge, prompts, (samples[who], policies[who]), theirs)
            wins = win_rates(prompts, samples[who], theirs[0], judge, columns)
            rows.append(averaged("win rate against the reference", who, wins))
        for who, s in samples.items() if hasattr(judge, "rewards") else ():
            rewards = ask(judge, "rewards", prompts, s.text, columns_for(judge, prompts, (s, policies[who])))
            rows.append(averaged("reward", who, rewards.mean(-1)))
    logs = {who: policies[who].log_prob(s).double() for who, s in samples.items()}
    words = {who: policy.tokenizer.get_vocab() for who, policy in policies.items()}
    for who in candidates:
        if words[who] == words.get("reference"):
            ratio = logs[who] - policies["reference"].log_prob(samples[who]).double()
            rows.append(averaged("KL to the reference, nats", who, ratio.mean(-1).numpy()))
    for who, s in samples.items():
        rows.append(averaged("length, tokens", who, s.mask.sum(-1).double().mean(-1).numpy()))
        rows.append(averaged("entropy", who, -logs[who].mean(-1).numpy()))
        for name, value in diversity(s.text).items():
            rows.append(row(name.replace("_", "-"), who, Interval(value, math.nan, math.nan), len(prompts)))
    return rows


def sample_responses(policy: LanguagePolicy, prompts: Sequence[Prompt], k: int, seed: Any) -> Any:
    """Sample `k` responses to each prompt."""
    return policy.sample(prompts, k, np.random.default_rng(seed))


def grades(config: EvaluateConfig, names: dict[str, str | None], policies: dict[str, LanguagePolicy]) -> list[Row]:
    """Return the grades of each model and the comparison of both; replies that could not be parsed are counted."""
    questions = load_questions(str(config.questions), config.references, config.limit)
    judge, chats = ChatJudge(chat_model(config.grader), config.grader.tries), {}
    rows = []
    for who, name in names.items():
        # one in memory at a time, unless they are there
        chats[who] = converse(questions, LocalChat(policies.get(who) or load(config.model, name), config.seed))
        table = judge.grade(questions, chats[who])
        for turn in range(table.shape[1]):
            rows.append(averaged(f"grade, turn {turn + 1}", who, table[:, turn]))
    for who in names if "reference" in names else ():
        if who == "reference":
            continue
        wins, bias = judge.compare(questions, chats[who], chats["reference"])
        for turn in range(wins.shape[1]):
            rows.append(averaged(f"win rate, turn {turn + 1}", who, wins[:, turn]))
            rows.append(averaged(f"position bias, turn {turn + 1}", who, bias[:, turn]))
    unparsed = Interval(len(judge.unparsed), math.nan, math.nan)
    rows.append(row("unparsed replies", "judge", unparsed, judge.calls))
    return rows


def averaged(measure: str, who: str, values: np.ndarray) -> Row:
    """Return a row of the mean of values, one per prompt or question, those that are nan left out."""
    kept = {str(i): float(value) for i, value in enumerate(values) if not math.isnan(value)}
    mean = interval([*kept.values()]) if kept else Interval(math.nan, math.nan, math.nan)
    return row(measure, who, mean, len(kept), kept)


def chat_model(grader: ChatJudgeSettings) -> Chat:
    """Return the judge as a chat model; a local one samples almost greedily."""
    if grader.url:
        return Endpoint(grader.url, grader.model, grader.key_variable, max_tokens=grader.max_tokens)
    return LocalChat(load(ModelSettings(grader.model, max_new_tokens=grader.max_tokens, temperature=1e-3)))


# -- tables --------------------------------------------------------------------------------------------------


def side_by_side(config: SampleConfig) -> str:
    """Format the responses of one or two models to each prompt in columns."""
    prompts = load_prompts(config.data, ())
    names = [None, *([config.reference] if config.reference else [])]
    policies = [load(config.model, name) for name in names]
    for policy in policies:
        prompts = fitting(policy, prompts, config.data)
    texts = [sample_responses(policy, prompts, config.draws, config.seed).text for policy in policies]
    heads = [name or config.model.name for name in names]
    out = [" | ".join(f"{head[-config.width :]:<{config.width}}" for head in heads)]
    for i, prompt in enumerate(prompts):
        question = prompt if isinstance(prompt, str) else "\n".join(f"{m['role']}: {m['content']}" for m in prompt)
        out.append(f"\n> {question}")
        for j in range(config.draws):
            columns = [wrapped(text[i][j], config.width) for text in texts]
            for k in range(max(map(len, columns))):
                cells = [f"{column[k] if k < len(column) else '':<{config.width}}" for column in columns]
                out.append(" | ".join(cells).rstrip())
            out.append("-" * (len(columns) * (config.width + 3) - 3))
    return "\n".join(out)


def wrapped(text: str, width: int) -> list[str]:
    """Wrap a text to lines of at most `width` characters."""
    return [piece for line in text.splitlines() for piece in textwrap.wrap(line, width) or [""]] or [""]

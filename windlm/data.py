"""Prompts and labelled pairs, from local files or the hub, by column.

A source is a local file (JSON lines, JSON, parquet, or plain text with a prompt on each line) or the name of a hub data
set. Columns are named by the user, or known: UltraFeedback in its raw and binarised forms is known by its name, and the
same schema is recognised in a file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .policy import Prompt

Row = Mapping[str, Any]

SPLITS = {
    "openbmb/UltraFeedback": "train",
    "HuggingFaceH4/ultrafeedback_binarized": "train_prefs",
    "trl-lib/ultrafeedback-prompt": "train",
}
"""Splits of hub data sets that are known by name; of others, "train"."""
PROMPT_COLUMNS = ("prompt", "instruction", "question", "messages", "text")
"""Where a prompt is looked for if no column is named, in this order."""


@dataclass(frozen=True)
class Data:
    """Where prompts come from."""

    source: str
    """Local file (.jsonl, .json, .parquet, .txt) or hub name, such as HuggingFaceH4/ultrafeedback_binarized."""
    subset: str | None = None
    """Configuration of a hub data set, such as "main"."""
    split: str | None = None
    """Split of a hub data set; None for the one that is known by name, or "train"."""
    prompt: str | None = None
    """Column of the prompt: a text, or chat messages. None looks for prompt, instruction, question, messages, text."""
    limit: int | None = None
    """Take only so many prompts, the first ones."""
    chat: bool = False
    """Turn a text into a user's message, so that the model's chat template is applied."""


@dataclass(frozen=True)
class Pair:
    """A labelled comparison."""

    prompt: Prompt
    chosen: str
    rejected: str


def read(source: str, subset: str | None = None, split: str | None = None) -> list[dict[str, Any]]:
    """Return the rows of a local file or of a hub data set.

    Raises
    ------
    ValueError
        If there is no such file, its form is unknown, or a line of it is no JSON object.
    """
    path = Path(source).expanduser()
    suffix = path.suffix.lower()
    if not path.exists() and (suffix in (".jsonl", ".json", ".parquet", ".txt") or source.count("/") != 1):
        raise ValueError(f"There is no file {source!r}, and it is no hub name either: that is owner/name.")
    if not path.exists():
        import datasets

        return [dict(row) for row in datasets.load_dataset(source, subset, split=split or SPLITS.get(source, "train"))]
    if suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path).to_pylist()
    text = path.read_text(encoding="utf-8")
    if suffix == ".txt":
        return [{"prompt": line} for line in text.splitlines() if line.strip()]
    if suffix == ".json":
        rows = json.loads(text)
        if not isinstance(rows, list):
            raise ValueError(f"{source} must hold a list of objects, but it holds a {type(rows).__name__}.")
    elif suffix == ".jsonl":
        rows = [_object(source, number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    else:
        raise ValueError(f"{source} must end in .jsonl, .json, .parquet or .txt.")
    return rows


def _object(source: str, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"Line {number} of {source} is no JSON: {error}.") from None
    if not isinstance(row, dict):
        raise ValueError(f"Line {number} of {source} must be a JSON object, but it is a {type(row).__name__}.")
    return row


def load_prompts(data: Data) -> list[Prompt]:
    """Return the prompts of a source, each once, in order.

    Raises
    ------
    ValueError
        If the source cannot be read, has no prompts, or has no such column; the columns that it has are named.
    """
    rows = read(data.source, data.subset, data.split)
    if not rows:
        raise ValueError(f"{data.source} has no rows.")
    found: dict[str, Prompt] = {}
    name = column(rows[0], data.prompt, PROMPT_COLUMNS, data.source)
    for i, row in enumerate(rows):
        value = column(row, name, (), f"Row {i} of {data.source}") and row[name]
        prompt = to_prompt(value, f"Row {i} of {data.source}, column {name!r}")
        if data.chat and isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
        found.setdefault(json.dumps(prompt), prompt)
        if len(found) == data.limit:
            break
    return list(found.values())


def column(row: Row, name: str | None, usual: Sequence[str], where: str) -> str:
    """Return the column that is named, or the first usual one that is there."""
    for candidate in [name] if name else usual:
        if candidate in row:
            return candidate
    wanted = repr(name) if name else " or ".join(map(repr, usual))
    raise ValueError(f"{where} has no column {wanted}; it has {', '.join(map(repr, row))}. Name the right one.")


def to_prompt(value: Any, where: str) -> Prompt:
    """Return a text as it is, and of chat messages everything up to the last one that the model is not to answer.

    An answer at the end of a conversation is cut off: it is what the model is asked for.
    """
    if isinstance(value, str):
        if not value.strip():
            raise ValueError(f"{where}: the prompt is empty.")
        return value
    messages = list(value) if isinstance(value, list | tuple) else []
    if not messages or not all(isinstance(m, Mapping) and {"role", "content"} <= m.keys() for m in messages):
        raise ValueError(f"{where}: a prompt is a text or a list of messages with role and content, not {value!r:.80}.")
    talk = [{"role": m["role"], "content": m["content"]} for m in messages]
    while talk and talk[-1]["role"] == "assistant":
        talk.pop()
    if not talk:
        raise ValueError(f"{where}: the conversation has only answers.")
    return talk


def load_pairs(
    data: Data, chosen: str = "chosen", rejected: str = "rejected", completions: str = "completions"
) -> list[Pair]:
    """Return labelled pairs.

    Two schemas are read: columns of the chosen and the rejected answer, texts or conversations (UltraFeedback
    binarised), and a column of completions with ``response`` and ``overall_score`` (raw UltraFeedback), of which the
    best and the worst make a pair, unless their scores are equal.

    Raises
    ------
    ValueError
        If neither schema is there; the columns that are there are named.
    """
    pairs = []
    for i, row in enumerate(read(data.source, data.subset, data.split)):
        where = f"Row {i} of {data.source}"
        name = column(row, data.prompt, (*PROMPT_COLUMNS, chosen), where)
        prompt = to_prompt(row[name], where)
        if chosen in row and rejected in row:
            best, worst = _answer(row[chosen], where), _answer(row[rejected], where)
        else:
            field = column(row, None, (completions,), where + f", without {chosen!r} and {rejected!r},")
            ranked = sorted(row[field], key=lambda c: float(c["overall_score"]))
            if len(ranked) < 2 or float(ranked[0]["overall_score"]) == float(ranked[-1]["overall_score"]):
                continue
            best, worst = ranked[-1]["response"], ranked[0]["response"]
        pairs.append(Pair(prompt, best, worst))
        if len(pairs) == data.limit:
            break
    if not pairs:
        raise ValueError(f"{data.source} has no pairs.")
    return pairs


def _answer(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and isinstance(value[-1], Mapping) and "content" in value[-1]:
        return str(value[-1]["content"])
    raise ValueError(f"{where}: an answer is a text or a conversation that ends with it, not {value!r:.80}.")

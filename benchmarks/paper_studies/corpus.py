"""The prompts and labelled pairs of paper.py, from local copies of public data sets.

Every dialogue belongs to one of four parts by a hash of its first question: pairs for the gold judge, pairs for the
proxy judge, prompts to train on, and prompts to measure on. So no question is in two parts, whatever is left out for
its length.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

from windlm.data import Data, Pair, load_pairs
from windlm.files import write_text
from windlm.policy import Prompt

HH = ("helpful-base", "helpful-online", "helpful-rejection-sampled")
ULTRAFEEDBACK = ("train_prefs_part500", "test_prefs_part500", "train_scored_part1200")
SHARES = {"gold": 0.4, "proxy": 0.4, "train": 0.14, "held-out": 0.06}
"""Parts, and the share of the questions in each."""
LONGEST_PROMPT, SHORTEST_ANSWER, LONGEST_ANSWER, LONGEST_QUESTION = 600, 20, 600, 300
"""Limits in characters, of a judge's pairs and of the policy's prompts: two cores are slow."""


def sources(folder: Path) -> list[Path]:
    """Return the files of preference data that the folder has.

    Raises
    ------
    SystemExit
        If it has none.
    """
    files = [folder / "hh_rlhf" / name / "test.jsonl.gz" for name in HH]
    files += [folder / "ultrafeedback_binarized" / f"{name}.jsonl.gz" for name in ULTRAFEEDBACK]
    there = [file for file in files if file.exists()]
    if not there:
        wanted = ", ".join(str(file.relative_to(folder)) for file in files)
        raise SystemExit(f"{folder} has no preference data; it should have some of {wanted}.")
    return there


def part(question: str) -> str:
    """Return the part that a question belongs to."""
    place, total = crc32(question.strip().encode()) / 2**32, 0.0
    for name, share in SHARES.items():
        total += share
        if place < total:
            return name
    return name


def question(prompt: Prompt) -> str:
    """Return the first message of the user."""
    return prompt if isinstance(prompt, str) else next(m["content"] for m in prompt if m["role"] == "user")


def pairs(folder: Path) -> Iterator[Pair]:
    """Yield the labelled pairs of all sources, as conversations."""
    for file in sources(folder):
        yield from load_pairs(Data(str(file), chat=True))


def write(folder: Path, out: Path) -> dict[str, int]:
    """Write ``gold.jsonl`` and ``proxy.jsonl``, pairs, and ``train.jsonl`` and ``held-out.jsonl``, prompts.

    Returns
    -------
    dict
        The number of rows of each.
    """
    rows: dict[str, dict[str, None]] = {name: {} for name in SHARES}
    for pair in pairs(folder):
        asked = question(pair.prompt)
        name = part(asked)
        if name in ("train", "held-out"):
            if len(asked) <= LONGEST_QUESTION:
                rows[name][json.dumps({"prompt": [{"role": "user", "content": asked}]})] = None
            continue
        length = sum(len(message["content"]) for message in pair.prompt if not isinstance(message, str))
        answers = (len(pair.chosen), len(pair.rejected))
        if length <= LONGEST_PROMPT and min(answers) >= SHORTEST_ANSWER and max(answers) <= LONGEST_ANSWER:
            rows[name][json.dumps(vars(pair))] = None
    for name, found in rows.items():
        write_text(out / f"{name}.jsonl", "".join(row + "\n" for row in found))
    return {name: len(found) for name, found in rows.items()}

"""Rewards that compare a response with the answer in the data set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")
"""A number, with commas between thousands."""


def last_number(prompts: Sequence[Any], responses: Sequence[str], answer: Sequence[str]) -> list[float]:
    """Return 1 where the last number of a response is the last of the answer, else 0.

    For GSM8K's columns ``question`` and ``answer`` (whose solution ends in ``#### 72``):
    ``--judge.kind reward --judge.name windlm.judges.verifiable:last_number``.

    Raises
    ------
    ValueError
        If an answer has no number.
    """
    rewards = []
    for response, right in zip(responses, answer, strict=True):
        wanted = final_number(str(right))
        if wanted is None:
            raise ValueError(f"The answer {right!r} has no number to compare with.")
        rewards.append(float(final_number(response) == wanted))
    return rewards


def final_number(text: str) -> Decimal | None:
    """Return the last number of a text, None if it has none."""
    found = NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "")) if found else None

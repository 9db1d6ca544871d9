"""The columns that a judge may read: those of the data set, and those that tell how a response was sampled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..data import Prompts
from ..policy import LanguagePolicy, Samples, unpadded


def ending(ids: Sequence[int], policy: LanguagePolicy) -> str:
    """Return how a response ended: "end token", "stop text", or "cut" at the maximum length."""
    if ids and ids[-1] in policy.stop_ids:
        return "end token"
    return "cut" if len(ids) == policy.max_new_tokens else "stop text"


def endings(samples: Samples, policy: LanguagePolicy) -> list[list[str]]:
    """Return how each response ended."""
    return [[ending(ids, policy) for ids in row] for row in unpadded(samples.tokens, samples.mask)]


def columns_for(judge: Any, prompts: Prompts, *drawn: tuple[Samples, LanguagePolicy]) -> dict[str, list[Any]]:
    """Return the columns that a judge may read: the data set's, and those of `RESPONSE_COLUMNS` that it names.

    Parameters
    ----------
    judge : Judge
    prompts : Prompts
    *drawn : tuple of (Samples, LanguagePolicy)
        Responses to the prompts and who gave them, side by side as the judge sees them.
    """
    columns = dict(prompts.columns)
    for name in getattr(judge, "response_columns", ()):
        parts = [_response_column(name, samples, policy) for samples, policy in drawn]
        columns[name] = [[x for row in rows for x in row] for rows in zip(*parts, strict=True)]
    return columns


def _response_column(name: str, samples: Samples, policy: LanguagePolicy) -> list[list[Any]]:
    if name == "text_with_special_tokens":
        return policy.read(samples.tokens, samples.mask, special=True)
    return endings(samples, policy) if name == "ended" else unpadded(samples.tokens, samples.mask)

"""A reward that needs no hub: a proxy, for runs that show that learning works.

--judge.kind reward --judge.name benchmarks/proxy.py:sentiment
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any


@cache
def _analyzer() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def sentiment(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
    """Return VADER's compound score of each response, in [-1, 1]: it knows words, and not sense."""
    return [_analyzer().polarity_scores(text)["compound"] for text in responses]


def length(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
    """Return the length of each response: a reward for random models, which no sentiment has."""
    return [float(len(text)) for text in responses]

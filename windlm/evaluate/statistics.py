"""Statistics of samples: win rates with bootstrap intervals, and diversity."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import bootstrap, norm

from windgames import objectives as shared

from ..judges import Judge
from ..judges.base import Columns, ask
from ..policy import Prompt, Samples


class Interval(NamedTuple):
    """A mean with its confidence interval."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float] | np.ndarray, level: float = 0.95, seed: int = 0) -> Interval:
    """Return the mean of values, one per prompt, with a percentile bootstrap interval over prompts.

    Raises
    ------
    ValueError
        If there are no values.
    """
    x = np.asarray(values, dtype=float)
    if x.size == 0:
        raise ValueError("There are no values to average: no prompt was judged.")
    mean = float(x.mean())
    if len(x) < 2 or np.ptp(x) == 0:
        return Interval(mean, mean, mean)
    result = bootstrap((x,), np.mean, confidence_level=level, method="percentile", rng=np.random.default_rng(seed))
    return Interval(mean, float(result.confidence_interval.low), float(result.confidence_interval.high))


def wilson(share: float, n: int) -> Interval:
    r"""Return a share of `n` independent trials with Wilson's 95% interval.

    With :math:`z = 1.96`, its ends are
    :math:`(\hat p + z^2/2n \pm z\sqrt{\hat p(1-\hat p)/n + z^2/4n^2}) / (1 + z^2/n)`: never of length zero, so that 12
    of 12 are (0.76, 1), not (1, 1). Trials that count a fraction are covered, too, since they vary less.
    """
    z = float(norm.ppf(0.975))
    middle, half = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = ((middle + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    return Interval(share, max(0.0, low), min(1.0, high))


def win_rates(
    prompts: Sequence[Prompt], ours: Samples, theirs: Samples, judge: Judge, columns: Columns | None = None
) -> np.ndarray:
    """Return the win rate of our responses against theirs on each prompt, over all pairs; shape ``(B,)``.

    `columns` are those that the judge may read, of our responses and theirs side by side.
    """
    k = ours.tokens.shape[1]
    texts = [a + b for a, b in zip(ours.text, theirs.text, strict=True)]
    preference = ask(judge, "preference", prompts, texts, columns or {})
    outcomes = torch.tensor(preference.to_numpy().matrix())  # a copy, since a preference's matrix is read-only
    return shared.win_rates(outcomes[:, :k, k:], "independent").mean(-1).numpy()


# -- diversity -----------------------------------------------------------------------------------------------


def diversity(texts: Sequence[Sequence[str]], log_probs: np.ndarray | None = None) -> dict[str, float]:
    r"""Return the diversity of the responses to a prompt, averaged over prompts.

    Parameters
    ----------
    texts : B lists of K texts
    log_probs : array of shape (B, K), optional
        Of the same responses; adds ``entropy``, the unbiased estimate :math:`-\operatorname{mean}\log\pi(y|x)` in nats.

    Returns
    -------
    dict
        ``distinct_1``, ``distinct_2``: the fraction of distinct words and word pairs among all responses to a prompt.
        ``self_bleu``: BLEU-4 of a response against the others; 1 if all are equal.
    """
    words = [[text.split() for text in row] for row in texts]
    values = {f"distinct_{n}": _mean([distinct(row, n) for row in words]) for n in (1, 2)}
    values["self_bleu"] = _mean([self_bleu(row) for row in words if len(row) > 1])
    if log_probs is not None:
        values["entropy"] = -float(np.mean(log_probs))
    return values


def distinct(responses: Sequence[Sequence[str]], n: int) -> float:
    """Return the fraction of distinct n-grams among all n-grams of the responses; nan if there are none."""
    grams = [gram for words in responses for gram in ngrams(words, n)]
    return len(set(grams)) / len(grams) if grams else math.nan


def self_bleu(responses: Sequence[Sequence[str]], longest: int = 4) -> float:
    """Return the mean BLEU of each response against the others (Zhu et al. 2018).

    N-grams longer than the response are left out, and an order without a match counts as half a match, so that short
    responses have a value.
    """
    return _mean([bleu(words, [*responses[:i], *responses[i + 1 :]], longest) for i, words in enumerate(responses)])


def bleu(words: Sequence[str], references: Sequence[Sequence[str]], longest: int = 4) -> float:
    """Return BLEU of one text against references: geometric mean of clipped precisions, times the brevity penalty."""
    if not words:
        return float(any(not r for r in references))
    logs = []
    for n in range(1, min(longest, len(words)) + 1):
        have = Counter(ngrams(words, n))
        most: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            most |= Counter(ngrams(reference, n))
        hits = sum((have & most).values())
        if n == 1 and not hits:
            return 0.0
        logs.append(math.log(max(hits, 0.5) / sum(have.values())))
    nearest = min((abs(len(r) - len(words)), len(r)) for r in references)[1]
    return math.exp(min(0.0, 1 - nearest / len(words)) + sum(logs) / len(logs))


def ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Return all sequences of `n` consecutive words."""
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _mean(values: Sequence[float]) -> float:
    kept = [v for v in values if not math.isnan(v)]
    return sum(kept) / len(kept) if kept else math.nan

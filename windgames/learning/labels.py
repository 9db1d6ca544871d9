"""Sampled responses, their labels, and the arithmetic that a regression on them needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..objectives import centred, implied_payoff
from ..updates import Stage


@dataclass(frozen=True)
class LabelledSamples:
    """The samples of one round: responses, one label each, and their importance weights."""

    contexts: Any
    """Index of the contexts that were sampled."""
    y: np.ndarray
    """Responses, shape ``(..., contexts, K)``."""
    label: np.ndarray
    """Estimated payoffs on the scale of win rates (mean 1/2), shape of `y`."""
    weight: np.ndarray | None
    """Importance weights, the policy's probability over the sampling probability; None if sampled from the policy."""
    pairing: str
    """How labels and scores are centred, one of `objectives.PAIRINGS`."""

    @property
    def share(self) -> np.ndarray | None:
        """The weights, normalised to sum to one in each context."""
        return None if self.weight is None else self.weight / np.sum(self.weight, axis=-1, keepdims=True)


def centred_within(x: np.ndarray, samples: LabelledSamples) -> np.ndarray:
    """Return values centred within the responses of each context (theory 7.2)."""
    return centred(x, samples.pairing, samples.share)


def take(log_policy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the log-probabilities of the sampled responses."""
    return np.take_along_axis(np.broadcast_to(log_policy, (*y.shape[:-1], log_policy.shape[-1])), y, axis=-1)


def implied_residual(
    samples: LabelledSamples, log_policy: np.ndarray, log_start: np.ndarray, log_ref: np.ndarray, stage: Stage
) -> Any:
    """Return label minus score of each sample, both centred (theory 7.1)."""
    lp, ls, lr = (take(x, samples.y) for x in (log_policy, log_start, log_ref))
    beta, eta = column(stage.beta, samples.contexts), column(stage.eta, samples.contexts)
    return centred_label(samples) - centred_within(implied_payoff(lp, ls, lr, beta=beta, eta=eta), samples)


def centred_label(samples: LabelledSamples) -> np.ndarray:
    """Return the labels with mean 1/2: those from independent opponents are centred, the others already are."""
    return centred_within(samples.label, samples) if samples.pairing == "independent" else samples.label


def sample(log_policy: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Sample `n` responses independently in every context, shape ``(..., n)``."""
    cdf = np.cumsum(np.exp(log_policy), axis=-1)
    cdf /= cdf[..., -1:]
    return np.sum(rng.random((*log_policy.shape[:-1], n))[..., None] >= cdf[..., None, :-1], axis=-1)


def one_number(x: Any) -> float:
    """Return the value that all contexts share, or raise a ValueError if they differ."""
    values = np.unique(np.asarray(x, dtype=float))
    if len(values) != 1:
        raise ValueError(
            f"A log-linear policy shares its parameters over contexts: beta and eta must be one number, not {x}."
        )
    return float(values[0])


def column(x: Any, contexts: Any = slice(None)) -> Any:
    """Return a number unchanged; of one value per context, return those of the chosen contexts as a column."""
    x = np.asarray(x, dtype=float)
    return float(x) if x.ndim == 0 else x[contexts][..., None]


def scatter(y: np.ndarray, w: np.ndarray, m: int) -> np.ndarray:
    """Return the sums of `w` by response, shape ``(..., m)``."""
    rows = int(np.prod(y.shape[:-1]))
    cell = y.reshape(rows, -1) + np.arange(rows)[:, None] * m
    out = np.bincount(cell.ravel(), np.broadcast_to(w, y.shape).ravel(), minlength=rows * m)
    return out.reshape(*y.shape[:-1], m)

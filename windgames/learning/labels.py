"""One round of samples and the labels that a regression fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..objectives import (
    centred,
    implied_payoff,
)
from ..updates import Stage


@dataclass(frozen=True)
class Seen:
    """What a learner knows after a round: responses, one label each, and how they are to be weighed."""

    contexts: Any
    y: np.ndarray
    """Responses, shape ``(..., contexts, K)``."""
    label: np.ndarray
    """Estimated payoffs on the scale of win rates (mean 1/2)."""
    weight: np.ndarray | None
    """Importance weights, policy over sampling probability; None if the draws are the policy's own."""
    pairing: str

    @property
    def share(self) -> np.ndarray | None:
        """Weights that sum to one in each context."""
        return None if self.weight is None else self.weight / np.sum(self.weight, axis=-1, keepdims=True)


def centred_within(x: np.ndarray, seen: Seen) -> np.ndarray:
    """Return values less their mean within the group (theory 7.2)."""
    return centred(x, seen.pairing, seen.share)


def take(log_policy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the log-probabilities of the drawn responses."""
    return np.take_along_axis(np.broadcast_to(log_policy, (*y.shape[:-1], log_policy.shape[-1])), y, axis=-1)


def implied_residual(
    seen: Seen, log_policy: np.ndarray, log_start: np.ndarray, log_ref: np.ndarray, stage: Stage
) -> Any:
    """Return label minus score, both centred."""
    lp, ls, lr = (take(x, seen.y) for x in (log_policy, log_start, log_ref))
    raw = implied_payoff(lp, ls, lr, beta=column(stage.beta, seen.contexts), eta=column(stage.eta, seen.contexts))
    return log_label(seen) - centred_within(raw, seen)


def log_label(seen: Seen) -> np.ndarray:
    """Return the labels; those of independent opponents do not average to 1/2 by themselves."""
    return centred_within(seen.label, seen) if seen.pairing == "independent" else seen.label


def draw(log_policy: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return `n` independent draws, shape ``(..., n)``."""
    cdf = np.cumsum(np.exp(log_policy), axis=-1)
    cdf /= cdf[..., -1:]
    return np.sum(rng.random((*log_policy.shape[:-1], n))[..., None] >= cdf[..., None, :-1], axis=-1)


def one_number(x: Any) -> float:
    """Return the one value that all contexts share."""
    values = np.unique(np.asarray(x, dtype=float))
    if len(values) != 1:
        raise ValueError(
            f"A log-linear policy shares parameters over contexts: beta and eta must be one number, not {x}."
        )
    return float(values[0])


def column(x: Any, contexts: Any = slice(None)) -> Any:
    """Return a number as it is, one per context as a column of the chosen contexts."""
    x = np.asarray(x, dtype=float)
    return float(x) if x.ndim == 0 else x[contexts][..., None]


def scatter(y: np.ndarray, w: np.ndarray, m: int) -> np.ndarray:
    """Return the sums of `w` by response, shape ``(..., m)``."""
    rows = int(np.prod(y.shape[:-1]))
    cell = y.reshape(rows, -1) + np.arange(rows)[:, None] * m
    out = np.bincount(cell.ravel(), np.broadcast_to(w, y.shape).ravel(), minlength=rows * m)
    return out.reshape(*y.shape[:-1], m)

"""Policies of the bandit study: tables and log-linear in features."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np

from .._array import (
    log_normalize,
    logsumexp,
)
from ..objectives import (
    centred,
)
from ..updates import Stage, target
from .labels import Seen, column, implied_residual, one_number, scatter


class Tabular:
    """One logit for each context and response."""

    def __init__(self, log_ref: np.ndarray) -> None:
        self.log_ref = np.atleast_2d(log_ref)

    def start(self, replicates: tuple[int, ...] = ()) -> np.ndarray:
        """Return the parameters of the reference policy."""
        return np.broadcast_to(self.log_ref, (*replicates, *self.log_ref.shape)).copy()

    def log_policy(self, theta: np.ndarray, contexts: Any = slice(None)) -> np.ndarray:
        """Return log-probabilities, shape ``(..., contexts, m)``."""
        return log_normalize(theta[..., contexts, :])

    def mixed(self, theta: np.ndarray, stage: Stage) -> np.ndarray:
        """Return the parameters of a stage without a payoff, the geometric mixture with the reference."""
        return target(theta, self.log_ref, np.zeros_like(theta), beta=column(stage.beta), eta=column(stage.eta))

    def only(self, new: np.ndarray, old: np.ndarray, contexts: Any) -> np.ndarray:
        """Return the old parameters with the new ones of these contexts."""
        out = old.copy()
        out[..., contexts, :] = new[..., contexts, :]
        return out

    def gradient(self, theta: np.ndarray, y: np.ndarray, w: np.ndarray, contexts: Any = slice(None)) -> np.ndarray:
        r"""Return the gradient of :math:`\sum_k w_k\log\pi_\theta(y_k)`, shape of `theta`."""
        policy = np.exp(self.log_policy(theta, contexts))
        out = np.zeros_like(theta)
        out[..., contexts, :] = scatter(y, w, theta.shape[-1]) - np.sum(w, axis=-1, keepdims=True) * policy
        return out

    def least_squares(
        self, theta: np.ndarray, seen: Seen, start: np.ndarray, stage: Stage, unseen: str = "keep"
    ) -> np.ndarray:
        r"""Minimise the squared risk: the target with the mean label of each response that was seen.

        The risk is centred, so it says nothing of how much mass the seen responses have together, nor of the others.
        With "keep" those stay where they were, and so does the total mass of the seen ones; with "half" they move as
        a win rate of 1/2 moves them.
        """
        at, m = seen.contexts, theta.shape[-1]
        log_start = self.log_policy(start, at)
        count = scatter(seen.y, np.ones(seen.y.shape), m)
        k = seen.y.shape[-1]
        label = (seen.label - 0.5) * (k - 1) / k + 0.5 if seen.pairing == "leave-one-out" else seen.label
        payoff = scatter(seen.y, label, m) / np.maximum(count, 1)
        beta, eta = column(stage.beta, at), column(stage.eta, at)
        new = target(log_start, self.log_ref[at], payoff, beta=beta, eta=eta)
        there = count > 0
        out = self.log_policy(theta)
        if unseen == "half":
            half = target(log_start, self.log_ref[at], np.full_like(payoff, 0.5), beta=beta, eta=eta)
            out[..., at, :] = log_normalize(np.where(there, new, half))
            return out
        low = np.full_like(new, -inf)
        mass = logsumexp(np.where(there, log_start, low), keepdims=True)
        new = new - logsumexp(np.where(there, new, low), keepdims=True) + mass
        out[..., at, :] = np.where(there, new, log_start)
        return out

    def pull(self, seen: Seen, stage: Stage) -> float:
        """A table has no ridge."""
        return 0.0


class LogLinear:
    r"""Policies :math:`\pi_\theta(y|x)\propto\rho(y|x)\exp\langle\theta,\phi(x,y)\rangle`: contexts share parameters.

    Parameters
    ----------
    log_ref : array, shape ``(contexts, m)``
    features : array, shape ``(contexts, m, d)``
    ridge : float
        Added to the normal equations, in units of their mean eigenvalue; 0 takes the solution nearest to where the
        step starts.
    """

    def __init__(self, log_ref: np.ndarray, features: Any, ridge: float = 0.0) -> None:
        self.log_ref = np.atleast_2d(log_ref)
        self.features = np.asarray(features, dtype=float)
        if self.features.ndim != 3 or self.features.shape[:2] != self.log_ref.shape:
            raise ValueError(
                f"features must have shape {(*self.log_ref.shape, 'd')}, but their shape is {self.features.shape}."
            )
        if not np.all(np.isfinite(self.features)):
            where = tuple(map(int, np.argwhere(~np.isfinite(self.features))[0]))
            raise ValueError(f"features must be finite, but entry {where} is {self.features[where]}.")
        if not 0 <= ridge < inf:
            raise ValueError(f"ridge must be a non-negative number, but it is {ridge}.")
        self.ridge = ridge

    def start(self, replicates: tuple[int, ...] = ()) -> np.ndarray:
        return np.zeros((*replicates, self.features.shape[-1]))

    def log_policy(self, theta: np.ndarray, contexts: Any = slice(None)) -> np.ndarray:
        tilt = np.einsum("cmd,...d->...cm", self.features[contexts], theta)
        return log_normalize(self.log_ref[contexts] + tilt)

    def mixed(self, theta: np.ndarray, stage: Stage) -> np.ndarray:
        return theta / (1 + one_number(stage.beta) * one_number(stage.eta))

    def only(self, new: np.ndarray, old: np.ndarray, contexts: Any) -> np.ndarray:
        return new  # contexts share parameters

    def gradient(self, theta: np.ndarray, y: np.ndarray, w: np.ndarray, contexts: Any = slice(None)) -> np.ndarray:
        policy = np.exp(self.log_policy(theta, contexts))
        weight = scatter(y, w, policy.shape[-1]) - np.sum(w, axis=-1, keepdims=True) * policy
        return np.einsum("...cm,cmd->...d", weight, self.features[contexts])

    def least_squares(self, theta: np.ndarray, seen: Seen, start: np.ndarray, stage: Stage) -> np.ndarray:
        """Minimise the squared risk from `theta` on: linear least squares, since centring removes the normaliser."""
        at = seen.contexts
        log_policy, log_start = self.log_policy(theta, at), self.log_policy(start, at)
        short = implied_residual(seen, log_policy, log_start, self.log_ref[at], stage)
        x = self.design(seen) * (1 / one_number(stage.eta) + one_number(stage.beta))
        weighted = x if seen.weight is None else x * seen.weight[..., None]
        x, weighted = (z.reshape(*z.shape[:-3], -1, z.shape[-1]) for z in (x, weighted))
        A = np.swapaxes(weighted, -1, -2) @ x
        b = (np.swapaxes(weighted, -1, -2) @ short.reshape(*short.shape[:-2], -1, 1))[..., 0]
        A = A + self._ridge(A)[..., None, None] * np.eye(A.shape[-1])
        return theta + (np.linalg.pinv(A, rcond=1e-11, hermitian=True) @ b[..., None])[..., 0]

    def _ridge(self, A: np.ndarray) -> np.ndarray:
        return self.ridge * np.trace(A, axis1=-2, axis2=-1) / A.shape[-1]

    def pull(self, seen: Seen, stage: Stage) -> float:
        """Return the weight of the ridge, half the squared length of a step, beside any risk."""
        x = self.design(seen).reshape(-1, self.features.shape[-1]) * (
            1 / one_number(stage.eta) + one_number(stage.beta)
        )
        w = 1.0 if seen.weight is None else seen.weight.reshape(-1, 1)
        return float(self._ridge((x * w).T @ x))

    def design(self, seen: Seen) -> np.ndarray:
        """Return the features of the draws, centred as the scores are, shape ``(..., contexts, K, d)``."""
        features = self.features[seen.contexts]
        x = features[np.arange(len(features))[:, None], seen.y]
        share = None if seen.share is None else seen.share[..., None, :]
        return np.swapaxes(centred(np.swapaxes(x, -1, -2), seen.pairing, share), -1, -2) - 0.5


Policy = Tabular | LogLinear

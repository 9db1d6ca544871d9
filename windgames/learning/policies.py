"""Policies that learners train: a table of logits, or log-linear in features."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np

from .._array import log_normalize, logsumexp, owned
from .._validation import numbers
from ..objectives import centred
from ..updates import Stage, target
from .labels import LabelledSamples, column, implied_residual, one_number, scatter


def logit_gradient(policy: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    r"""Return the gradient of :math:`\sum_k w_k\log\pi(y_k)` with respect to the logits of a policy."""
    return scatter(y, w, policy.shape[-1]) - np.sum(w, axis=-1, keepdims=True) * policy


class Tabular:
    """A table with one logit for each context and response.

    Parameters
    ----------
    log_ref : array, shape ``(contexts, m)``
        Log-probabilities of the reference policy, where learning starts.
    """

    def __init__(self, log_ref: np.ndarray) -> None:
        self.log_ref = owned(np.atleast_2d(numbers(log_ref, "log_ref")))

    def start(self, replicates: tuple[int, ...] = ()) -> np.ndarray:
        """Return the parameters of the reference policy."""
        return np.broadcast_to(self.log_ref, (*replicates, *self.log_ref.shape)).copy()

    def log_policy(self, theta: np.ndarray, contexts: Any = slice(None)) -> np.ndarray:
        """Return log-probabilities, shape ``(..., contexts, m)``."""
        return log_normalize(theta[..., contexts, :])

    def reference(self, ref: np.ndarray | None, contexts: Any = slice(None)) -> np.ndarray:
        """Return log-probabilities of a stage's reference, of parameters `ref`, or of the policy's own one if None."""
        return self.log_ref[contexts] if ref is None else self.log_policy(ref, contexts)

    def mixed(self, theta: np.ndarray, stage: Stage, ref: np.ndarray | None = None) -> np.ndarray:
        """Return the parameters after a stage without a payoff: the geometric mixture with the reference."""
        return target(theta, self.reference(ref), np.zeros_like(theta), beta=column(stage.beta), eta=column(stage.eta))

    def only(self, new: np.ndarray, old: np.ndarray, contexts: Any) -> np.ndarray:
        """Return the old parameters, with those of these contexts replaced by the new ones."""
        out = old.copy()
        out[..., contexts, :] = new[..., contexts, :]
        return out

    def gradient(self, theta: np.ndarray, y: np.ndarray, w: np.ndarray, contexts: Any = slice(None)) -> np.ndarray:
        r"""Return the gradient of :math:`\sum_k w_k\log\pi_\theta(y_k)`, shape of `theta`."""
        policy = np.exp(self.log_policy(theta, contexts))
        out = np.zeros_like(theta)
        out[..., contexts, :] = logit_gradient(policy, y, w)
        return out

    def least_squares(
        self,
        theta: np.ndarray,
        samples: LabelledSamples,
        start: np.ndarray,
        stage: Stage,
        unseen: str = "keep",
        ref: np.ndarray | None = None,
    ) -> np.ndarray:
        r"""Return the minimiser of the squared risk: the target with the mean label of each sampled response.

        The risk is centred, so it determines neither the total mass of the sampled responses nor the others. With
        ``unseen="keep"`` both stay what they were; with ``"half"`` the others are updated as for a win rate of 1/2.
        """
        at, m = samples.contexts, theta.shape[-1]
        log_start, log_ref = self.log_policy(start, at), self.reference(ref, at)
        count = scatter(samples.y, np.ones(samples.y.shape), m)
        k = samples.y.shape[-1]
        label = (samples.label - 0.5) * (k - 1) / k + 0.5 if samples.pairing == "leave-one-out" else samples.label
        payoff = scatter(samples.y, label, m) / np.maximum(count, 1)
        beta, eta = column(stage.beta, at), column(stage.eta, at)
        new = target(log_start, log_ref, payoff, beta=beta, eta=eta)
        sampled = count > 0
        out = self.log_policy(theta)
        if unseen == "half":
            half = target(log_start, log_ref, np.full_like(payoff, 0.5), beta=beta, eta=eta)
            out[..., at, :] = log_normalize(np.where(sampled, new, half))
            return out
        low = np.full_like(new, -inf)
        mass = logsumexp(np.where(sampled, log_start, low), keepdims=True)
        new = new - logsumexp(np.where(sampled, new, low), keepdims=True) + mass
        out[..., at, :] = np.where(sampled, new, log_start)
        return out

    def ridge_weight(self, samples: LabelledSamples, stage: Stage) -> float:
        """Return 0: a table has no ridge penalty."""
        return 0.0


class LogLinear:
    r"""Policies :math:`\pi_\theta(y|x)\propto\rho(y|x)\exp\langle\theta,\phi(x,y)\rangle`: contexts share parameters.

    Parameters
    ----------
    log_ref : array, shape ``(contexts, m)``
    features : array, shape ``(contexts, m, d)``
    ridge : float
        Ridge penalty on the step, as a multiple of the mean eigenvalue of the normal equations; 0 takes the solution
        nearest to the start of the step.

    Raises
    ------
    ValueError
        If the shape of `features` does not fit `log_ref`, a feature is not finite, or `ridge` is negative.
    """

    def __init__(self, log_ref: np.ndarray, features: Any, ridge: float = 0.0) -> None:
        self.log_ref = owned(np.atleast_2d(numbers(log_ref, "log_ref")))
        self.features = owned(numbers(features, "features"))
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

    def reference(self, ref: np.ndarray | None, contexts: Any = slice(None)) -> np.ndarray:
        return self.log_ref[contexts] if ref is None else self.log_policy(ref, contexts)

    def mixed(self, theta: np.ndarray, stage: Stage, ref: np.ndarray | None = None) -> np.ndarray:
        weight = one_number(stage.beta) * one_number(stage.eta)
        return (theta + weight * (0.0 if ref is None else ref)) / (1 + weight)

    def only(self, new: np.ndarray, old: np.ndarray, contexts: Any) -> np.ndarray:
        return new  # contexts share parameters

    def gradient(self, theta: np.ndarray, y: np.ndarray, w: np.ndarray, contexts: Any = slice(None)) -> np.ndarray:
        policy = np.exp(self.log_policy(theta, contexts))
        return np.einsum("...cm,cmd->...d", logit_gradient(policy, y, w), self.features[contexts])

    def least_squares(
        self,
        theta: np.ndarray,
        samples: LabelledSamples,
        start: np.ndarray,
        stage: Stage,
        ref: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the minimiser of the squared risk near `theta`: linear, since centring removes the normaliser."""
        at = samples.contexts
        log_policy, log_start = self.log_policy(theta, at), self.log_policy(start, at)
        residual = implied_residual(samples, log_policy, log_start, self.reference(ref, at), stage)
        x = self.design(samples) * (1 / one_number(stage.eta) + one_number(stage.beta))
        weighted = x if samples.weight is None else x * samples.weight[..., None]
        x, weighted = (z.reshape(*z.shape[:-3], -1, z.shape[-1]) for z in (x, weighted))
        A = np.swapaxes(weighted, -1, -2) @ x
        b = (np.swapaxes(weighted, -1, -2) @ residual.reshape(*residual.shape[:-2], -1, 1))[..., 0]
        A = A + self._ridge(A)[..., None, None] * np.eye(A.shape[-1])
        return theta + (np.linalg.pinv(A, rcond=1e-11, hermitian=True) @ b[..., None])[..., 0]

    def _ridge(self, A: np.ndarray) -> np.ndarray:
        return self.ridge * np.trace(A, axis1=-2, axis2=-1) / A.shape[-1]

    def ridge_weight(self, samples: LabelledSamples, stage: Stage) -> float:
        """Return the factor of half the squared length of the step in the penalised risk."""
        x = self.design(samples).reshape(-1, self.features.shape[-1]) * (
            1 / one_number(stage.eta) + one_number(stage.beta)
        )
        w = 1.0 if samples.weight is None else samples.weight.reshape(-1, 1)
        return float(self._ridge((x * w).T @ x))

    def design(self, samples: LabelledSamples) -> np.ndarray:
        """Return the features of the samples, centred like the scores, shape ``(..., contexts, K, d)``."""
        features = self.features[samples.contexts]
        x = features[np.arange(len(features))[:, None], samples.y]
        share = None if samples.share is None else samples.share[..., None, :]
        return np.swapaxes(centred(np.swapaxes(x, -1, -2), samples.pairing, share), -1, -2) - 0.5


Policy = Tabular | LogLinear
"""The policies that a learner can train."""

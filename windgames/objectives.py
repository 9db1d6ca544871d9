r"""Objectives for policies that learn from samples: for tables, log-linear policies and language models alike.

A tabular policy normalises the target of `windgames.updates`. A policy that sees `K` responses to a prompt and some
comparisons *regresses* onto the target: inverting the step :math:`\pi_t\to\pi` gives the payoff that would have caused
it, the score (theory 7.1)

.. math:: s_\pi(y) = \tfrac1\eta\bigl[(1+\beta\eta)\log\pi(y)-\log\pi_t(y)-\beta\eta\log\rho(y)\bigr] + b ,

and a proper risk fits the score to the observed win rates. The constant `b` is unknown because it contains the
normaliser. Centring removes it, and the centring must match the estimator of the win rates (theory 7.2).

Everything here is array-API arithmetic over the last axis, the `K` responses to one prompt: numpy for bandits, torch
with gradients for language models. Nothing is validated per call; the learners validate once.
"""

from __future__ import annotations

from math import log
from typing import Any

from ._array import Array, array_namespace
from .updates import target

PAIRINGS = ("group", "leave-one-out", "independent", "constant")
"""Pairings of a win-rate estimator with its centring, see `win_rates` and `centred`; all but the last are unbiased
(theory 7.2)."""
RISKS = ("squared", "kl", "nce")
"""Losses between score and label, see `risk`."""
SCORE_FLOOR = 0.05
"""Score below which the logarithmic risks continue as parabolas (for KL also above one minus this)."""


def implied_payoff(log_policy: Array, log_start: Array, log_ref: Array, *, beta: Any, eta: Any) -> Array:
    r"""Return the payoff that takes `log_start` to `log_policy` in one step of the target, up to a constant.

    The inverse of `windgames.updates.target` (theory 7.1): ``target(log_start, log_ref, implied_payoff(p), ...) = p``.
    `beta` and `eta` may be arrays that broadcast.
    """
    xp = array_namespace(log_policy)
    still = target(log_start, log_ref, xp.zeros_like(log_start), beta=beta, eta=eta)
    return (1 / eta + beta) * (log_policy - still)


# -- win rates and centring ----------------------------------------------------------------------------------


def win_rates(outcomes: Array, pairing: str = "group", own: float = 0.5) -> Array:
    r"""Return the estimated win rate of each response, shape ``(..., K)`` (theory 7.2).

    Parameters
    ----------
    outcomes : array, shape ``(..., K, K)``, or ``(..., K, J)`` for independent opponents
        ``outcomes[..., i, j]`` is the result of response `i` against `j`: 1 for a win, 1/2 for a tie, or a probability.
    pairing : {"group", "leave-one-out", "independent", "constant"}
        "group" counts the comparison of a response with itself as `own`; "leave-one-out" and "constant" leave it out;
        "independent" takes the opponents to be separate samples.
    own : float
        Result of a response against itself: 1/2, or 1 with the weak ties of a log-win-rate game.
    """
    xp = array_namespace(outcomes)
    if pairing == "independent":
        return xp.mean(outcomes, axis=-1)
    k = outcomes.shape[-1]
    same = xp.eye(k, dtype=outcomes.dtype, device=outcomes.device)
    others = xp.sum(outcomes * (1 - same), axis=-1)
    return (others + own) / k if pairing == "group" else others / (k - 1)


def centred(scores: Array, pairing: str = "group", share: Array | None = None) -> Array:
    r"""Return scores shifted to the scale of win rates, which removes the unknown constant (theory 7.2).

    "group" and "independent" subtract the mean over the responses to the prompt, "leave-one-out" the mean over the
    *other* responses, and all add 1/2, the mean win rate under a constant-sum preference. "constant" subtracts nothing:
    at ``beta = 0`` it takes the normaliser to be that of a payoff of 1/2, as SPPO does, which is not the exact step
    (theory 7.4); for ``beta > 0`` the caller must first add the normaliser of the mixture with the reference. Responses
    that were not sampled from the policy are averaged with their importance weights `share`, which sum to one.
    """
    if pairing == "constant":
        return scores + 0.5
    xp = array_namespace(scores)
    if share is not None:
        return scores - xp.sum(share * scores, axis=-1, keepdims=True) + 0.5
    k = scores.shape[-1]
    out = scores - xp.mean(scores, axis=-1, keepdims=True)
    return (out * (k / (k - 1)) if pairing == "leave-one-out" else out) + 0.5


# -- risks ---------------------------------------------------------------------------------------------------


def risk(score: Array, label: Array, kind: str = "squared", floor: float = SCORE_FLOOR) -> Array:
    r"""Return the risk of a score for a label in [0, 1], entrywise (theory 7.3).

    Its derivative by the score `s` at label `c` is :math:`(s-c)/v(s)`. For ``"squared"`` :math:`v=1`; for ``"kl"``, the
    cross-entropy of a Bernoulli variable, :math:`v=\max(s(1-s),\delta(1-\delta))` with :math:`\delta` the `floor`; for
    ``"nce"``, which tells winners from samples of the current policy, :math:`v=s(1+2s)/2`, not below its value at
    :math:`\delta`. Since `v` does not depend on the label, each risk is proper: for labels of mean `w` the minimiser is
    :math:`s=w`, for every `w` in [0, 1].

    Raises
    ------
    ValueError
        If `kind` is not one of `RISKS`.
    """
    if kind == "squared":
        return (score - label) ** 2 / 2
    xp = array_namespace(score)
    if kind == "kl":
        inner = xp.clip(score, floor, 1 - floor)
        curve = -label * xp.log(inner) - (1 - label) * xp.log(1 - inner)
    elif kind == "nce":
        inner = xp.clip(score, floor, None)
        curve = -2 * label * xp.log(inner) + (1 + 2 * label) * xp.log(1 + 2 * inner)
    else:
        raise ValueError(f"risk must be one of {', '.join(map(repr, RISKS))}, but it is {kind!r}.")
    tail, v = score - inner, _variance_at_floor(kind, floor)
    return curve + tail * (inner - label) / v + tail**2 / (2 * v)


def risk_slope(score: Array, label: Array, kind: str = "squared", floor: float = SCORE_FLOOR) -> Array:
    """Return the derivative of `risk` by the score, for optimisers without automatic differentiation."""
    if kind == "squared":
        return score - label
    xp = array_namespace(score)
    if kind == "kl":
        inner = xp.clip(score, floor, 1 - floor)
        return (score - label) / (inner * (1 - inner))
    if kind == "nce":
        inner = xp.clip(score, floor, None)
        return (score - label) / (inner * (1 + 2 * inner) / 2)
    raise ValueError(f"risk must be one of {', '.join(map(repr, RISKS))}, but it is {kind!r}.")


def _variance_at_floor(kind: str, floor: float) -> float:
    return floor * (1 - floor) if kind == "kl" else floor * (1 + 2 * floor) / 2


def regression_risk(
    log_policy: Array,
    log_start: Array,
    log_ref: Array,
    label: Array,
    *,
    beta: Any,
    eta: Any,
    pairing: str = "group",
    kind: str = "squared",
    floor: float = SCORE_FLOOR,
) -> Array:
    r"""Return the risk of each response when a policy is regressed onto one target step, shape ``(..., K)``.

    WIND's sampled step (the paper's Algorithm 3, theory 7.1) with any of its risks; SPPO with ``beta=0,
    pairing="constant"``; iterative best-of-n by regression with centred log win rates as labels. The arrays hold the
    log-probabilities of the `K` responses to a prompt along the last axis; only `log_policy` depends on the parameters.
    """
    score = centred(implied_payoff(log_policy, log_start, log_ref, beta=beta, eta=eta), pairing)
    return risk(score, label, kind, floor)


# -- objectives that weigh log-likelihoods --------------------------------------------------------------------


def jbond_weights(
    worse_than_both: Array, log_policy: Array, log_anchor: Array, *, gamma: float = 0.0
) -> tuple[float, Array]:
    r"""Return the weights of J-BOND for :math:`\log\pi` at the better of two anchor responses and at the policy's own.

    A step ascends ``forward * log pi(better anchor response) + backward * log pi(own response)`` with the weights held
    fixed. It descends Jeffreys' divergence, with weight 1/2, to the best of two of the anchor, plus `gamma` times the
    divergence to the anchor (Sessa et al. 2024; theory 7.5). Without ties the best of two has log-density
    :math:`\log(2q)` at anchor quantile `q`. Its estimate is a reward, :math:`-\log16` if the response loses to both
    anchor responses and 0 otherwise, whose mean :math:`-\log16\,(1-q)^2` equals :math:`\log q` at 1/2 and at 1.

    Parameters
    ----------
    worse_than_both : array, shape ``(..., K)``
        1 where the policy's response is worse than both of two fresh anchor responses.
    log_policy, log_anchor : arrays, shape ``(..., K)``
        Log-probabilities of the policy's responses.
    gamma : float
        Weight of the divergence to the anchor.

    Returns
    -------
    forward : float
    backward : array, shape ``(..., K)``
    """
    reward = -log(16) * worse_than_both + log(2)
    ratio = log_policy - log_anchor
    return 0.5, 0.5 * (reward - ratio) - gamma * ratio


def reinforce_weights(reward: Array, log_policy: Array, log_ref: Array, *, beta: float) -> Array:
    r"""Return the weights of :math:`\log\pi(y_k)` in the policy gradient of :math:`E[r]-\beta KL(\pi\|\rho)`.

    The baseline is the mean of the other responses to the prompt (leave-one-out), so `K` must be at least 2.
    """
    xp = array_namespace(reward)
    value = reward - beta * (log_policy - log_ref)
    k = value.shape[-1]
    return (value - xp.mean(value, axis=-1, keepdims=True)) * (k / (k - 1))


def clipped_surrogate(log_ratio: Array, advantage: Array, clip: float = 0.2) -> Array:
    r"""Return the loss :math:`-\min(wA, \mathrm{clip}(w,1-\epsilon,1+\epsilon)A)` of PPO, with :math:`w` the ratio.

    `log_ratio` is the log-probability minus that of the policy that was sampled, of a response or of each token. At
    ratio 1 the gradient is that of :math:`-A\log\pi`.
    """
    xp = array_namespace(log_ratio)
    ratio = xp.exp(log_ratio)
    return -xp.minimum(ratio * advantage, xp.clip(ratio, 1 - clip, 1 + clip) * advantage)


def group_advantages(reward: Array, scale: bool = True, floor: float = 1e-4) -> Array:
    """Return GRPO's advantages: rewards minus their mean over the responses to the prompt, shape ``(..., K)``.

    With `scale` they are divided by the standard deviation (of `K - 1`) plus `floor`, as published; without, as in
    Dr. GRPO.
    """
    xp = array_namespace(reward)
    out = reward - xp.mean(reward, axis=-1, keepdims=True)
    return out / (xp.std(reward, axis=-1, correction=1, keepdims=True) + floor) if scale else out


def excess(log_policy: Array, log_ref: Array) -> Array:
    r"""Return :math:`\rho/\pi-1-\log(\rho/\pi)`, GRPO's penalty of a token.

    Its mean under the policy is the KL divergence.

    Its *gradient* in GRPO, where the samples do not depend on the parameters, has the mean
    :math:`\nabla KL(\rho\|\pi)`: that of the other divergence.
    """
    xp = array_namespace(log_policy)
    ratio = log_ref - log_policy
    return xp.expm1(ratio) - ratio


def pair_risk(log_policy: Array, log_ref: Array, outcomes: Array, *, beta: Any, kind: str = "dpo") -> Array:
    r"""Return the risk of each ordered pair of responses, shape ``(..., K, K)``, of DPO or IPO.

    With :math:`h_{ij}=\log(\pi_i/\rho_i)-\log(\pi_j/\rho_j)` and labels of probability :math:`P_{ij}`, DPO's is
    :math:`-P_{ij}\log\sigma(\beta h_{ij})-P_{ji}\log\sigma(-\beta h_{ij})`, IPO's
    :math:`P_{ij}(h_{ij}-\tfrac1{2\beta})^2+P_{ji}(h_{ij}+\tfrac1{2\beta})^2`, its `tau` being `beta`.

    Raises
    ------
    ValueError
        If `kind` is not "dpo" or "ipo".
    """
    xp = array_namespace(log_policy)
    ratio = log_policy - log_ref
    gap = ratio[..., :, None] - ratio[..., None, :]
    if kind == "dpo":
        zero = xp.zeros_like(gap)
        return outcomes * xp.logaddexp(zero, -beta * gap) + (1 - outcomes) * xp.logaddexp(zero, beta * gap)
    if kind == "ipo":
        return outcomes * (gap - 0.5 / beta) ** 2 + (1 - outcomes) * (gap + 0.5 / beta) ** 2
    raise ValueError(f"kind must be 'dpo' or 'ipo', but it is {kind!r}.")

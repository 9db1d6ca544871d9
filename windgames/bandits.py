r"""Learning from samples: contextual bandits whose equilibria are known exactly.

A learner sees prompts (contexts), draws responses from its own policy and asks an :class:`Oracle` which of two is
better. The oracle counts. The game that grades the learner knows everything, so that every learner is priced by its
true distance to a proven equilibrium.

- Regression of any rule: :class:`Regress` turns the stages of a rule of `windgames.updates` into regressions on what
  was seen. WIND's sampled algorithm (the paper's Algorithm 3) is ``Regress(wind(eta))``, with squared, KL or NCE risk;
  SPPO is ``Regress(sppo(eta), pairing="constant")``, iterative BOND by log-quantiles ``Regress(iterative_bon(...))``,
  Nash-MD ``Regress(nash_md(eta), opponents=8)``.
- Likelihood ascent: :class:`JBond`, :class:`Distil` (iterative best-of-n by maximum likelihood), :class:`Reinforce`.

Policies are tables or log-linear in features. Leading axes before the contexts are independent replicates, which run
together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Literal, Protocol

import numpy as np

from ._array import kl, log_normalize, logsumexp, safe_log
from .games import Game, LogWinRateGame, WinRateGame
from .objectives import (
    PAIRINGS,
    RISKS,
    centred,
    implied_payoff,
    jbond_weights,
    reinforce_weights,
    risk,
    risk_slope,
    win_rates,
)
from .oracles import BudgetExhausted, Oracle
from .preferences import RewardPreference
from .solve import Solution
from .updates import Rule, Stage, target

__all__ = ["Distil", "JBond", "Learner", "LogLinear", "Regress", "Reinforce", "Run", "Seen", "Tabular", "draw", "run"]

# -- policies --------------------------------------------------------------------------------------------------


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
        return target(theta, self.log_ref, np.zeros_like(theta), beta=_column(stage.beta), eta=_column(stage.eta))

    def only(self, new: np.ndarray, old: np.ndarray, contexts: Any) -> np.ndarray:
        """Return the old parameters with the new ones of these contexts."""
        out = old.copy()
        out[..., contexts, :] = new[..., contexts, :]
        return out

    def gradient(self, theta: np.ndarray, y: np.ndarray, w: np.ndarray, contexts: Any = slice(None)) -> np.ndarray:
        r"""Return the gradient of :math:`\sum_k w_k\log\pi_\theta(y_k)`, shape of `theta`."""
        policy = np.exp(self.log_policy(theta, contexts))
        out = np.zeros_like(theta)
        out[..., contexts, :] = _scatter(y, w, theta.shape[-1]) - np.sum(w, axis=-1, keepdims=True) * policy
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
        count = _scatter(seen.y, np.ones(seen.y.shape), m)
        k = seen.y.shape[-1]
        label = (seen.label - 0.5) * (k - 1) / k + 0.5 if seen.pairing == "leave-one-out" else seen.label
        payoff = _scatter(seen.y, label, m) / np.maximum(count, 1)
        beta, eta = _column(stage.beta, at), _column(stage.eta, at)
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
        return theta / (1 + _one(stage.beta) * _one(stage.eta))

    def only(self, new: np.ndarray, old: np.ndarray, contexts: Any) -> np.ndarray:
        return new  # contexts share parameters

    def gradient(self, theta: np.ndarray, y: np.ndarray, w: np.ndarray, contexts: Any = slice(None)) -> np.ndarray:
        policy = np.exp(self.log_policy(theta, contexts))
        weight = _scatter(y, w, policy.shape[-1]) - np.sum(w, axis=-1, keepdims=True) * policy
        return np.einsum("...cm,cmd->...d", weight, self.features[contexts])

    def least_squares(self, theta: np.ndarray, seen: Seen, start: np.ndarray, stage: Stage) -> np.ndarray:
        """Minimise the squared risk from `theta` on: linear least squares, since centring removes the normaliser."""
        at = seen.contexts
        log_policy, log_start = self.log_policy(theta, at), self.log_policy(start, at)
        short = _residual(seen, log_policy, log_start, self.log_ref[at], stage)
        x = self.design(seen) * (1 / _one(stage.eta) + _one(stage.beta))
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
        x = self.design(seen).reshape(-1, self.features.shape[-1]) * (1 / _one(stage.eta) + _one(stage.beta))
        w = 1.0 if seen.weight is None else seen.weight.reshape(-1, 1)
        return float(self._ridge((x * w).T @ x))

    def design(self, seen: Seen) -> np.ndarray:
        """Return the features of the draws, centred as the scores are, shape ``(..., contexts, K, d)``."""
        features = self.features[seen.contexts]
        x = features[np.arange(len(features))[:, None], seen.y]
        share = None if seen.share is None else seen.share[..., None, :]
        return np.swapaxes(centred(np.swapaxes(x, -1, -2), seen.pairing, share), -1, -2) - 0.5


def _one(x: Any) -> float:
    values = np.unique(np.asarray(x, dtype=float))
    if len(values) != 1:
        raise ValueError(
            f"A log-linear policy shares parameters over contexts: beta and eta must be one number, not {x}."
        )
    return float(values[0])


def _column(x: Any, contexts: Any = slice(None)) -> Any:
    x = np.asarray(x, dtype=float)
    return float(x) if x.ndim == 0 else x[contexts][..., None]


def _scatter(y: np.ndarray, w: np.ndarray, m: int) -> np.ndarray:
    """Return the sums of `w` by response, shape ``(..., m)``."""
    rows = int(np.prod(y.shape[:-1]))
    cell = y.reshape(rows, -1) + np.arange(rows)[:, None] * m
    out = np.bincount(cell.ravel(), np.broadcast_to(w, y.shape).ravel(), minlength=rows * m)
    return out.reshape(*y.shape[:-1], m)


Policy = Tabular | LogLinear

# -- one round of sampling -------------------------------------------------------------------------------------


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


def _centred(x: np.ndarray, seen: Seen) -> np.ndarray:
    return centred(x, seen.pairing, seen.share)


def _take(log_policy: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.take_along_axis(np.broadcast_to(log_policy, (*y.shape[:-1], log_policy.shape[-1])), y, axis=-1)


def _residual(seen: Seen, log_policy: np.ndarray, log_start: np.ndarray, log_ref: np.ndarray, stage: Stage) -> Any:
    """Return label minus score, both centred."""
    lp, ls, lr = (_take(x, seen.y) for x in (log_policy, log_start, log_ref))
    raw = implied_payoff(lp, ls, lr, beta=_column(stage.beta, seen.contexts), eta=_column(stage.eta, seen.contexts))
    return _label(seen) - _centred(raw, seen)


def _label(seen: Seen) -> np.ndarray:
    """Return the labels; those of independent opponents do not average to 1/2 by themselves."""
    return _centred(seen.label, seen) if seen.pairing == "independent" else seen.label


def draw(log_policy: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return `n` independent draws, shape ``(..., n)``."""
    cdf = np.cumsum(np.exp(log_policy), axis=-1)
    cdf /= cdf[..., -1:]
    return np.sum(rng.random((*log_policy.shape[:-1], n))[..., None] >= cdf[..., None, :-1], axis=-1)


# -- learners --------------------------------------------------------------------------------------------------


class Learner(Protocol):
    """Anything that turns a round of questions into new parameters."""

    name: str

    def start(self, policy: Policy, game: Game, replicates: tuple[int, ...]) -> dict[str, Any]:
        """Return the state; ``state["current"]`` holds the parameters of the policy."""
        ...

    def step(
        self, state: dict[str, Any], policy: Policy, game: Game, oracle: Oracle, contexts: Any, rng: np.random.Generator
    ) -> dict[str, Any]:
        """Return the state after one round on these contexts; ``state["draws"]`` counts sampled responses."""
        ...


@dataclass(frozen=True)
class Regress:
    r"""Any rule of `windgames.updates`, its stages regressed on samples (theory 7.1).

    Parameters
    ----------
    rule : Rule, or callable from the round's number to a Rule
        A callable makes step sizes fall, as in theory 7.7.
    draws : int
        Responses `K` per context and round.
    opponents : int, "all" or None
        None lets the draws play each other, `K(K-1)/2` queries per context; an integer `J` draws that many fresh
        opponents from the policies that the rule names, `K J` queries; "all" asks about every response and weighs by
        the policy, the exact win rate of a certain oracle.
    pairing : str
        How win rates and centring go together, one of `objectives.PAIRINGS`; None takes "group", or "independent"
        with opponents.
    risk : {"squared", "kl", "nce"}
    sampler : {"policy", "mixture", "all"}
        Where the responses come from: the policy; half of the time the reference, with importance weights; or every
        response once. Coverage decides the floor (theory 7.8).
    unseen : {"keep", "half"}
        What a table does with responses that were not drawn: leave them, or treat their win rate as 1/2.
    reuse : int
        Rounds that the same comparisons serve, opponents weighted by the ratio of the policy to the one that drew them.
        Unbiased for a policy that has not learned from them; after a step it has, and some bias is the price.
    """

    rule: Rule | Callable[[int], Rule]
    draws: int = 8
    opponents: int | Literal["all"] | None = None
    pairing: str | None = None
    risk: str = "squared"
    sampler: str = "policy"
    unseen: str = "keep"
    reuse: int = 1
    name: str = ""

    def __post_init__(self) -> None:
        pairing = self.pairing or ("group" if self.opponents is None else "independent")
        object.__setattr__(self, "pairing", pairing)
        _one_of("pairing", pairing, PAIRINGS)
        _one_of("risk", self.risk, RISKS)
        _one_of("sampler", self.sampler, ("policy", "mixture", "all"))
        _one_of("unseen", self.unseen, ("keep", "half"))
        _at_least("draws", self.draws, 1 if self.opponents is not None else 2)
        _at_least("reuse", self.reuse, 1)
        if self.opponents is None and (self.sampler != "policy" or pairing == "independent"):
            raise ValueError(
                f"sampler={self.sampler!r} with pairing={pairing!r} needs opponents of its own: pass opponents."
            )
        if self.opponents is not None and pairing in ("group", "leave-one-out"):
            raise ValueError(f"pairing={pairing!r} lets the draws play each other: leave opponents out.")
        if self.opponents not in (None, "all"):
            _at_least("opponents", self.opponents, 1)
        if self.reuse > 1 and self.opponents in (None, "all"):
            raise ValueError("Comparisons are reused by re-weighing their opponents: pass an integer opponents.")
        if self.unseen == "half" and (pairing == "constant" or (pairing == "independent" and self.risk != "squared")):
            raise ValueError("unseen='half' needs a risk with a closed form: the squared one, centred.")
        if not self.name:
            object.__setattr__(self, "name", self._rule(0).name)

    def _rule(self, t: int) -> Rule:
        return self.rule if isinstance(self.rule, Rule) else self.rule(t)

    def start(self, policy: Policy, game: Game, replicates: tuple[int, ...]) -> dict[str, Any]:
        if not isinstance(game, WinRateGame | LogWinRateGame):
            raise ValueError(f"Samples estimate win rates: learn on a WinRateGame or a LogWinRateGame, not {game!r}.")
        if self.unseen == "half" and not isinstance(policy, Tabular):
            raise ValueError("unseen='half' is for a table: a log-linear policy moves unseen responses as it must.")
        self._rule(0).plan(game)
        theta = policy.start(replicates)
        return {"current": theta, "previous": theta, "t": 0, "draws": 0, "kept": {}}

    def step(
        self, state: dict[str, Any], policy: Policy, game: Game, oracle: Oracle, contexts: Any, rng: np.random.Generator
    ) -> dict[str, Any]:
        slots = dict(state)
        fresh = state["t"] % self.reuse == 0
        kept = {} if fresh else state["kept"]
        plan = self._rule(state["t"]).plan(game)
        for i, stage in enumerate(plan.stages):
            if not stage.against:
                slots[stage.out] = policy.mixed(slots[stage.start], stage)
                continue
            if i not in kept:
                kept[i] = self._ask(slots, stage, policy, game, oracle, contexts, rng)
                slots["draws"] += kept[i]["draws"]
            seen = self._label(kept[i], slots, policy, game)
            slots[stage.out] = self._fit(policy, slots[stage.start], seen, stage)
        return {
            "current": policy.only(slots["current"], state["current"], contexts),
            "previous": state["current"],
            "t": state["t"] + 1,
            "draws": slots["draws"],
            "kept": kept,
        }

    def _ask(
        self,
        slots: dict[str, Any],
        stage: Stage,
        policy: Policy,
        game: Game,
        oracle: Oracle,
        contexts: Any,
        rng: np.random.Generator,
    ) -> dict[str, Any]:
        """Draw responses and opponents, and compare them."""
        log_policy = policy.log_policy(slots[stage.start], contexts)
        m = log_policy.shape[-1]
        if self.sampler == "all":
            y = np.broadcast_to(np.arange(m), log_policy.shape)
        elif self.sampler == "mixture":
            log_half = np.logaddexp(log_policy, policy.log_ref[contexts]) - np.log(2)
            y = draw(log_half, self.draws, rng)
        else:
            y = draw(log_policy, self.draws, rng)
        weight = None
        if self.sampler == "mixture":
            weight = np.exp(_take(log_policy, y) - _take(log_half, y))
        elif self.sampler == "all":
            weight = np.exp(log_policy)
        asked: dict[str, Any] = {"contexts": contexts, "y": y, "weight": weight, "games": [], "draws": y.size}
        if self.sampler == "all":
            asked["draws"] = 0
        if self.opponents is None:
            if dict(stage.against) != {stage.start: 1.0}:
                raise ValueError(
                    f"{self.name} plays against other policies than its own ({', '.join(stage.against)}): "
                    f"pass opponents."
                )
            asked["games"].append((1.0, stage.start, None, None, _round_robin(y, oracle, contexts, rng)))
            return asked
        for slot, factor in stage.against.items():
            log_other = policy.log_policy(slots[slot], contexts)
            if self.opponents == "all":
                other = np.broadcast_to(np.arange(m), log_other.shape)
            else:
                other = draw(log_other, self.opponents, rng)
                asked["draws"] += other.size
            outcomes = _all_pairs(y, other, oracle, contexts, rng)
            asked["games"].append((_column(factor, contexts), slot, other, log_other, outcomes))
        return asked

    def _label(self, asked: dict[str, Any], slots: dict[str, Any], policy: Policy, game: Game) -> Seen:
        """Turn outcomes into labels on the scale of the payoff."""
        log_payoff = isinstance(game, LogWinRateGame)
        weak = isinstance(game.preference, RewardPreference) and game.preference.ties == "weak"
        label: Any = 0.0
        assert self.pairing is not None
        for factor, slot, other, log_other, outcomes in asked["games"]:
            if weak:  # a draw does not lose to its equals, nor to itself
                outcomes = np.where(outcomes == 0.5, 1.0, outcomes)
            if other is None:
                rate = win_rates(outcomes, "group" if log_payoff else self.pairing, 1.0 if weak else 0.5)
            else:
                now = policy.log_policy(slots[slot], asked["contexts"])
                if self.opponents == "all":
                    log_rate = logsumexp(safe_log(outcomes) + now[..., None, :])
                    label = label + factor * (log_rate if log_payoff else np.exp(log_rate))
                    continue
                v = np.exp(_take(now, other) - _take(log_other, other))  # 1 unless the comparisons are reused
                rate = np.mean(outcomes * v[..., None, :], axis=-1)
                if log_payoff:  # a draw is among its own opponents: no log of zero
                    rate = (rate * other.shape[-1] + (1.0 if weak else 0.5)) / (other.shape[-1] + 1)
            label = label + factor * (np.log(rate) if log_payoff else rate)
        seen = Seen(asked["contexts"], asked["y"], label, asked["weight"], self.pairing)
        return replace(seen, label=_centred(label, seen)) if log_payoff else seen

    def _fit(self, policy: Policy, start: np.ndarray, seen: Seen, stage: Stage) -> np.ndarray:
        # On a table the three risks have one minimiser if the labels are those of one group (theory 7.3).
        one_group = isinstance(policy, Tabular) and self.pairing in ("group", "leave-one-out")
        if one_group or (self.risk == "squared" and self.pairing != "constant"):
            if isinstance(policy, Tabular):
                return policy.least_squares(start, seen, start, stage, self.unseen)
            return policy.least_squares(start, seen, start, stage)
        return _minimise(policy, start, seen, stage, self.risk)


def _minimise(policy: Policy, start: np.ndarray, seen: Seen, stage: Stage, kind: str) -> np.ndarray:
    """Minimise a risk by L-BFGS from `start`, replicate by replicate, with the exact gradient."""
    from scipy.optimize import minimize  # here, since it would double the time of `import windgames`

    size = policy.start().shape
    flat = start.reshape(-1, *size).copy()
    y, label, weight = (
        None if x is None else x.reshape(len(flat), *seen.y.shape[-2:]) for x in (seen.y, _label(seen), seen.weight)
    )
    assert y is not None
    assert label is not None
    for i, theta in enumerate(flat):
        one = Seen(seen.contexts, y[i], label[i], None if weight is None else weight[i], seen.pairing)
        found = minimize(
            _objective(policy, theta, one, stage, kind),
            theta.ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 200, "gtol": 1e-9},
        )
        flat[i] = found.x.reshape(size)
    return flat.reshape(start.shape)


def _objective(
    policy: Policy, start: np.ndarray, seen: Seen, stage: Stage, kind: str
) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Return the risk of one replicate, and its gradient, as a function of the flat parameters."""
    at, w = seen.contexts, 1.0 if seen.weight is None else seen.weight
    beta, eta = _column(stage.beta, at), _column(stage.eta, at)
    log_start, log_ref = policy.log_policy(start, at), policy.log_ref[at]
    shift: Any = 0.0
    if seen.pairing == "constant":  # the mixture's own normaliser is known; the payoff's is taken to be that of 1/2
        mixture = target(log_start, log_ref, np.zeros_like(log_start), beta=beta, eta=eta)
        shift = (1 / eta + beta) * logsumexp(mixture, keepdims=True)
    log_start, log_ref = (_take(x, seen.y) for x in (log_start, log_ref))
    ridge = policy.pull(seen, stage)

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        theta = x.reshape(start.shape)
        log_policy = _take(policy.log_policy(theta, at), seen.y)
        score = _centred(implied_payoff(log_policy, log_start, log_ref, beta=beta, eta=eta) + shift, seen)
        slope = w * risk_slope(score, seen.label, kind)
        # the transpose of centring: of equal weights it is centring itself
        if seen.share is None:
            pull = centred(slope, seen.pairing) - 0.5
        else:
            pull = slope - seen.share * np.sum(slope, axis=-1, keepdims=True) * (seen.pairing != "constant")
        gradient = policy.gradient(theta, seen.y, (1 / eta + beta) * pull, at) + ridge * (theta - start)
        total = np.sum(w * risk(score, seen.label, kind)) + ridge * np.sum((theta - start) ** 2) / 2
        return float(total), gradient.ravel()

    return value


def _round_robin(y: np.ndarray, oracle: Oracle, contexts: Any, rng: np.random.Generator) -> np.ndarray:
    """Return the outcomes of all pairs of draws, one query a pair, shape ``(..., K, K)``."""
    k = y.shape[-1]
    i, j = np.triu_indices(k, 1)
    got = oracle.compare(y[..., i], y[..., j], rng, contexts)
    out = np.full((*y.shape, k), 0.5)
    out[..., i, j], out[..., j, i] = got, 1 - got
    return out


def _all_pairs(y: np.ndarray, other: np.ndarray, oracle: Oracle, contexts: Any, rng: np.random.Generator) -> np.ndarray:
    """Return the outcomes of every draw against every opponent, shape ``(..., K, J)``."""
    k, j = y.shape[-1], other.shape[-1]
    got = oracle.compare(np.repeat(y, j, axis=-1), np.tile(other, k), rng, contexts)
    return got.reshape(*y.shape, j)


def _one_of(name: str, value: Any, options: Sequence[str]) -> None:
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, but it is {value!r}.")


def _at_least(name: str, value: Any, low: float) -> None:
    if not (isinstance(value, int | np.integer) and value >= low):
        raise ValueError(f"{name} must be an integer, at least {low}, but it is {value!r}.")


@dataclass(frozen=True)
class JBond:
    r"""J-BOND (Sessa et al. 2024; theory 7.5): ascend Jeffreys' divergence to the best of two of a moving anchor.

    Parameters
    ----------
    rate : float
        Step of gradient ascent on the parameters.
    draws : int
        Policy draws, and pairs of anchor draws, per context and round: two queries each.
    gamma : float
        Weight of the divergence to the anchor.
    anchor_rate : float
        The anchor's parameters move this share of the way to the policy's after each step.
    or_equal : bool
        Whether a draw that ties with the worse anchor draw counts as worse; the published reading is ambiguous.
    """

    rate: float
    draws: int = 8
    gamma: float = 0.0
    anchor_rate: float = 0.02
    or_equal: bool = False
    name: str = "J-BOND"

    def __post_init__(self) -> None:
        _positive("rate", self.rate)
        _at_least("draws", self.draws, 1)
        if not (self.gamma >= 0 and 0 <= self.anchor_rate <= 1):
            raise ValueError(
                f"gamma must be non-negative and anchor_rate in [0, 1], but they are {self.gamma}, {self.anchor_rate}."
            )

    def start(self, policy: Policy, game: Game, replicates: tuple[int, ...]) -> dict[str, Any]:
        theta = policy.start(replicates)
        return {"current": theta, "anchor": theta, "draws": 0}

    def step(
        self, state: dict[str, Any], policy: Policy, game: Game, oracle: Oracle, contexts: Any, rng: np.random.Generator
    ) -> dict[str, Any]:
        _needs_outcomes(self.name, oracle)
        theta, anchor = state["current"], state["anchor"]
        log_policy, log_anchor = policy.log_policy(theta, contexts), policy.log_policy(anchor, contexts)
        y, a, b = (draw(p, self.draws, rng) for p in (log_policy, log_anchor, log_anchor))
        first = oracle.compare(a, b, rng, contexts)
        best, worst = np.where(first >= 0.5, a, b), np.where(first >= 0.5, b, a)
        against = oracle.compare(y, worst, rng, contexts)
        worse = (against < 1.0) if self.or_equal else (against == 0.0)
        forward, backward = jbond_weights(worse, _take(log_policy, y), _take(log_anchor, y), gamma=self.gamma)
        gradient = policy.gradient(theta, best, np.full(y.shape, forward), contexts)
        gradient += policy.gradient(theta, y, backward, contexts)
        theta = theta + self.rate * _mean(gradient, y, policy)
        anchor = anchor + self.anchor_rate * (theta - anchor)
        return {"current": theta, "anchor": anchor, "draws": state["draws"] + 3 * y.size}


@dataclass(frozen=True)
class Distil:
    r"""Iterative best-of-n by maximum likelihood: raise the likelihood of the winners of `n` draws.

    A share of the likelihood may go to draws of the reference. In the mean the fixed point is
    :math:`\pi=(1-a)B_n(\pi)+a\rho`, an arithmetic mixture where iterative best-of-n has a geometric one.

    Parameters
    ----------
    n : int
        Draws per winner, `n - 1` queries: a knock-out in the order of drawing, which for a reward finds the best.
    rate : float
        Step of gradient ascent on the parameters.
    draws : int
        Winners per context and round.
    reference_share : float
        The share `a`.
    """

    n: int
    rate: float
    draws: int = 4
    reference_share: float = 0.0
    name: str = "best-of-n distillation"

    def __post_init__(self) -> None:
        _positive("rate", self.rate)
        _at_least("n", self.n, 2)
        _at_least("draws", self.draws, 1)
        if not 0 <= self.reference_share < 1:
            raise ValueError(f"reference_share must lie in [0, 1), but it is {self.reference_share}.")

    def start(self, policy: Policy, game: Game, replicates: tuple[int, ...]) -> dict[str, Any]:
        return {"current": policy.start(replicates), "draws": 0}

    def step(
        self, state: dict[str, Any], policy: Policy, game: Game, oracle: Oracle, contexts: Any, rng: np.random.Generator
    ) -> dict[str, Any]:
        _needs_outcomes(self.name, oracle)
        theta = state["current"]
        log_policy = policy.log_policy(theta, contexts)
        best = draw(log_policy, self.draws, rng)
        for _ in range(self.n - 1):
            rival = draw(log_policy, self.draws, rng)
            best = np.where(oracle.compare(best, rival, rng, contexts) >= 0.5, best, rival)
        a = self.reference_share
        gradient = policy.gradient(theta, best, np.full(best.shape, 1 - a), contexts)
        if a:
            usual = draw(np.broadcast_to(policy.log_ref[contexts], log_policy.shape), self.draws, rng)
            gradient += policy.gradient(theta, usual, np.full(best.shape, a), contexts)
        theta = theta + self.rate * _mean(gradient, best, policy)
        return {"current": theta, "draws": state["draws"] + (self.n + bool(a)) * best.size}


@dataclass(frozen=True)
class Reinforce:
    r"""REINFORCE with the price of leaving the reference in the reward, the familiar yardstick.

    Parameters
    ----------
    rate : float
        Step of gradient ascent on the parameters.
    draws : int
        Draws per context and round, at least 2: each other's baseline.
    signal : {"score", "comparison"}
        "score" asks for rewards and ascends :math:`E[r]-\beta KL(\pi\|\rho)`, whose maximiser is not the game's
        equilibrium; "comparison" plays each draw against a fresh one of the policy, and its fixed point is.
    """

    rate: float
    draws: int = 8
    signal: str = "score"
    name: str = "REINFORCE"

    def __post_init__(self) -> None:
        _positive("rate", self.rate)
        _at_least("draws", self.draws, 2)
        _one_of("signal", self.signal, ("score", "comparison"))

    def start(self, policy: Policy, game: Game, replicates: tuple[int, ...]) -> dict[str, Any]:
        return {"current": policy.start(replicates), "draws": 0}

    def step(
        self, state: dict[str, Any], policy: Policy, game: Game, oracle: Oracle, contexts: Any, rng: np.random.Generator
    ) -> dict[str, Any]:
        theta = state["current"]
        log_policy = policy.log_policy(theta, contexts)
        y = draw(log_policy, self.draws, rng)
        drawn = y.size
        if self.signal == "score":
            reward = oracle.score(y, contexts)
        else:
            reward = oracle.compare(y, draw(log_policy, self.draws, rng), rng, contexts)
            drawn *= 2
        beta = _column(np.broadcast_to(np.asarray(game.beta, dtype=float), policy.log_ref.shape[:1]), contexts)
        weights = reinforce_weights(reward, _take(log_policy, y), _take(policy.log_ref[contexts], y), beta=beta)
        gradient = policy.gradient(theta, y, weights, contexts)
        return {"current": theta + self.rate * _mean(gradient, y, policy), "draws": state["draws"] + drawn}


def _needs_outcomes(name: str, oracle: Oracle) -> None:
    if oracle.certain and not isinstance(oracle.preference, RewardPreference):
        raise ValueError(f"{name} needs wins and losses, but this oracle answers with probabilities (certain=True).")


def _mean(gradient: np.ndarray, y: np.ndarray, policy: Policy) -> np.ndarray:
    """Average a gradient over draws, and over contexts where they share parameters."""
    return gradient / (y.shape[-1] if isinstance(policy, Tabular) else y.shape[-1] * y.shape[-2])


def _positive(name: str, value: Any) -> None:
    if not 0 < value < inf:
        raise ValueError(f"{name} must be positive and finite, but it is {value!r}.")


# -- running a learner -----------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Run:
    """What the game said of a learner as it went on.

    `steps`, `queries`, `draws` and `seconds` have one entry a record; queries and draws are per replicate, seconds
    those of learning alone, all replicates together. `trace` holds arrays of shape ``(records, ..., contexts)``.
    """

    learner: Learner
    game: Game
    steps: np.ndarray
    queries: np.ndarray
    draws: np.ndarray
    seconds: np.ndarray
    trace: dict[str, np.ndarray]
    theta: np.ndarray
    log_policy: np.ndarray
    status: str

    def mean(self, name: str) -> np.ndarray:
        """Return a quantity averaged over contexts, shape ``(records, replicates...)``."""
        return np.mean(self.trace[name], axis=-1)

    def __repr__(self) -> str:
        rows = [
            ("status", self.status),
            ("queries", f"{self.queries[-1]:,.0f}, responses drawn {self.draws[-1]:,.0f} (per replicate)"),
            ("seconds", f"{self.seconds[-1]:.2f}"),
            *((name, f"{np.mean(x[0]):.4g} -> {np.mean(x[-1]):.4g}") for name, x in self.trace.items()),
        ]
        width = max(len(name) for name, _ in rows)
        return f"Run of {self.learner.name} on {self.game!r}\n" + "\n".join(f"  {n:<{width}}  {t}" for n, t in rows)


def run(
    learner: Learner,
    game: Game,
    oracle: Oracle,
    rng: np.random.Generator,
    *,
    rounds: float = inf,
    queries: float = inf,
    seconds: float = inf,
    judge: Game | None = None,
    solution: Solution | np.ndarray | None = None,
    policy: Policy | None = None,
    replicates: int | None = None,
    prompts: int | None = None,
    records: int = 40,
) -> Run:
    r"""Let a learner learn, and grade it.

    Parameters
    ----------
    learner : Learner
    game : Game
        What the learner believes to play: its `beta`, its reference and, for default steps, its constants.
    oracle : Oracle
        Who answers. Its preference may be another than the judge's.
    rng : numpy.random.Generator
    rounds, queries : int
        Stop after this many rounds, or as soon as this many queries per replicate are used.
    seconds : float
        Stop as soon as learning has taken this long, grading not counted.
    judge : Game, optional
        The game that grades, `game` if None: its certificates, win rates and divergences are recorded.
    solution : Solution or array, optional
        The judge's equilibrium; computed if None.
    policy : Tabular or LogLinear, optional
        A table of the game's reference if None.
    replicates : int, optional
        Independent repetitions, run together on a leading axis.
    prompts : int, optional
        Contexts drawn in each round, the same in all replicates; all of them if None.
    records : int
        About how many times to grade, equally spaced in the logarithm of the progress.

    Returns
    -------
    Run
        With ``kl_from_solution``, ``kl_to_solution``, ``gap``, ``kl_certificate``, ``win_rate`` (against the
        reference), ``kl_ref``, ``entropy`` and, for rewards, ``top_mass``.

    Raises
    ------
    ValueError
        If neither rounds nor queries bound the run, or sizes do not fit.

    Examples
    --------
    >>> import numpy as np, windgames as wg
    >>> from windgames.bandits import Oracle, Regress, run
    >>> preference = wg.RewardPreference([[0.0, 1.0, 2.0, 3.0]])
    >>> game = wg.WinRateGame(preference, [[0.4, 0.3, 0.2, 0.1]], beta=0.2)
    >>> found = run(Regress(wg.wind(0.2)), game, Oracle(preference), np.random.default_rng(0), rounds=200)
    >>> bool(found.mean("kl_from_solution")[-1] < 0.1 * found.mean("kl_from_solution")[0])
    True
    """
    if min(rounds, queries, seconds, oracle.budget) == inf:
        raise ValueError("Nothing ends this run: pass rounds, queries, seconds, or an oracle with a budget.")
    judge = game if judge is None else judge
    if len(game.batch_shape) != 1 or judge.batch_shape != game.batch_shape:
        raise ValueError(
            f"A bandit has one axis of contexts, but the game has {game.batch_shape} and the judge "
            f"{judge.batch_shape}. Give a single context an axis of length 1."
        )
    (contexts,) = game.batch_shape
    if oracle.preference.n_responses != game.n_responses or oracle.preference.batch_shape not in ((), (contexts,)):
        raise ValueError(f"The oracle answers about {oracle.preference!r}, but the game is {game!r}.")
    if prompts is not None and not 1 <= prompts <= contexts:
        raise ValueError(f"prompts must lie between 1 and {contexts}, but it is {prompts}.")
    if policy is None:
        policy = Tabular(np.broadcast_to(game.log_ref, (contexts, game.n_responses)))
    if not np.allclose(np.exp(policy.log_ref), np.exp(game.log_ref), atol=1e-6):
        raise ValueError("The policy's reference is not the game's: build it from game.log_ref.")
    if solution is None:
        from .equilibria import equilibrium

        solution = equilibrium(judge)
    star = solution.log_policy if isinstance(solution, Solution) else np.asarray(solution)
    batch = () if replicates is None else (replicates,)
    grade = _Grader(judge, star)
    state = learner.start(policy, game, batch)
    size, answered = max(1, int(np.prod(batch))), oracle.queries
    marks: list[tuple[float, ...]] = [(0, 0, 0, 0.0)]
    grades = [grade(policy.log_policy(state["current"]))]
    step, spent, next_mark, used = 0, 0.0, 0.0, 0.0
    status = "Finished."
    while step < rounds and used < queries and spent < seconds:
        clock = time.perf_counter()
        at = slice(None) if prompts is None else np.sort(rng.choice(contexts, prompts, replace=False))
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is looked at below
                after = learner.step(state, policy, game, oracle, at, rng)
        except BudgetExhausted as stop:
            status = f"Stopped after {step} rounds: {stop}"
            break
        if not np.all(np.isfinite(after["current"])):
            status = f"Stopped after {step} rounds: the next step's parameters are not finite. Take smaller steps."
            break
        state = after
        spent += time.perf_counter() - clock
        step += 1
        used = (oracle.queries - answered) / size
        done = max(step / rounds, used / queries, spent / seconds)
        if done == 0:  # only the oracle's budget bounds the run
            done = oracle.queries / oracle.budget
        if done >= next_mark or done >= 1:
            next_mark = done * 1000 ** (1 / records)
            marks.append((step, used, state["draws"] / size, spent))
            grades.append(grade(policy.log_policy(state["current"])))
    if marks[-1][0] != step:
        marks.append((step, used, state["draws"] / size, spent))
        grades.append(grade(policy.log_policy(state["current"])))
    steps, asked, drawn, clocks = (np.asarray(x, dtype=float) for x in zip(*marks, strict=True))
    return Run(
        learner=learner,
        game=game,
        steps=steps.astype(int),
        queries=asked,
        draws=drawn,
        seconds=clocks,
        trace={name: np.stack([g[name] for g in grades]) for name in grades[0]},
        theta=state["current"],
        log_policy=policy.log_policy(state["current"]),
        status=status,
    )


class _Grader:
    """Everything that is known of a policy when the game is."""

    def __init__(self, game: Game, star: np.ndarray) -> None:
        self.game, self.star = game, star
        shape = (*game.batch_shape, game.n_responses)
        self.log_ref = np.broadcast_to(game.log_ref, shape)
        self.against_ref = game.preference.win_rate(self.log_ref)
        p = game.preference
        self.top = np.broadcast_to(p.top, shape) if isinstance(p, RewardPreference) else None

    def __call__(self, log_policy: np.ndarray) -> dict[str, np.ndarray]:
        p = np.exp(log_policy)
        out = {
            "kl_from_solution": kl(np.broadcast_to(self.star, log_policy.shape), log_policy),
            "kl_to_solution": kl(log_policy, self.star),
            **self.game.measure(log_policy),
            "win_rate": np.sum(p * self.against_ref, axis=-1),
            "kl_ref": kl(log_policy, self.log_ref),
            "entropy": -np.sum(p * np.where(p > 0, log_policy, 0.0), axis=-1),
        }
        if self.top is not None:
            out["top_mass"] = np.sum(p * self.top, axis=-1)
        return out

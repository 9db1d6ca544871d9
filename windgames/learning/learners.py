"""Learners: regression of any rule, and ascent of weighted log-likelihoods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from .._array import logsumexp, safe_log
from .._validation import at_least, one_of, positive_number
from ..games import Game, LogWinRateGame, WinRateGame
from ..objectives import (
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
from ..oracles import Oracle
from ..preferences import RewardPreference
from ..updates import Rule, Stage, is_rule, plan_of, target
from .labels import LabelledSamples, centred_label, centred_within, column, sample, take
from .policies import Policy, Tabular


class Learner(Protocol):
    """What `run` needs of a learner: a start and a step."""

    name: str

    def start(self, policy: Policy, game: Game, replicates: tuple[int, ...]) -> dict[str, Any]:
        """Return the initial state; ``state["current"]`` holds the parameters of the policy."""
        ...

    def step(
        self, state: dict[str, Any], policy: Policy, game: Game, oracle: Oracle, contexts: Any, rng: np.random.Generator
    ) -> dict[str, Any]:
        """Return the state after one round on these contexts; ``state["draws"]`` counts sampled responses."""
        ...


@dataclass(frozen=True)
class Regression:
    r"""Any rule of `windgames.rules`, each of its stages as a regression on samples (theory 7.1).

    Parameters
    ----------
    rule : Rule, or callable
        A callable maps the number of the round to a rule, for step sizes that decay (theory 7.7).
    draws : int
        Number `K` of responses per context and round.
    opponents : int, "all" or None
        None compares the responses with each other, `K(K-1)/2` queries per context. An integer `J` samples that many
        fresh opponents from the policies that the rule names, `K J` queries. "all" compares with every response and
        averages under the policy, which gives the exact win rate if the oracle is certain.
    pairing : str
        Estimator of win rates with the centring that fits it, one of `objectives.PAIRINGS`; None takes "group", or
        "independent" with opponents.
    risk : {"squared", "kl", "nce"}
        Loss between score and label (theory 7.3).
    sampler : {"policy", "mixture", "all"}
        Source of the responses: the policy; policy and reference in equal parts, with importance weights; or every
        response once. The coverage of the sampler decides how accurate the limit is (theory 7.8).
    unseen : {"keep", "half"}
        Treatment of responses that were not sampled, in a table: leave them, or set their win rate to 1/2.
    reuse : int
        Number of rounds that use the same comparisons, the opponents weighted by the ratio of the current policy to
        the one that sampled them. From the second of these rounds on the estimates are biased, since the policy has
        learned from the same comparisons.
    name : str
        Name in tables and reports; the rule's if empty.

    Raises
    ------
    ValueError
        If an option is unknown or out of range, or if the options do not go together.
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
        if not (is_rule(self.rule) or (callable(self.rule) and not isinstance(self.rule, type))):
            raise ValueError(
                f"rule must be a rule such as windgames.wind(), or a function from the round to one, "
                f"but it is {self.rule!r}."
            )
        pairing = self.pairing or ("group" if self.opponents is None else "independent")
        object.__setattr__(self, "pairing", pairing)
        one_of(pairing, "pairing", PAIRINGS)
        one_of(self.risk, "risk", RISKS)
        one_of(self.sampler, "sampler", ("policy", "mixture", "all"))
        one_of(self.unseen, "unseen", ("keep", "half"))
        at_least(self.draws, "draws", 1 if self.opponents is not None else 2)
        at_least(self.reuse, "reuse", 1)
        if self.opponents is None and (self.sampler != "policy" or pairing == "independent"):
            raise ValueError(
                f"sampler={self.sampler!r} with pairing={pairing!r} needs separate opponents: pass opponents."
            )
        if self.opponents is not None and pairing in ("group", "leave-one-out"):
            raise ValueError(f"pairing={pairing!r} compares the responses with each other: leave opponents out.")
        if self.opponents not in (None, "all"):
            at_least(self.opponents, "opponents", 1)
        if self.reuse > 1 and self.opponents in (None, "all"):
            raise ValueError("Comparisons are reused by re-weighting their opponents: pass an integer opponents.")
        if self.unseen == "half" and (pairing == "constant" or (pairing == "independent" and self.risk != "squared")):
            raise ValueError("unseen='half' needs a risk with a closed form: the squared risk with centring.")
        if not self.name:
            object.__setattr__(self, "name", self._rule(0).name)

    def _rule(self, t: int) -> Rule:
        return self.rule if isinstance(self.rule, Rule) else self.rule(t)

    def start(self, policy: Policy, game: Game, replicates: tuple[int, ...]) -> dict[str, Any]:
        if not isinstance(game, WinRateGame | LogWinRateGame):
            raise ValueError(f"Samples estimate win rates: use a WinRateGame or a LogWinRateGame, not {game!r}.")
        if self.unseen == "half" and not isinstance(policy, Tabular):
            raise ValueError("unseen='half' is for a table; in a LogLinear policy the features decide.")
        renewed = plan_of(self._rule(0), game).renew
        theta = policy.start(replicates)
        return {"current": theta, "previous": theta, **dict.fromkeys(renewed, theta), "t": 0, "draws": 0, "kept": {}}

    def step(
        self, state: dict[str, Any], policy: Policy, game: Game, oracle: Oracle, contexts: Any, rng: np.random.Generator
    ) -> dict[str, Any]:
        slots = dict(state)
        fresh = state["t"] % self.reuse == 0
        kept = {} if fresh else state["kept"]
        plan = self._rule(state["t"]).plan(game)
        for i, stage in enumerate(plan.stages):
            if not stage.against:
                slots[stage.out] = policy.mixed(slots[stage.start], stage, slots.get(stage.ref))
                continue
            if i not in kept:
                kept[i] = self._compare(slots, stage, policy, game, oracle, contexts, rng)
                slots["draws"] += kept[i]["draws"]
            samples = self._label(kept[i], slots, policy, game)
            slots[stage.out] = self._fit(policy, slots[stage.start], samples, stage, slots.get(stage.ref))
        current, t = policy.only(slots["current"], state["current"], contexts), state["t"] + 1
        return {
            "current": current,
            "previous": state["current"],
            **{slot: current if t % every == 0 else state[slot] for slot, every in plan.renew.items()},
            "t": t,
            "draws": slots["draws"],
            "kept": kept,
        }

    def _compare(
        self,
        slots: dict[str, Any],
        stage: Stage,
        policy: Policy,
        game: Game,
        oracle: Oracle,
        contexts: Any,
        rng: np.random.Generator,
    ) -> dict[str, Any]:
        """Sample responses and opponents, and compare them."""
        log_policy = policy.log_policy(slots[stage.start], contexts)
        m = log_policy.shape[-1]
        if self.sampler == "all":
            y = np.broadcast_to(np.arange(m), log_policy.shape)
        elif self.sampler == "mixture":
            log_half = np.logaddexp(log_policy, policy.log_ref[contexts]) - np.log(2)
            y = sample(log_half, self.draws, rng)
        else:
            y = sample(log_policy, self.draws, rng)
        weight = None
        if self.sampler == "mixture":
            weight = np.exp(take(log_policy, y) - take(log_half, y))
        elif self.sampler == "all":
            weight = np.exp(log_policy)
        compared: dict[str, Any] = {"contexts": contexts, "y": y, "weight": weight, "games": [], "draws": y.size}
        if self.sampler == "all":
            compared["draws"] = 0
        if self.opponents is None:
            if dict(stage.against) != {stage.start: 1.0}:
                raise ValueError(
                    f"{self.name} plays against other policies than its own ({', '.join(stage.against)}): "
                    f"pass opponents."
                )
            compared["games"].append((1.0, stage.start, None, None, _round_robin(y, oracle, contexts, rng)))
            return compared
        for slot, factor in stage.against.items():
            log_other = policy.log_policy(slots[slot], contexts)
            if self.opponents == "all":
                other = np.broadcast_to(np.arange(m), log_other.shape)
            else:
                other = sample(log_other, self.opponents, rng)
                compared["draws"] += other.size
            outcomes = _all_pairs(y, other, oracle, contexts, rng)
            compared["games"].append((column(factor, contexts), slot, other, log_other, outcomes))
        return compared

    def _label(self, compared: dict[str, Any], slots: dict[str, Any], policy: Policy, game: Game) -> LabelledSamples:
        """Turn outcomes into labels on the scale of the payoff."""
        log_payoff = isinstance(game, LogWinRateGame)
        weak = isinstance(game.preference, RewardPreference) and game.preference.ties == "weak"
        label: Any = 0.0
        assert self.pairing is not None
        for factor, slot, other, log_other, outcomes in compared["games"]:
            if weak:  # a tie counts as a win, and so does the comparison with itself
                outcomes = np.where(outcomes == 0.5, 1.0, outcomes)
            if other is None:
                rate = win_rates(outcomes, "group" if log_payoff else self.pairing, 1.0 if weak else 0.5)
            else:
                current = policy.log_policy(slots[slot], compared["contexts"])
                if self.opponents == "all":
                    log_rate = logsumexp(safe_log(outcomes) + current[..., None, :])
                    label = label + factor * (log_rate if log_payoff else np.exp(log_rate))
                    continue
                v = np.exp(take(current, other) - take(log_other, other))  # 1 unless comparisons are reused
                rate = np.mean(outcomes * v[..., None, :], axis=-1)
                if log_payoff:  # the response counts among its opponents, which avoids log 0
                    rate = (rate * other.shape[-1] + (1.0 if weak else 0.5)) / (other.shape[-1] + 1)
            label = label + factor * (np.log(rate) if log_payoff else rate)
        samples = LabelledSamples(compared["contexts"], compared["y"], label, compared["weight"], self.pairing)
        return replace(samples, label=centred_within(label, samples)) if log_payoff else samples

    def _fit(
        self, policy: Policy, start: np.ndarray, samples: LabelledSamples, stage: Stage, ref: np.ndarray | None
    ) -> np.ndarray:
        # in a table the three risks have the same minimiser if labels come from one group (theory 7.3)
        one_group = isinstance(policy, Tabular) and self.pairing in ("group", "leave-one-out")
        if one_group or (self.risk == "squared" and self.pairing != "constant"):
            if isinstance(policy, Tabular):
                return policy.least_squares(start, samples, start, stage, self.unseen, ref)
            return policy.least_squares(start, samples, start, stage, ref)
        return minimise(policy, start, samples, stage, self.risk, ref)


def minimise(
    policy: Policy, start: np.ndarray, samples: LabelledSamples, stage: Stage, kind: str, ref: np.ndarray | None = None
) -> np.ndarray:
    """Minimise a risk by L-BFGS from `start`, replicate by replicate, with the exact gradient."""
    from scipy.optimize import minimize  # imported here: it would double the time of `import windgames`

    size = policy.start().shape
    flat = start.reshape(-1, *size).copy()
    refs = [None] * len(flat) if ref is None else ref.reshape(-1, *size)
    y, label, weight = (
        None if x is None else x.reshape(len(flat), *samples.y.shape[-2:])
        for x in (samples.y, centred_label(samples), samples.weight)
    )
    assert y is not None
    assert label is not None
    for i, theta in enumerate(flat):
        one = LabelledSamples(samples.contexts, y[i], label[i], None if weight is None else weight[i], samples.pairing)
        flat[i] = minimize(
            objective_of(policy, theta, one, stage, kind, refs[i]),
            theta.ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 200, "gtol": 1e-9},
        ).x.reshape(size)
    return flat.reshape(start.shape)


def objective_of(
    policy: Policy, start: np.ndarray, samples: LabelledSamples, stage: Stage, kind: str, ref: np.ndarray | None = None
) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Return a function from flat parameters to the risk of one replicate and its gradient."""
    at, w = samples.contexts, 1.0 if samples.weight is None else samples.weight
    beta, eta = column(stage.beta, at), column(stage.eta, at)
    log_start, log_ref = policy.log_policy(start, at), policy.reference(ref, at)
    shift: Any = 0.0
    if samples.pairing == "constant":
        # add the normaliser of the mixture, and assume that of a payoff of 1/2 (theory 7.4)
        mixture = target(log_start, log_ref, np.zeros_like(log_start), beta=beta, eta=eta)
        shift = (1 / eta + beta) * logsumexp(mixture, keepdims=True)
    log_start, log_ref = (take(x, samples.y) for x in (log_start, log_ref))
    ridge = policy.ridge_weight(samples, stage)

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        theta = x.reshape(start.shape)
        log_policy = take(policy.log_policy(theta, at), samples.y)
        score = centred_within(implied_payoff(log_policy, log_start, log_ref, beta=beta, eta=eta) + shift, samples)
        slope = w * risk_slope(score, samples.label, kind)
        # the transpose of centring, which is symmetric where all weights are equal
        if samples.share is None:
            back = centred(slope, samples.pairing) - 0.5
        else:
            back = slope - samples.share * np.sum(slope, axis=-1, keepdims=True) * (samples.pairing != "constant")
        gradient = policy.gradient(theta, samples.y, (1 / eta + beta) * back, at) + ridge * (theta - start)
        total = np.sum(w * risk(score, samples.label, kind)) + ridge * np.sum((theta - start) ** 2) / 2
        return float(total), gradient.ravel()

    return value


def _round_robin(y: np.ndarray, oracle: Oracle, contexts: Any, rng: np.random.Generator) -> np.ndarray:
    """Return the outcomes of all pairs of responses, shape ``(..., K, K)``, by one query per pair."""
    k = y.shape[-1]
    i, j = np.triu_indices(k, 1)
    got = oracle.compare(y[..., i], y[..., j], rng, contexts)
    out = np.full((*y.shape, k), 0.5)
    out[..., i, j], out[..., j, i] = got, 1 - got
    return out


def _all_pairs(y: np.ndarray, other: np.ndarray, oracle: Oracle, contexts: Any, rng: np.random.Generator) -> np.ndarray:
    """Return the outcomes of every response against every opponent, shape ``(..., K, J)``."""
    k, j = y.shape[-1], other.shape[-1]
    got = oracle.compare(np.repeat(y, j, axis=-1), np.tile(other, k), rng, contexts)
    return got.reshape(*y.shape, j)


@dataclass(frozen=True)
class JBond:
    r"""J-BOND (Sessa et al. 2024; theory 7.5): descend Jeffreys' divergence to the best of two of a moving anchor.

    Parameters
    ----------
    rate : float
        Step size of gradient steps on the parameters.
    draws : int
        Number of responses of the policy per context and round, each compared with a pair of responses of the anchor
        by two queries.
    gamma : float
        Weight of the divergence to the anchor.
    anchor_rate : float
        Fraction by which the anchor's parameters move toward the policy's after each step.
    count_ties : bool
        Whether a tie with the worse of the two anchor responses counts as a loss; the paper allows both readings.
    name : str
        Name in tables and reports.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    rate: float
    draws: int = 8
    gamma: float = 0.0
    anchor_rate: float = 0.02
    count_ties: bool = False
    name: str = "J-BOND"

    def __post_init__(self) -> None:
        positive_number(self.rate, "rate")
        at_least(self.draws, "draws", 1)
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
        y, a, b = (sample(p, self.draws, rng) for p in (log_policy, log_anchor, log_anchor))
        first = oracle.compare(a, b, rng, contexts)
        best, worst = np.where(first >= 0.5, a, b), np.where(first >= 0.5, b, a)
        against = oracle.compare(y, worst, rng, contexts)
        worse = (against < 1.0) if self.count_ties else (against == 0.0)
        forward, backward = jbond_weights(worse, take(log_policy, y), take(log_anchor, y), gamma=self.gamma)
        gradient = policy.gradient(theta, best, np.full(y.shape, forward), contexts)
        gradient += policy.gradient(theta, y, backward, contexts)
        theta = theta + self.rate * _mean(gradient, y, policy)
        anchor = anchor + self.anchor_rate * (theta - anchor)
        return {"current": theta, "anchor": anchor, "draws": state["draws"] + 3 * y.size}


@dataclass(frozen=True)
class BestOfN:
    r"""Iterative best-of-n by maximum likelihood: raise the likelihood of the best of `n` responses.

    A share `a` of the likelihood may go to responses of the reference. The fixed point of the mean step is
    :math:`\pi=(1-a)B_n(\pi)+a\rho`, an arithmetic mixture where iterative best-of-n has a geometric one.

    Parameters
    ----------
    n : int
        Number of responses that the best is taken from. It costs `n - 1` queries: each new response is compared with
        the best so far, which finds the best if the preference comes from a reward.
    rate : float
        Step size of gradient ascent on the parameters.
    draws : int
        Number of best responses per context and round.
    reference_share : float
        The share `a`, in [0, 1).
    name : str
        Name in tables and reports.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    n: int
    rate: float
    draws: int = 4
    reference_share: float = 0.0
    name: str = "best-of-n distillation"

    def __post_init__(self) -> None:
        positive_number(self.rate, "rate")
        at_least(self.n, "n", 2)
        at_least(self.draws, "draws", 1)
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
        best = sample(log_policy, self.draws, rng)
        for _ in range(self.n - 1):
            rival = sample(log_policy, self.draws, rng)
            best = np.where(oracle.compare(best, rival, rng, contexts) >= 0.5, best, rival)
        a = self.reference_share
        gradient = policy.gradient(theta, best, np.full(best.shape, 1 - a), contexts)
        if a:
            reference = sample(np.broadcast_to(policy.log_ref[contexts], log_policy.shape), self.draws, rng)
            gradient += policy.gradient(theta, reference, np.full(best.shape, a), contexts)
        theta = theta + self.rate * _mean(gradient, best, policy)
        return {"current": theta, "draws": state["draws"] + (self.n + bool(a)) * best.size}


@dataclass(frozen=True)
class Reinforce:
    r"""REINFORCE with the divergence to the reference in the reward, as a baseline.

    Parameters
    ----------
    rate : float
        Step size of gradient ascent on the parameters.
    draws : int
        Number of responses per context and round, at least 2, since the baseline of each is the mean of the others.
    signal : {"score", "comparison"}
        "score" asks for rewards and ascends :math:`E[r]-\beta KL(\pi\|\rho)`, whose maximiser is not the equilibrium
        of the game. "comparison" compares each response with a fresh one of the policy; its fixed point is the
        equilibrium.
    name : str
        Name in tables and reports.

    Raises
    ------
    ValueError
        If a number is out of range or `signal` is unknown.
    """

    rate: float
    draws: int = 8
    signal: str = "score"
    name: str = "REINFORCE"

    def __post_init__(self) -> None:
        positive_number(self.rate, "rate")
        at_least(self.draws, "draws", 2)
        one_of(self.signal, "signal", ("score", "comparison"))

    def start(self, policy: Policy, game: Game, replicates: tuple[int, ...]) -> dict[str, Any]:
        return {"current": policy.start(replicates), "draws": 0}

    def step(
        self, state: dict[str, Any], policy: Policy, game: Game, oracle: Oracle, contexts: Any, rng: np.random.Generator
    ) -> dict[str, Any]:
        theta = state["current"]
        log_policy = policy.log_policy(theta, contexts)
        y = sample(log_policy, self.draws, rng)
        drawn = y.size
        if self.signal == "score":
            reward = oracle.score(y, contexts)
        else:
            reward = oracle.compare(y, sample(log_policy, self.draws, rng), rng, contexts)
            drawn *= 2
        beta = column(np.broadcast_to(np.asarray(game.beta, dtype=float), policy.log_ref.shape[:1]), contexts)
        weights = reinforce_weights(reward, take(log_policy, y), take(policy.log_ref[contexts], y), beta=beta)
        gradient = policy.gradient(theta, y, weights, contexts)
        return {"current": theta + self.rate * _mean(gradient, y, policy), "draws": state["draws"] + drawn}


def _needs_outcomes(name: str, oracle: Oracle) -> None:
    if oracle.certain and not isinstance(oracle.preference, RewardPreference):
        raise ValueError(f"{name} needs wins and losses, but this oracle answers with probabilities (certain=True).")


def _mean(gradient: np.ndarray, y: np.ndarray, policy: Policy) -> np.ndarray:
    """Return the average of a gradient over responses, and over contexts where these share parameters."""
    return gradient / (y.shape[-1] if isinstance(policy, Tabular) else y.shape[-1] * y.shape[-2])

r"""Training objectives: rules of windgames as regressions, J-BOND, and best-of-n by maximum likelihood.

An objective samples from the policies it needs and stores everything that the loss depends on besides the model: the
responses, their log-probabilities under other policies, and the labels. In training only :math:`\log\pi_\theta` of
these responses changes. The formulas are those of `windgames.objectives` and `windgames.updates`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Protocol

import torch
from torch import Tensor

import windgames as wg
from windgames import objectives as shared

from .policy import Samples
from .rollout import Rollout, RolloutBatch
from .weights import WeightSnapshots


class Objective(Protocol):
    """Interface of an objective to the training loop."""

    @property
    def slots(self) -> tuple[str, ...]:
        """Slots that persist from round to round; each is initialised to the reference."""
        ...

    def stages(self, progress: float) -> Sequence[Any]:
        """Return the stages of a round; `progress` goes from 0 to 1 over the run."""
        ...

    def remark(self, progress: float) -> str:
        """Return why no theorem covers the round, and what to change; empty if one does."""
        ...

    def collect(self, stage: Any, rollout: Rollout, draws: int) -> RolloutBatch:
        """Sample and judge the responses that a stage trains on."""
        ...

    def loss(self, stage: Any, log_policy: Tensor, batch: RolloutBatch) -> Tensor:
        """Return the loss of each prompt, shape ``(B,)``; only `log_policy`, ``(B, K)``, depends on the parameters."""
        ...

    def finish(self, stage: Any, snapshots: WeightSnapshots) -> None:
        """Save the slots that a stage writes, after training on it."""
        ...


# -- rules ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Regression:
    r"""Any rule of windgames as a regression on sampled responses (theory 7.1 to 7.4).

    Every stage of the rule's plan becomes one regression onto its target. Responses are sampled from the policy that
    the payoff is taken against, as the centring requires; the log-probabilities under the stage's `start` and under
    the reference are stored with them. A stage without a payoff, such as Nash-MD's mixture, is a regression onto the
    geometric mixture of whole responses, not of next-token distributions.

    A regression constrains nothing at responses that were not sampled: the guarantees of the exact step need samples
    that cover the responses that matter (theory 7.1).

    Parameters
    ----------
    rule : windgames rule, or callable of the progress in [0, 1] that returns one
        A step left at None becomes the largest that the theory allows at `interaction`. A callable is a schedule. With
        `windgames.moving_reference` the loss takes a snapshot of the policy's own weights, renewed every so many
        rounds, for the reference; metrics stay relative to the policy that training began with.
    beta : float
        Weight of the KL divergence to the reference; for `windgames.iterative_bon` the implied one, or None.
    payoff : {"win-rate", "log-win-rate"}
        The game. The log payoff is the power form of best-of-n; a response counts as winning against itself, which
        keeps the logarithm finite and biases it.
    risk : {"squared", "kl", "nce"}
    pairing : {"group", "leave-one-out", "constant"}
        How win rates are estimated and centred; "constant" is SPPO's, which does not give the exact step.
    interaction : float or None
        The constant `L` of theory 5.2 that default steps depend on: 1 for any judge, 1/2 for a reward or
        Bradley-Terry. None for the judge's own, ``judge.interaction``, which `windlm.train.train` fills in; until then
        1.
    step : float
        Step of a rule whose `eta` is None, in units of the largest that the theory allows.
    """

    rule: wg.Rule | Callable[[float], wg.Rule]
    beta: float | None
    payoff: str = "win-rate"
    risk: str = "squared"
    pairing: str = "group"
    interaction: float | None = None
    step: float = 1.0
    slots: tuple[str, ...] = field(init=False, default=())
    n_stages: int = field(init=False, default=1)
    renew: dict[str, int] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.payoff not in ("win-rate", "log-win-rate"):
            raise ValueError(f"payoff must be 'win-rate' or 'log-win-rate', but it is {self.payoff!r}.")
        if self.risk not in shared.RISKS:
            raise ValueError(f"risk must be one of {', '.join(map(repr, shared.RISKS))}, but it is {self.risk!r}.")
        if self.pairing not in shared.PAIRINGS or self.pairing == "independent":
            raise ValueError(f"pairing must be 'group', 'leave-one-out' or 'constant', but it is {self.pairing!r}.")
        if self.payoff == "log-win-rate" and (self.risk, self.pairing) != ("squared", "group"):
            raise ValueError("A log payoff is not a probability: it needs risk='squared' and pairing='group'.")
        if not 0 < self.step < inf:
            raise ValueError(f"step must be positive and finite, but it is {self.step}.")
        stages = self.stages(0.0)
        if self.pairing == "constant" and any(stage.beta > 0 for stage in stages):
            raise ValueError(
                "pairing='constant' assumes a normaliser that only holds at beta = 0 (theory 7.4): use 'group', or a "
                "rule such as windgames.sppo."
            )
        object.__setattr__(self, "n_stages", len(stages))
        read = {slot for s in stages for slot in (s.start, *s.against)}
        object.__setattr__(self, "renew", dict(self.plan(0.0).renew))
        object.__setattr__(self, "slots", (*(["previous"] if "previous" in read else []), *self.renew))

    def plan(self, progress: float) -> wg.updates.Plan:
        """Return the rule's plan."""
        rule = self.rule if isinstance(self.rule, wg.Rule) else self.rule(progress)
        interaction = 1.0 if self.interaction is None else self.interaction
        game = game_constants(rule, self.beta, self.payoff, interaction)
        return wg.updates.plan_of(self._scaled(rule, game), game)

    def _scaled(self, rule: Any, game: wg.GameConstants) -> Any:
        if self.step == 1:
            return rule
        if isinstance(rule, wg.moving_reference):
            return replace(rule, rule=self._scaled(rule.rule, game))
        if getattr(rule, "eta", 0.0) is not None:
            raise ValueError(f"step = {self.step:g} is in units of the step that the theory gives: leave eta at None.")
        return replace(rule, eta=self.step * float(wg.updates.plan_of(rule, game).settings["eta"]))

    def stages(self, progress: float) -> tuple[wg.Stage, ...]:
        return tuple(
            replace(s, beta=float(s.beta), eta=float(s.eta), against={k: float(w) for k, w in s.against.items()})
            for s in self.plan(progress).stages
        )

    def remark(self, progress: float) -> str:
        return self.plan(progress).remark

    def collect(self, stage: wg.Stage, rollout: Rollout, draws: int) -> RolloutBatch:
        at = max(stage.against, key=lambda slot: stage.against[slot], default=stage.start)
        samples = rollout.sample(at, draws)
        label = torch.zeros(samples.tokens.shape[:2])
        for slot, weight in stage.against.items():
            opponents = None if slot == at else rollout.sample(slot, draws)
            estimate = self._label(rollout.outcomes(samples, opponents), opponents is not None)
            if opponents is not None:  # independent win rates are centred like the score
                estimate = shared.centred(estimate, self.pairing)
            label = label + weight * estimate
        if stage.against != {at: 1.0} or self.payoff == "log-win-rate":
            label = shared.centred(label)  # the mean is unknown, and cancels against the centred score
        fixed = {"start": rollout.log_prob(samples, stage.start), "label": label}
        if stage.beta > 0:
            fixed[stage.ref] = rollout.log_prob(samples, stage.ref)
        if stage.start == at == "current":
            fixed["current"] = fixed["start"]
        return RolloutBatch(samples, fixed, on_policy=at == "current")

    def _label(self, outcomes: Tensor, independent: bool) -> Tensor:
        pairing = "independent" if independent else self.pairing
        if self.payoff == "win-rate":
            return shared.win_rates(outcomes, pairing)
        return shared.win_rates(outcomes, pairing, own=1.0).log()

    def loss(self, stage: wg.Stage, log_policy: Tensor, batch: RolloutBatch) -> Tensor:
        fixed = {name: x.to(log_policy.device) for name, x in batch.fixed.items()}
        start, label = fixed["start"], fixed["label"]
        ref = fixed.get(stage.ref, start)  # unused at beta = 0
        settings = {"beta": stage.beta, "eta": stage.eta, "pairing": self.pairing, "kind": self.risk}
        return shared.regression_risk(log_policy, start, ref, label, **settings).mean(-1)

    def finish(self, stage: wg.Stage, snapshots: WeightSnapshots) -> None:
        if stage.out != "current" or self.n_stages > 1:
            snapshots.save(stage.out)


def game_constants(rule: wg.Rule, beta: float | None, payoff: str, interaction: float = 1.0) -> wg.GameConstants:
    """Return the constants that a rule plans with, for a game that is not enumerated; `interaction` bounds its own."""
    if not 0 < interaction <= 1:
        raise ValueError(f"interaction must lie in (0, 1], but it is {interaction}.")
    if beta is None:
        if payoff == "win-rate":
            raise ValueError("beta must be given for a win-rate game.")
        if not isinstance(rule, wg.iterative_bon):
            raise ValueError("beta must be given, except for windgames.iterative_bon, which implies it.")
        beta = rule.beta
    return wg.GameConstants(payoff, beta, interaction)


def for_judge(objective: Any, judge: Any) -> Any:
    """Return an objective whose default steps are those for a judge; a judge that does not say its `L` has 1."""
    if getattr(objective, "interaction", 1.0) is not None:
        return objective
    return replace(objective, interaction=getattr(judge, "interaction", 1.0))


def wind(beta: float, eta: Any = None, **settings: Any) -> Regression:
    """Return WIND with a fixed step as a `Regression`; further settings are its own."""
    return Regression(wg.wind(eta), beta, **settings)


def sppo(eta: float, **settings: Any) -> Regression:
    r"""Return SPPO as published: regress :math:`\log\pi/\pi_t` on :math:`\eta(\hat P-1/2)`, uncentred (theory 7.4)."""
    return Regression(wg.sppo(eta), 0.0, **{"pairing": "constant", **settings})


def bond(n: float, alpha1: float = 1.0, alpha2: float = 0.0) -> Regression:
    """Return iterative BOND: regress on log-quantiles toward the round's best-of-n, mixed with the reference."""
    return Regression(wg.iterative_bon(n, alpha1, alpha2), None, payoff="log-win-rate")


def remarks(objective: Objective, rounds: int) -> str:
    """Return the remarks on all rounds of a run, each once."""
    progress = [i / max(1, rounds - 1) for i in range(rounds)]
    return " ".join(dict.fromkeys(filter(None, map(objective.remark, progress))))


# -- weighted likelihoods ------------------------------------------------------------------------------------


def weighted_likelihood(log_policy: Tensor, weight: Tensor) -> Tensor:
    """Return the negative weighted log-likelihood of each prompt, shape ``(B,)``."""
    return -(weight.to(log_policy.device) * log_policy).sum(-1)


@dataclass(frozen=True)
class JBond:
    r"""J-BOND: Jeffreys divergence to the best-of-2 of a moving anchor (Sessa et al. 2024; theory 7.5).

    A round samples `K` responses from the policy and `K` from the anchor, paired with their neighbours. The gradient
    is on-policy: train for one epoch with all prompts in one mini-batch. There is no equilibrium to converge to: the
    anchor follows the policy, which follows the anchor's best-of-2, without limit. Only the order of responses
    matters: a response loses to another if its win probability is below one half.

    Parameters
    ----------
    gamma : float
        Weight of the KL divergence to the anchor.
    anchor_rate : float
        Fraction by which the anchor's weights move toward the policy's after each round.
    count_ties : bool
        Whether a tie with a response of the anchor counts as a loss.
    """

    gamma: float = 0.0
    anchor_rate: float = 0.02
    count_ties: bool = False
    slots: tuple[str, ...] = field(init=False, default=("anchor",))

    def __post_init__(self) -> None:
        if not 0 <= self.gamma < inf:
            raise ValueError(f"gamma must be non-negative and finite, but it is {self.gamma}.")
        if not 0 < self.anchor_rate <= 1:
            raise ValueError(f"anchor_rate must lie in (0, 1], but it is {self.anchor_rate}.")

    def stages(self, progress: float) -> tuple[str, ...]:
        return ("anchor",)

    def remark(self, progress: float) -> str:
        return "J-BOND has no equilibrium to converge to: its anchor follows the policy without limit."

    def collect(self, stage: str, rollout: Rollout, draws: int) -> RolloutBatch:
        self.check(draws)
        own, theirs = rollout.sample("current", draws), rollout.sample("anchor", draws)
        current, anchor = rollout.log_prob(own, "current"), rollout.log_prob(own, "anchor")
        everyone = Samples.beside([own, theirs])
        outcomes = rollout.outcomes(everyone)
        worse = self.worse_than_both(outcomes[:, :draws, draws:])
        forward, backward = shared.jbond_weights(worse, current, anchor, gamma=self.gamma)
        best = best_of_n_weights(outcomes[:, draws:, draws:], 2)
        advantage = shared.centred(backward, "leave-one-out") - 0.5
        weight = torch.cat([advantage, forward * 2 * best], dim=1) / draws
        return RolloutBatch(everyone, {"weight": weight, "current": current})

    def check(self, draws: int) -> None:
        """Raise ValueError if responses to a prompt cannot be paired."""
        if draws % 2:
            raise ValueError(f"J-BOND pairs the anchor's responses: draws must be even, but it is {draws}.")

    def worse_than_both(self, outcomes: Tensor) -> Tensor:
        """Return whether response `i` loses to both of its pair of anchor responses, from outcomes ``(B, K, K)``.

        The pair of response `i` is `i` and `i + 1` (cyclic), so that the responses to a prompt do not share one pair.
        """
        lost = outcomes <= 0.5 if self.count_ties else outcomes < 0.5
        first = torch.diagonal(lost, dim1=-2, dim2=-1)
        second = torch.diagonal(lost.roll(-1, dims=-1), dim1=-2, dim2=-1)
        return (first & second).to(outcomes.dtype)

    def loss(self, stage: str, log_policy: Tensor, batch: RolloutBatch) -> Tensor:
        return weighted_likelihood(log_policy, batch.fixed["weight"])

    def finish(self, stage: str, snapshots: WeightSnapshots) -> None:
        snapshots.blend("anchor", self.anchor_rate)


@dataclass(frozen=True)
class BestOfN:
    r"""Best-of-n distillation by maximum likelihood on the best of every `n` responses.

    Parameters
    ----------
    n : int
        Group size: a round's responses are split into groups of `n`, and the best of each is imitated.
    source : {"current", "ref"}
        The policy sampled from: the current one (iterated best-of-n, without limit) or the reference (which converges
        to its best-of-n).
    """

    n: int = 2
    source: str = "current"
    slots: tuple[str, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        if self.n < 2:
            raise ValueError(f"n must be at least 2, but it is {self.n}.")
        if self.source not in ("current", "ref"):
            raise ValueError(f"source must be 'current' or 'ref', but it is {self.source!r}.")

    def stages(self, progress: float) -> tuple[str, ...]:
        return (self.source,)

    def remark(self, progress: float) -> str:
        if self.source == "ref":
            return ""
        return "Best-of-n of the current policy has no equilibrium to converge to: nothing holds it to the reference."

    def check(self, draws: int) -> None:
        """Raise ValueError if the responses to a prompt cannot be split into groups of `n`."""
        if draws % self.n:
            raise ValueError(f"draws must be a multiple of n = {self.n}, but it is {draws}.")

    def collect(self, stage: str, rollout: Rollout, draws: int) -> RolloutBatch:
        self.check(draws)
        samples = rollout.sample(stage, draws)
        weight = best_of_n_weights(rollout.outcomes(samples), self.n) * self.n / draws
        return RolloutBatch(samples, {"weight": weight}, on_policy=stage == "current")

    def loss(self, stage: str, log_policy: Tensor, batch: RolloutBatch) -> Tensor:
        return weighted_likelihood(log_policy, batch.fixed["weight"])

    def finish(self, stage: str, snapshots: WeightSnapshots) -> None:
        pass


def best_of_n_weights(outcomes: Tensor, n: int) -> Tensor:
    """Return the probability that each response is the best of its group of `n`, from outcomes ``(B, K, K)``.

    The best response of a group wins most comparisons within it; ties are broken at random, in expectation. With a
    reward it has the largest reward; in a cycle all are equally likely.

    Returns
    -------
    tensor, shape ``(B, K)``
        Sums to one over each group.
    """
    b, k, _ = outcomes.shape
    blocks = outcomes.view(b, k // n, n, k // n, n).diagonal(dim1=1, dim2=3)  # (B, n, n, groups)
    games = ((blocks > 0.5).to(outcomes.dtype) + 0.5 * (blocks == 0.5)).sum(2)
    best = (games == games.amax(1, keepdim=True)).to(outcomes.dtype)
    return (best / best.sum(1, keepdim=True)).transpose(1, 2).reshape(b, k)


# -- other methods on the same rollouts ----------------------------------------------------------------------


def _scores(rollout: Rollout, samples: Samples, payoff: str | None) -> Tensor:
    """Return what a policy gradient maximises, shape ``(B, K)``: rewards, or win rates among the draws."""
    if payoff != "win-rate":
        rewards = rollout.rewards(samples)
        if rewards is not None:
            return torch.as_tensor(rewards).float()
        if payoff == "reward":
            raise ValueError("payoff='reward' needs a judge with rewards: use 'win-rate' with a judge of pairs.")
    # counting the tie with itself: the baseline, too, contains this response's comparisons (theory 7.2)
    return shared.win_rates(rollout.outcomes(samples), "group")


@dataclass(frozen=True)
class Pairs:
    """Online DPO (Guo et al. 2024) and IPO (Calandriello et al. 2024): their losses on pairs of a round's responses.

    Parameters
    ----------
    beta : float
        DPO's weight of the log-ratio; IPO's `tau`.
    kind : {"dpo", "ipo"}
    pairs : {"all", "best-worst"}
        All pairs of responses, each with the probability of its label, or only the one that wins most against the one
        that wins least.
    """

    beta: float = 0.1
    kind: str = "dpo"
    pairs: str = "all"
    slots: tuple[str, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        _check_numbers(self, positive=("beta",))
        _check_choice(self, kind=("dpo", "ipo"), pairs=("all", "best-worst"))

    def stages(self, progress: float) -> tuple[str, ...]:
        return ("pairs",)

    def remark(self, progress: float) -> str:
        if self.kind == "ipo":
            known = (
                "its fixed point is the equilibrium at this beta"
                if self.pairs == "all"
                else "its fixed point is unknown"
            )
            return f"No theorem here bounds online IPO; on {self.pairs} pairs {known}."
        return (
            "No theorem here bounds online DPO: for a Bradley-Terry judge its fixed point is the reward's optimum, for "
            "any other it is no equilibrium, and where one response always wins its log-ratio grows without limit."
        )

    def collect(self, stage: str, rollout: Rollout, draws: int) -> RolloutBatch:
        samples = rollout.sample("current", draws)
        outcomes = rollout.outcomes(samples)
        current, ref = (rollout.log_prob(samples, slot) for slot in ("current", "ref"))
        return RolloutBatch(samples, {"outcomes": outcomes, "current": current, "ref": ref})

    def loss(self, stage: str, log_policy: Tensor, batch: RolloutBatch) -> Tensor:
        ref, outcomes = (batch.fixed[name].to(log_policy.device) for name in ("ref", "outcomes"))
        risk = shared.pair_risk(log_policy, ref, outcomes, beta=self.beta, kind=self.kind)
        b, k = log_policy.shape
        if self.pairs == "all":
            return risk.masked_fill(torch.eye(k, dtype=torch.bool, device=risk.device), 0).sum((-1, -2)) / (k * (k - 1))
        wins = shared.win_rates(outcomes, "leave-one-out")
        rows, best, worst = torch.arange(b, device=wins.device), wins.argmax(-1), wins.argmin(-1)
        return torch.where(best == worst, 0.0, 1.0) * risk[rows, best, worst]

    def finish(self, stage: str, snapshots: WeightSnapshots) -> None:
        pass


@dataclass(frozen=True)
class RLOO:
    r"""REINFORCE with leave-one-out baselines and the KL divergence in the reward (Ahmadian et al. 2024).

    Parameters
    ----------
    beta : float
        Weight of the KL divergence to the reference, in units of the payoff per nat.
    payoff : {"reward", "win-rate"} or None
        What is maximised; None for the judge's reward if it has one, else the win rate among the draws.
    clip : float
        Clipping of the ratio of whole responses, as in PPO; it matters from a round's second step on.
    """

    beta: float = 0.05
    payoff: str | None = None
    clip: float = 0.2
    slots: tuple[str, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        _check_numbers(self, positive=("clip",), at_least_zero=("beta",))
        _check_choice(self, payoff=("reward", "win-rate", None))

    def stages(self, progress: float) -> tuple[str, ...]:
        return ("gradient",)

    def remark(self, progress: float) -> str:
        return (
            "No theorem here bounds policy gradients: their fixed point is the optimum of the reward at this beta or, "
            "for win rates, the equilibrium."
        )

    def collect(self, stage: str, rollout: Rollout, draws: int) -> RolloutBatch:
        samples = rollout.sample("current", draws)
        payoff = _scores(rollout, samples, self.payoff)
        current, ref = (rollout.log_prob(samples, slot) for slot in ("current", "ref"))
        advantage = shared.reinforce_weights(payoff, current, ref, beta=self.beta)
        return RolloutBatch(samples, {"advantage": advantage, "current": current, "ref": ref})

    def loss(self, stage: str, log_policy: Tensor, batch: RolloutBatch) -> Tensor:
        current, advantage = (batch.fixed[name].to(log_policy.device) for name in ("current", "advantage"))
        return shared.clipped_surrogate(log_policy - current, advantage, self.clip).mean(-1)

    def finish(self, stage: str, snapshots: WeightSnapshots) -> None:
        pass


@dataclass(frozen=True)
class GRPO:
    r"""Group-relative policy optimisation, token by token (Shao et al. 2024), and Dr. GRPO (Liu et al. 2025).

    Parameters
    ----------
    beta : float
        Weight of the penalty `windgames.objectives.excess` of a token.
    payoff : {"reward", "win-rate"} or None
        As in `RLOO`.
    clip : float
        Clipping of the ratio of tokens.
    variant : {"grpo", "dr-grpo"}
        Advantages divided by their standard deviation, and a mean over a response's tokens; or neither: the sum over
        its tokens divided by the maximum length.
    """

    beta: float = 0.04
    payoff: str | None = None
    clip: float = 0.2
    variant: str = "grpo"
    slots: tuple[str, ...] = field(init=False, default=())
    per_token: bool = field(init=False, default=True, repr=False)
    """Whether `loss` takes the log-probability of each token, shape ``(B, K, L)``."""

    def __post_init__(self) -> None:
        _check_numbers(self, positive=("clip",), at_least_zero=("beta",))
        _check_choice(self, payoff=("reward", "win-rate", None), variant=("grpo", "dr-grpo"))

    def stages(self, progress: float) -> tuple[str, ...]:
        return ("gradient",)

    def remark(self, progress: float) -> str:
        return (
            "No theorem here bounds GRPO: its penalty's gradient is that of KL(reference || policy), so that its fixed "
            "point is not the optimum at this beta; for one token it is ref / (1 - (A - c) / beta), A the advantage."
        )

    def collect(self, stage: str, rollout: Rollout, draws: int) -> RolloutBatch:
        samples = rollout.sample("current", draws)
        advantage = shared.group_advantages(_scores(rollout, samples, self.payoff), self.variant == "grpo")
        tokens = {f"{slot}_tokens": rollout.log_prob(samples, slot, per_token=True) for slot in ("current", "ref")}
        sums = {slot: tokens[f"{slot}_tokens"].sum(-1) for slot in ("current", "ref")}
        return RolloutBatch(samples, {"advantage": advantage, **sums, **tokens})

    def loss(self, stage: str, log_policy: Tensor, batch: RolloutBatch) -> Tensor:
        fixed = {name: x.to(log_policy.device) for name, x in batch.fixed.items()}
        mask = batch.samples.mask.to(log_policy.device)
        loss = shared.clipped_surrogate(log_policy - fixed["current_tokens"], fixed["advantage"][..., None], self.clip)
        loss = loss + self.beta * shared.excess(log_policy, fixed["ref_tokens"])
        total = (loss * mask).sum(-1)
        return (total / (mask.sum(-1).clamp(min=1) if self.variant == "grpo" else mask.shape[-1])).mean(-1)

    def finish(self, stage: str, snapshots: WeightSnapshots) -> None:
        pass


def _check_numbers(objective: Any, positive: Sequence[str] = (), at_least_zero: Sequence[str] = ()) -> None:
    for name in positive:
        if not 0 < getattr(objective, name) < inf:
            raise ValueError(f"{name} must be positive and finite, but it is {getattr(objective, name)}.")
    for name in at_least_zero:
        if not 0 <= getattr(objective, name) < inf:
            raise ValueError(f"{name} must be non-negative and finite, but it is {getattr(objective, name)}.")


def _check_choice(objective: Any, **choices: Sequence[Any]) -> None:
    for name, allowed in choices.items():
        if getattr(objective, name) not in allowed:
            words = ", ".join(map(repr, allowed))
            raise ValueError(f"{name} must be one of {words}, but it is {getattr(objective, name)!r}.")

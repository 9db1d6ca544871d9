"""The training methods: one dataclass of settings each, chosen by ``--method.name``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

import windgames as wg

from ..objectives import GRPO, RLOO, BestOfN, JBond, Objective, Pairs, Regression, bond, sppo

Risk = Literal["squared", "kl", "nce"]
"""Names of the losses between score and win rate."""
Pairing = Literal["group", "leave-one-out"]
"""Names of the estimators of a win rate with their centring."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A training method."""

    name: str
    """The method; ``--method.name NAME --help`` shows the flags of another one."""

    def objective(self) -> Objective:
        """Return the objective; default steps are those for the judge that it is trained with."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Regressed(Method):
    """A rule of windgames that is fitted by regression."""

    beta: float = 0.1
    """Weight of the KL divergence to the reference, in win rate per nat."""
    risk: Risk = "squared"
    """Loss between score and win rate: squared, the cross-entropy kl, or noise-contrastive nce."""
    pairing: Pairing = "group"
    """Whether a response's win rate counts the tie with itself (group) or leaves it out."""

    def rule(self) -> wg.Rule:
        """Return the rule of windgames."""
        raise NotImplementedError

    def objective(self) -> Regression:
        step = getattr(self, "step", 1.0)
        return Regression(self.rule(), self.beta, risk=self.risk, pairing=self.pairing, step=step)


@dataclass(frozen=True, kw_only=True)
class Wind(Regressed):
    """WIND, magnetic mirror descent on the win rate (theory 5.2)."""

    name: Literal["wind", "wind-squared", "wind-kl", "wind-nce"] = "wind"
    """The method; wind-kl is wind with that risk. ``--method.name NAME --help`` shows the flags of another one."""
    eta: float | None = None
    """Step size; None for `step` times the largest with a proven rate, 4 beta / L^2."""
    step: float = 1.0
    """Step size in units of the largest with a proven rate, if eta is None."""

    def __post_init__(self) -> None:
        if self.name != "wind":
            object.__setattr__(self, "risk", self.name.removeprefix("wind-"))
            object.__setattr__(self, "name", "wind")

    def rule(self) -> wg.Rule:
        return wg.wind(self.eta)


@dataclass(frozen=True, kw_only=True)
class Extragradient(Regressed):
    """Mirror prox: two payoffs a round, and many fewer rounds at a small beta (theory 5.4)."""

    name: Literal["extragradient"] = "extragradient"
    eta: float | None = None
    """Step size; None for `step` times the largest with a proven rate."""
    step: float = 1.0
    """Step size in units of the largest with a proven rate, if eta is None."""

    def rule(self) -> wg.Rule:
        return wg.extragradient(self.eta)


@dataclass(frozen=True, kw_only=True)
class Optimistic(Regressed):
    """Popov's method: nearly the extragradient's steps for one payoff a round (theory 5.11)."""

    name: Literal["optimistic"] = "optimistic"
    eta: float | None = None
    """Step size; None for `step` times the largest with a proven rate."""
    step: float = 1.0
    """Step size in units of the largest with a proven rate, if eta is None."""

    def rule(self) -> wg.Rule:
        return wg.optimistic(self.eta)


@dataclass(frozen=True, kw_only=True)
class NashMD(Regressed):
    """Nash mirror descent (Munos et al. 2023), to within order eta of the equilibrium (theory 5.7)."""

    name: Literal["nash-md"] = "nash-md"
    eta: float
    """Step size, below 1 / beta; no theorem sets it."""

    def rule(self) -> wg.Rule:
        return wg.nash_md(self.eta)


@dataclass(frozen=True, kw_only=True)
class INPO(Regressed):
    """Online mirror descent, WIND at the step eta / (1 - eta beta) (theory 5.7)."""

    name: Literal["inpo"] = "inpo"
    eta: float
    """Step size, below 1 / beta; no theorem sets it."""

    def rule(self) -> wg.Rule:
        return wg.inpo(self.eta)


@dataclass(frozen=True, kw_only=True)
class OMWU(Regressed):
    """Optimistic multiplicative weights, with the payoff 2 u - u of the round before (theory 5.7)."""

    name: Literal["omwu"] = "omwu"
    eta: float
    """Step size; no theorem sets it."""

    def rule(self) -> wg.Rule:
        return wg.omwu(self.eta)


@dataclass(frozen=True, kw_only=True)
class MovingReference(Regressed):
    """A rule whose reference is renewed every so many rounds, as in COMAL and MPO (theory 6.8)."""

    name: Literal["moving-reference"] = "moving-reference"
    inner: Literal["wind", "extragradient", "optimistic"] = "wind"
    """Rule between renewals."""
    every: int = 5
    """Rounds after which the reference becomes the policy."""
    eta: float | None = None
    """Step size of the inner rule; None for `step` times the largest with a proven rate."""
    step: float = 1.0
    """Step size in units of the largest with a proven rate, if eta is None."""

    def rule(self) -> wg.Rule:
        return wg.moving_reference(getattr(wg, self.inner)(self.eta), self.every)


@dataclass(frozen=True, kw_only=True)
class SPPO(Method):
    """Self-play preference optimisation as published, without a reference (theory 7.4)."""

    name: Literal["sppo"] = "sppo"
    eta: float
    """Step size; no theorem sets it."""
    pairing: Literal["constant", "group", "leave-one-out"] = "constant"
    """Centring of win rates: constant as published, which is not the exact step, or that of the other methods."""

    def objective(self) -> Objective:
        return sppo(self.eta, pairing=self.pairing)


@dataclass(frozen=True, kw_only=True)
class Bond(Method):
    """Iterative BOND: regression toward the best of n, mixed with the reference (theory 3.5)."""

    name: Literal["bond"] = "bond"
    n: float = 2
    """Number of responses that the best is taken from; need not be whole."""
    alpha1: float = 1.0
    """Weight of the best-of-n policy."""
    alpha2: float = 0.0
    """Weight of the current policy; the remainder to 1 is the weight of the reference."""

    def objective(self) -> Objective:
        return bond(self.n, self.alpha1, self.alpha2)


@dataclass(frozen=True, kw_only=True)
class JBondSettings(Method):
    """J-BOND: Jeffreys' divergence to the best of two of a moving anchor (theory 7.5)."""

    name: Literal["j-bond"] = "j-bond"
    gamma: float = 0.0
    """Weight of the KL divergence to the anchor."""
    anchor_rate: float = 0.02
    """Fraction by which the anchor moves toward the policy after each round."""
    count_ties: bool = False
    """Whether a tie with a response of the anchor counts as a loss."""

    def objective(self) -> Objective:
        return JBond(self.gamma, self.anchor_rate, self.count_ties)


@dataclass(frozen=True, kw_only=True)
class BestOfNSettings(Method):
    """Best-of-n by maximum likelihood on the best of every n responses."""

    name: Literal["best-of-n", "bon"] = "best-of-n"
    n: int = 2
    """Number of responses that the best is taken from."""
    source: Literal["current", "ref"] = "current"
    """Policy that is sampled: the current one, which has no limit, or the reference."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", "best-of-n")

    def objective(self) -> Objective:
        return BestOfN(self.n, self.source)


Payoff = Literal["reward", "win-rate"]
"""Names of what a policy gradient maximises."""


@dataclass(frozen=True, kw_only=True)
class OnlineDPO(Method):
    """Online DPO: the logistic loss on pairs of a round's responses (Guo et al. 2024)."""

    name: Literal["online-dpo", "dpo"] = "online-dpo"
    beta: float = 0.1
    """Weight of the log-ratio; not WIND's beta: its unit is the judge's log-odds per nat."""
    pairs: Literal["all", "best-worst"] = "all"
    """All pairs of responses, or the one that wins most against the one that wins least."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", "online-dpo")

    def objective(self) -> Objective:
        return Pairs(self.beta, "dpo", self.pairs)


@dataclass(frozen=True, kw_only=True)
class IPO(Method):
    """Online IPO: the squared loss on pairs; on all pairs its fixed point is WIND's (Calandriello et al. 2024)."""

    name: Literal["ipo"] = "ipo"
    beta: float = 0.1
    """IPO's tau, in win rate per nat."""
    pairs: Literal["all", "best-worst"] = "all"
    """All pairs of responses, or the one that wins most against the one that wins least."""

    def objective(self) -> Objective:
        return Pairs(self.beta, "ipo", self.pairs)


@dataclass(frozen=True, kw_only=True)
class RLOOSettings(Method):
    """REINFORCE with leave-one-out baselines and the KL divergence in the reward (Ahmadian et al. 2024)."""

    name: Literal["rloo", "reinforce"] = "rloo"
    beta: float = 0.05
    """Weight of the KL divergence to the reference, in payoff per nat."""
    payoff: Payoff | None = None
    """What is maximised; None for the judge's reward if it has one, else the win rate among the draws."""
    clip: float = 0.2
    """Clipping of a response's probability ratio."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", "rloo")

    def objective(self) -> Objective:
        return RLOO(self.beta, self.payoff, self.clip)


@dataclass(frozen=True, kw_only=True)
class GRPOSettings(Method):
    """Group-relative policy optimisation (Shao et al. 2024), or Dr. GRPO (Liu et al. 2025)."""

    name: Literal["grpo", "dr-grpo"] = "grpo"
    """The method; dr-grpo neither scales advantages nor divides by a response's length."""
    beta: float = 0.04
    """Weight of the penalty of a token."""
    payoff: Payoff | None = None
    """What is maximised; None for the judge's reward if it has one, else the win rate among the draws."""
    clip: float = 0.2
    """Clipping of a token's probability ratio."""

    def objective(self) -> Objective:
        return GRPO(self.beta, self.payoff, self.clip, self.name)


MethodSettings = (
    Wind
    | Extragradient
    | Optimistic
    | NashMD
    | INPO
    | OMWU
    | MovingReference
    | SPPO
    | Bond
    | JBondSettings
    | BestOfNSettings
    | OnlineDPO
    | IPO
    | RLOOSettings
    | GRPOSettings
)
"""The settings of any method."""
METHODS = {get_args(get_type_hints(kind)["name"])[0]: kind for kind in get_args(MethodSettings)}
"""The settings of each method by its name."""

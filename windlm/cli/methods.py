"""The objectives by name, as settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ..models import JudgeSettings
from ..objectives import BestOfN, JBond, Objective, bond, sppo, wind

METHODS = ("wind-squared", "wind-kl", "wind-nce", "sppo", "j-bond", "bon", "bond")


@dataclass(frozen=True)
class MethodSettings:
    """What a round trains on."""

    name: Literal["wind-squared", "wind-kl", "wind-nce", "sppo", "j-bond", "bon", "bond"] = "wind-squared"
    """The objective; bon is best-of-n by maximum likelihood, bond its iteration by regression."""
    beta: float = 0.1
    """WIND's pull to the reference."""
    eta: float | None = None
    """Step of WIND or SPPO; None takes the largest that the theorem allows WIND for this kind of judge."""
    pairing: Literal["group", "leave-one-out", "constant"] | None = None
    """How win rates and centring are matched; None for the method's own, which is exact for WIND."""
    n: int = 2
    """Draws that compete in bon and bond."""
    alpha1: float = 1.0
    """bond: weight of the round's best-of-n."""
    alpha2: float = 0.0
    """bond: weight of the current policy; what is left to 1 goes to the reference."""
    gamma: float = 0.0
    """j-bond: weight of the divergence to the anchor."""
    anchor_rate: float = 0.02
    """j-bond: share of the policy that the anchor takes in after each round."""


def objective(method: MethodSettings, judge: JudgeSettings) -> Objective:
    """Return the objective of a configuration.

    Raises
    ------
    ValueError
        If SPPO has no step, or a setting is out of range.
    """
    settings: dict[str, Any] = {"pairing": method.pairing} if method.pairing else {}
    if method.name == "sppo":
        if method.eta is None:
            raise ValueError("SPPO has no default step, for no theorem gives one: set method.eta.")
        return sppo(method.eta, **settings)
    if method.name == "j-bond":
        return JBond(method.gamma, method.anchor_rate)
    if method.name == "bon":
        return BestOfN(method.n)
    if method.name == "bond":
        return bond(method.n, method.alpha1, method.alpha2)
    if method.eta is None:  # the constant that the default step is taken from
        settings["interaction"] = 1.0 if judge.kind == "pairwise" else 0.5
    return wind(method.beta, method.eta, risk=method.name.removeprefix("wind-"), **settings)

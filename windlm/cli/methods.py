"""The training objectives by name, with their settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..models import JudgeSettings, refuse_unused
from ..objectives import BestOfN, JBond, Objective, bond, sppo, wind

Name = Literal["wind-squared", "wind-kl", "wind-nce", "sppo", "j-bond", "bon", "bond"]
METHODS: tuple[str, ...] = get_args(Name)
"""Names of the methods."""
USED = {
    **dict.fromkeys(("wind-squared", "wind-kl", "wind-nce"), ("beta", "eta", "pairing")),
    "sppo": ("eta", "pairing"),
    "j-bond": ("gamma", "anchor_rate"),
    "bon": ("n",),
    "bond": ("n", "alpha1", "alpha2"),
}
"""The settings that each method uses."""


@dataclass(frozen=True)
class MethodSettings:
    """The training objective.

    Raises
    ------
    ValueError
        If a setting is changed that the method does not use.
    """

    name: Name = "wind-squared"
    """Objective; bon is best-of-n by maximum likelihood, bond iterative best-of-n by regression."""
    beta: float = 0.1
    """Weight of the KL divergence to the reference, in win rate per nat (wind)."""
    eta: float | None = None
    """Step size (wind, sppo); None for the largest with a proven rate, from beta (wind only)."""
    pairing: Literal["group", "leave-one-out", "constant"] | None = None
    """Estimator and centring of win rates (wind, sppo); None for group in wind and constant in sppo."""
    n: int = 2
    """Number of responses that the best is taken from (bon, bond)."""
    alpha1: float = 1.0
    """Weight of the best-of-n policy (bond)."""
    alpha2: float = 0.0
    """Weight of the current policy (bond); the remainder to 1 is the weight of the reference."""
    gamma: float = 0.0
    """Weight of the KL divergence to the anchor (j-bond)."""
    anchor_rate: float = 0.02
    """Fraction by which the anchor moves toward the policy after each round (j-bond)."""

    def __post_init__(self) -> None:
        if self.name in USED:  # unknown names are reported by tyro and `build`
            refuse_unused(self, ("name", *USED[self.name]), f"method {self.name}")


def objective(method: MethodSettings, judge: JudgeSettings) -> Objective:
    """Return the objective of a configuration.

    Raises
    ------
    ValueError
        If SPPO has no step size, or a setting is out of range.
    """
    settings: dict[str, Any] = {"pairing": method.pairing} if method.pairing else {}
    if method.name == "sppo":
        if method.eta is None:
            raise ValueError("SPPO has no default step size, since no theorem gives one: set method.eta.")
        return sppo(method.eta, **settings)
    if method.name == "j-bond":
        return JBond(method.gamma, method.anchor_rate)
    if method.name == "bon":
        return BestOfN(method.n)
    if method.name == "bond":
        return bond(method.n, method.alpha1, method.alpha2)
    settings["interaction"] = 1.0 if judge.kind == "pairwise" else 0.5  # for the default step, and the theorem's
    return wind(method.beta, method.eta, risk=method.name.removeprefix("wind-"), **settings)

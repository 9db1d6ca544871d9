"""The update rules by name. Each is a frozen dataclass that checks its own parameters; its `plan` is the algorithm.

A rule turns the constants of a game into stages of the one update `windgames.updates.target`, with the theorem that
covers them. `windgames.solve` runs the plan on a table, `windgames.bandits` and `windlm` regress onto its stages.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Any, ClassVar

import numpy as np

from . import bounds
from ._array import to_numpy
from ._validation import above, at_least, number, per_context
from .games import Game
from .updates import GameConstants, Guarantee, Plan, Rule, Stage, is_rule

__all__ = [
    "extragradient",
    "inpo",
    "iterative_bon",
    "moving_reference",
    "nash_md",
    "omwu",
    "optimistic",
    "sppo",
    "wind",
]

LOG_PAYOFF_GAMES = {"log-win-rate": "LogWinRateGame", "best-of-n": "BestOfNGame"}
"""Kinds of games whose payoff is a logarithm, and the classes that define them."""


@dataclass(frozen=True)
class wind:
    r"""WIND, the paper's Algorithm 2: magnetic mirror descent (theory 5.1, 5.2).

    .. math:: \pi_{t+1} \propto \pi_t^{1/(1+\beta\eta)}\,\rho^{\beta\eta/(1+\beta\eta)}\,
              \exp\left(\tfrac{\eta}{1+\beta\eta} u(\pi_t)\right)

    On a win-rate game :math:`KL(\pi^*\|\pi_t) \le (1+\beta\eta)^{-t} KL(\pi^*\|\pi_0)` for
    :math:`0 < \eta \le 4\beta/L^2` (paper: :math:`\eta\le\beta`). On a log payoff the Hilbert distance contracts by
    :math:`(1+\eta\kappa)/(1+\beta\eta)` for :math:`\beta>\kappa` (theory 3.7).

    Parameters
    ----------
    eta : float, array of one per context, or None
        Step size. None takes the largest step that the theorem allows for the game, and is an error where no theorem
        applies. A larger step runs, and the status says that it is outside the theorem.
    """

    eta: Any = None
    name: ClassVar[str] = "WIND"

    def __post_init__(self) -> None:
        _check_step(self, required=False)

    def plan(self, game: Game | GameConstants) -> Plan:
        eta, guarantee, remark = _proximal_step(self, game, "5.2", bounds.wind_max_step)
        return Plan((Stage(game.beta, eta),), {"eta": eta}, "equilibrium", guarantee, remark)


@dataclass(frozen=True)
class extragradient:
    r"""Mirror prox: a half step, then the full step from the same policy with the half step's payoff (theory 5.4).

    :math:`KL(\pi^*\|\pi_t) \le (1+\beta\eta)^{-t} KL(\pi^*\|\pi_0)` on a win-rate game for
    :math:`0<\eta\le 2(\beta+\sqrt{\beta^2+L^2})/L^2`: for small `beta` about :math:`1/(2\beta)` steps per factor e
    where WIND needs :math:`1/(4\beta^2)`. Each step evaluates two payoffs.

    Parameters
    ----------
    eta : float, array or None
        As in `wind`.
    """

    eta: Any = None
    name: ClassVar[str] = "extragradient"

    def __post_init__(self) -> None:
        _check_step(self, required=False)

    def plan(self, game: Game | GameConstants) -> Plan:
        eta, guarantee, remark = _proximal_step(self, game, "5.4", bounds.extragradient_max_step)
        look = Stage(game.beta, eta, out="half")
        step = Stage(game.beta, eta, against={"half": 1.0})
        return Plan((look, step), {"eta": eta}, "equilibrium", guarantee, remark)


@dataclass(frozen=True)
class iterative_bon:
    r"""Iterative best-of-n with mixing, the paper's Algorithm 1 (theory 3.5).

    :math:`\pi_{t+1} \propto B_n(\pi_t)^{\alpha_1}\pi_t^{\alpha_2}\rho^{1-\alpha_1-\alpha_2}`, which is WIND's step
    on a log payoff: the exact form on a `BestOfNGame`, the power form on a `LogWinRateGame`. It contracts by
    :math:`n\alpha_1+\alpha_2` in the Hilbert metric (theory 3.7).

    Parameters
    ----------
    n : float
        Number of draws, above 1.
    alpha1, alpha2 : float
        Weights of the best of `n` draws of the current policy and of the current policy itself; the reference has the
        rest. `alpha1` is positive, `alpha2` non-negative, and their sum at most 1.

    Raises
    ------
    ValueError
        If a parameter is out of range; from `plan`, if the game is no log-win-rate or best-of-n game or its `beta` is
        not the implied one.
    """

    n: float
    alpha1: float
    alpha2: float = 0.0
    name: ClassVar[str] = "iterative best-of-n"

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", above(self.n, "n", 1))
        object.__setattr__(self, "alpha1", number(self.alpha1, "alpha1"))
        object.__setattr__(self, "alpha2", number(self.alpha2, "alpha2"))
        bounds.implied_eta(self.n, self.alpha1, self.alpha2)

    @property
    def beta(self) -> float:
        """The `beta` of the game that the rule solves (theory 3.5)."""
        return float(bounds.implied_beta(self.n, self.alpha1, self.alpha2))

    def plan(self, game: Game | GameConstants) -> Plan:
        if game.kind not in LOG_PAYOFF_GAMES:
            raise ValueError(
                f"Iterative best-of-n solves a log-win-rate game, not {game!r}. Power form: "
                f"LogWinRateGame.from_best_of_n; exact form: BestOfNGame.from_best_of_n."
            )
        if game.kind == "best-of-n" and game.n != self.n:
            raise ValueError(f"The game is that of n = {game.n:g} draws, but the rule draws n = {self.n:g}.")
        beta = to_numpy(game.beta)
        if not np.allclose(beta, self.beta, rtol=1e-9, atol=1e-12):
            raise ValueError(
                f"n = {self.n:g}, alpha1 = {self.alpha1:g}, alpha2 = {self.alpha2:g} imply beta = {self.beta:.12g}, "
                f"but the game has beta = {beta}. Build the game with {LOG_PAYOFF_GAMES[game.kind]}.from_best_of_n."
            )
        eta = float(bounds.implied_eta(self.n, self.alpha1, self.alpha2))
        form = "exact" if game.kind == "best-of-n" else "power"
        settings = {"n": self.n, "alpha1": self.alpha1, "alpha2": self.alpha2, "form": form}
        guarantee, remark = _log_guarantee(game, eta)
        return Plan((Stage(game.beta, eta),), settings, "equilibrium", guarantee, remark)


@dataclass(frozen=True)
class sppo:
    r"""Self-play preference optimisation in its population form: multiplicative weights (theory 5.7).

    :math:`\pi_{t+1}\propto\pi_t\exp(\eta P\pi_t)`, the update at ``beta = 0``. The last iterate may cycle or
    collapse; no theorem here bounds it.

    Parameters
    ----------
    eta : float or array of one per context
        Step size.
    """

    eta: Any
    name: ClassVar[str] = "SPPO"

    def __post_init__(self) -> None:
        _check_step(self)

    def plan(self, game: Game | GameConstants) -> Plan:
        eta = _step_per_context(self.eta, game)
        remark = "SPPO ignores the reference: its fixed points are not equilibria of the regularised game."
        return Plan((Stage(0.0, eta),), {"eta": eta}, "unregularised", None, remark)


@dataclass(frozen=True)
class nash_md:
    r"""Nash mirror descent (Munos et al. 2023): multiplicative weights from a mixture with the reference.

    :math:`\pi_{t+1}\propto\tilde\pi_t\exp(\eta P\tilde\pi_t)` with
    :math:`\tilde\pi_t\propto\pi_t^{1-\eta\beta}\rho^{\eta\beta}`. Converges to within :math:`\eta/(24\beta)` of the
    equilibrium in :math:`KL(\pi^*\|\pi)`, not to it (theory 5.7; the published constant is 2 in place of 1/24), and
    from the reference to within order :math:`\eta^2` (theory 5.13, `bounds.nash_md_floor`).

    Parameters
    ----------
    eta : float or array of one per context
        Step size, with ``eta * beta < 1``.
    """

    eta: Any
    name: ClassVar[str] = "Nash-MD"

    def __post_init__(self) -> None:
        _check_step(self)

    def plan(self, game: Game | GameConstants) -> Plan:
        eta, beta = _step_per_context(self.eta, game), _numpy_beta(game)
        weight = _reference_weight(self.name, eta, beta)
        mix = Stage(beta, eta / (1 - weight), against={}, out="mixture")
        step = Stage(0.0, eta, start="mixture", against={"mixture": 1.0})
        guarantee = None
        if game.kind == "win-rate" and np.all(beta > 0):
            guarantee = Guarantee("theory 5.7", "kl_from_solution", 1 - weight, bounds.nash_md_floor(beta, eta))
        remark = "Nash-MD's fixed point is only within order eta of the equilibrium: lower eta for a closer one."
        return Plan((mix, step), {"eta": eta}, "none", guarantee, remark)


@dataclass(frozen=True)
class omwu:
    r"""Optimistic multiplicative weights: WIND's step with the payoff :math:`2u(\pi_t)-u(\pi_{t-1})` (theory 5.7).

    Each step evaluates one payoff where the extragradient evaluates two. At ``beta = 0`` it is the classical OMWU.

    Parameters
    ----------
    eta : float or array of one per context
        Step size.
    """

    eta: Any
    name: ClassVar[str] = "OMWU"

    def __post_init__(self) -> None:
        _check_step(self)

    def plan(self, game: Game | GameConstants) -> Plan:
        eta = _step_per_context(self.eta, game)
        stage = Stage(game.beta, eta, against={"current": 2.0, "previous": -1.0})
        return Plan((stage,), {"eta": eta}, "equilibrium", None, "No theorem here bounds OMWU's last iterate.")


@dataclass(frozen=True)
class inpo:
    r"""Online mirror descent, INPO's step (theory 5.7).

    :math:`\pi_{t+1}\propto\pi_t^{1-\eta\beta}\rho^{\eta\beta}\exp(\eta P\pi_t)`, which is WIND's step at
    :math:`\eta/(1-\eta\beta)` and inherits its theorem.

    Parameters
    ----------
    eta : float or array of one per context
        Step size, with ``eta * beta < 1``.
    """

    eta: Any
    name: ClassVar[str] = "INPO"

    def __post_init__(self) -> None:
        _check_step(self)

    def plan(self, game: Game | GameConstants) -> Plan:
        eta = _step_per_context(self.eta, game)
        equivalent = eta / (1 - _reference_weight(self.name, eta, _numpy_beta(game)))
        plan = wind(equivalent).plan(game)
        settings = {"eta": eta, "eta of WIND": equivalent}
        return Plan(plan.stages, settings, "equilibrium", plan.guarantee, plan.remark)


@dataclass(frozen=True)
class optimistic:
    r"""Popov's method: the extragradient's order of convergence for one payoff a step (theory 5.11).

    WIND's step with the payoff :math:`(1+a)u(\pi_t)-a\,u(\pi_{t-1})`, :math:`a=1/(1+\beta\eta)`. With these weights
    :math:`\pi_{t+1}` and the next anchor are steps from the same anchor; `omwu` has 2 and -1. On a win-rate game
    :math:`KL(\pi^*\|\pi_t)\le2(1+\beta\eta)^{-t}KL(\pi^*\|\pi_0)` for
    :math:`0<\eta\le(\beta+\sqrt{\beta^2+6L^2})/(3L^2)`.

    Parameters
    ----------
    eta : float, array or None
        As in `wind`.
    """

    eta: Any = None
    name: ClassVar[str] = "optimistic"

    def __post_init__(self) -> None:
        _check_step(self, required=False)

    def plan(self, game: Game | GameConstants) -> Plan:
        eta, guarantee, remark = _proximal_step(self, game, "5.11", bounds.optimistic_max_step, constant=2.0)
        weight = 1 / (1 + _numpy_beta(game) * eta)
        stage = Stage(game.beta, eta, against={"current": 1 + weight, "previous": -weight})
        return Plan((stage,), {"eta": eta}, "equilibrium", guarantee, remark)


@dataclass(frozen=True)
class moving_reference:
    r"""A rule whose reference becomes its own policy every so many steps (theory 6.8, 6.11).

    In between, `rule` approaches the equilibrium of the game whose reference that policy is; with enough steps this is
    `proximal_point`, and tends to a winner of the game at ``beta = 0``. With too few it circles: at ``every=1`` WIND's
    step is that of multiplicative weights (`bounds.moving_local_rate`). How far the average policy of WIND's rounds is
    from a winner is bounded by `bounds.moving_gap_bound` (theory 6.12). For tables, learners and language models alike,
    this is the method of COMAL (arXiv 2410.23223) and magnetic preference optimisation (arXiv 2410.16714).

    Parameters
    ----------
    rule : Rule
        One whose fixed point is the equilibrium, such as ``wind()``.
    every : int
        Number of steps, or rounds of a learner, after which the reference is renewed.
    beta : float, array of one per context, or None
        The `beta` of the game whose reference moves; that of the game solved if None. A game at ``beta = 0`` measures
        how far the policy is from a winner, and needs one here.

    Examples
    --------
    >>> import windgames as wg
    >>> rock_paper_scissors = wg.MatrixPreference([[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]])
    >>> game = wg.WinRateGame(rock_paper_scissors, ref=[0.9, 0.05, 0.05], beta=0.0)
    >>> print(wg.solve(game, wg.moving_reference(wg.wind(), every=50, beta=0.2)).policy.round(3))
    [0.333 0.333 0.333]
    """

    rule: Rule
    every: int
    beta: Any = None
    name: ClassVar[str] = "moving reference"

    def __post_init__(self) -> None:
        if not is_rule(self.rule):
            raise ValueError(f"rule must be a rule such as windgames.wind(), but it is {self.rule!r}.")
        at_least(self.every, "every", 1)
        if self.beta is not None:
            object.__setattr__(self, "beta", per_context(self.beta, "beta"))

    def plan(self, game: Game | GameConstants) -> Plan:
        if game.kind != "win-rate":
            raise ValueError(f"Moving the reference is for win-rate games (theory 6.8), not {game!r}.")
        beta = game.beta if self.beta is None else _step_per_context(self.beta, game)
        if np.any(to_numpy(beta) == 0):
            raise ValueError(
                "A moving reference needs a positive beta, but the game has beta = 0: pass beta to the rule."
            )
        plan = self.rule.plan(GameConstants(game.kind, beta, game.interaction, batch_shape=game.batch_shape))
        if plan.fixed_point != "equilibrium":
            raise ValueError(f"{self.rule.name} does not tend to an equilibrium, which is to be the next reference.")
        stages = tuple(replace(stage, ref="magnet") if stage.ref == "ref" else stage for stage in plan.stages)
        remark = "The reference moves: the policy tends to a winner of the game at beta = 0 if `every` is large enough."
        return Plan(
            stages,
            {"rule": self.rule.name, "every": self.every, "beta": to_numpy(beta)} | dict(plan.settings),
            "equilibrium" if np.all(to_numpy(game.beta) == 0) else "unregularised",
            remark=remark,
            renew={"magnet": self.every} | dict(plan.renew),
        )


# -- steps and theorems ------------------------------------------------------------------------------------


def _check_step(rule: Any, required: bool = True) -> None:
    """Replace the rule's `eta` by a positive float or array; None stays where a theorem may set the step."""
    if rule.eta is not None:
        object.__setattr__(rule, "eta", per_context(rule.eta, "eta"))
    elif required:
        raise ValueError(f"No theorem sets the step of {rule.name}: pass eta.")


def _proximal_step(
    rule: wind | extragradient | optimistic,
    game: Game | GameConstants,
    theorem: str,
    max_step: Any,
    constant: float = 1.0,
) -> tuple[Any, Guarantee | None, str]:
    """Return the step, the theorem if it applies, and a remark if it does not."""
    eta, beta = rule.eta, _numpy_beta(game)
    if game.kind == "win-rate":
        largest = np.broadcast_to(max_step(beta, game.interaction), game.batch_shape)
        if eta is None:
            if np.any(largest == 0):
                raise ValueError(
                    "At beta = 0 no theorem gives a step to WIND's last iterate. Pass eta, use extragradient(), or use "
                    "windgames.equilibrium, which computes the von Neumann winner."
                )
            # at beta = 0 a game without interaction takes any step
            eta = np.where(np.isinf(largest) & (beta == 0), 1.0, largest)
        eta = _step_per_context(eta, game)
        if np.any(eta > largest * (1 + 1e-12)):
            remark = (
                f"eta = {np.max(eta):.6g} is outside theorem {theorem}, which allows up to {np.min(largest):.6g} on "
                f"this game."
            )
            return eta, None, remark
        if np.any(beta == 0):
            return eta, None, "At beta = 0 the theorem gives no rate."
        rate = bounds.linear_rate(beta, eta)
        return eta, Guarantee(f"theory {theorem}", "kl_from_solution", rate, constant=constant), ""
    covered = game.kind in LOG_PAYOFF_GAMES and isinstance(rule, wind)
    if eta is None:
        if not covered:
            raise ValueError(f"No theorem gives {rule.name} a step on {game!r}. Pass eta.")
        if np.any(beta <= game.contraction):
            raise ValueError(
                "No theorem gives a step on a log payoff at beta <= kappa (theory 3.7): several equilibria may "
                "exist there. Pass eta; from the reference every eta leads to the same one for weak ties (theory 3.10)."
            )
        eta = inf
    eta = _step_per_context(eta, game)
    if not covered:
        return eta, None, f"No theorem covers {rule.name} on this payoff."
    return eta, *_log_guarantee(game, eta)


def _log_guarantee(game: Game | GameConstants, eta: Any) -> tuple[Guarantee | None, str]:
    beta = _numpy_beta(game)
    if np.any(beta <= game.contraction):
        return None, (
            "beta is not above the contraction constant of the payoff (theory 3.7): no rate is proven, other "
            "equilibria may exist, and policies may collapse."
        )
    factor = bounds.log_payoff_contraction(beta, eta, game.contraction)
    return Guarantee("theory 3.7", "hilbert_to_solution", factor), ""


def _numpy_beta(game: Game | GameConstants) -> Any:
    return np.asarray(to_numpy(game.beta), dtype=float)[()]


def _step_per_context(eta: Any, game: Game | GameConstants) -> Any:
    """Return one step as a float, several as a numpy array with one entry per context."""
    values = np.asarray(to_numpy(eta), dtype=float)
    if np.all(values == values.flat[0]):
        return float(values.flat[0])
    try:
        return np.broadcast_to(values, game.batch_shape)
    except ValueError:
        raise ValueError(f"eta has shape {values.shape}, but the game's contexts are {game.batch_shape}.") from None


def _reference_weight(name: str, eta: Any, beta: Any) -> Any:
    """Return the weight of the reference, ``eta * beta``, which must stay below 1."""
    weight = eta * beta
    if np.any(weight >= 1):
        raise ValueError(f"{name} needs eta * beta < 1, but it is {np.max(weight):g}: lower eta.")
    return weight

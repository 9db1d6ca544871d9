r"""The update, once, and the rules that are built from it.

Every learner of the paper and of its neighbourhood takes a proximal step: stay near the current policy, stay near
the reference, follow a payoff. :func:`target` is that step. A *stage* says from which policy to start it and against
which policies to evaluate the payoff; a *rule* is a short list of stages. A tabular policy normalises the target; a
sampled or neural one regresses onto it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Protocol, runtime_checkable

import numpy as np

from . import bounds
from ._array import Array, array_namespace, columns, is_array_api_obj, like, log_normalize, scale, to_numpy
from ._validation import number
from .games import BestOfNGame, Game, LogWinRateGame, WinRateGame


def target(log_policy: Array, log_ref: Array, payoff: Array, *, beta: Any, eta: Any) -> Array:
    r"""Return the unnormalised log-policy of the next iterate: the one update of this project (theory 5.1).

    .. math::
        \frac{\log\pi + \beta\eta\log\rho + \eta\,u}{1+\beta\eta}
        = \frac{\frac1\eta\log\pi + \beta\log\rho + u}{\frac1\eta + \beta}

    Its softmax maximises :math:`\langle p,u\rangle - \beta KL(p\|\rho) - \frac1\eta KL(p\|\pi)`. At
    :math:`\beta=0` it is multiplicative weights, at :math:`\eta=\infty` the best response. On a log payoff it is
    iterative best-of-n (theory 3.5). A constant added to `payoff` changes nothing after normalisation.

    Parameters
    ----------
    log_policy, log_ref, payoff : arrays that broadcast to ``(..., m)``
    beta, eta : float or array that broadcasts against them (per context: shape ``(..., 1)``)
        Not both may be degenerate: ``beta >= 0``, ``eta > 0``, and ``eta`` finite where ``beta = 0``.
    """
    inverse_eta = 1 / eta
    return (scale(inverse_eta, log_policy) + beta * log_ref + payoff) / (inverse_eta + beta)


# -- what a rule is ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """One application of the target: ``slot[out] = normalise(target(slot[start], ref, payoff, beta, eta))``.

    The payoff is the sum of the game's payoffs against the slots named in `against`, with weights that are numbers or
    one per context; nothing there means
    no payoff, a geometric mixture with the reference. Slots: ``current`` and ``previous`` iterates, and whatever
    earlier stages have written (``half``, ``mixture``).
    """

    beta: Any
    eta: Any
    start: str = "current"
    against: Mapping[str, Any] = field(default_factory=lambda: {"current": 1.0})
    out: str = "current"

    @np.errstate(over="ignore")  # the logarithm of a dying mass may overflow to -inf, which is what it means
    def run(self, game: Game, slots: dict[str, Array], payoff: Any) -> Array:
        """Return the next log-policy; `payoff` maps a slot's name to the payoff against it."""
        log_policy = slots[self.start]
        xp = array_namespace(log_policy)
        total = xp.zeros_like(log_policy)
        for slot, weight in self.against.items():
            total = total + _in_dtype(columns(weight), log_policy) * payoff(slot)
        log_ref = xp.astype(game.log_ref, log_policy.dtype)
        beta, eta = (_in_dtype(columns(x), log_policy) for x in (self.beta, self.eta))
        return log_normalize(target(log_policy, log_ref, total, beta=beta, eta=eta))


DISTANCES = ("kl_to_solution", "kl_from_solution", "hilbert_to_solution")
"""Distances to the equilibrium that a trace records and a theorem may bound."""
FIXED_POINTS = ("equilibrium", "unregularised", "none")


@dataclass(frozen=True)
class Guarantee:
    r"""A theorem about a rule on a game: ``quantity_t <= constant * factor**t * quantity_0 + floor``."""

    statement: str
    quantity: str
    """Which of `Trace`'s quantities it bounds: one of `DISTANCES`."""
    factor: np.ndarray
    floor: np.ndarray | float = 0.0
    constant: float = 1.0

    def __post_init__(self) -> None:
        if self.quantity not in DISTANCES:
            raise ValueError(
                f"A guarantee bounds one of {', '.join(DISTANCES)}, but its quantity is {self.quantity!r}."
            )

    def bound(self, initial: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Return the bound at each step, shape ``(len(steps), ...)``."""
        values = bounds.geometric_bound(self.constant * initial, self.factor, steps, self.floor)
        return np.moveaxis(np.asarray(values), -1, 0)


@dataclass(frozen=True)
class Plan:
    """What a rule makes of one game."""

    stages: tuple[Stage, ...]
    settings: Mapping[str, Any]
    fixed_point: str
    """``"equilibrium"`` of this game, ``"unregularised"`` (of the game at beta = 0), or ``"none"`` of these."""
    guarantee: Guarantee | None = None
    remark: str = ""
    """A sentence for the status when no theorem applies: why, and what to change."""

    def __post_init__(self) -> None:
        if self.fixed_point not in FIXED_POINTS:
            raise ValueError(f"fixed_point must be one of {FIXED_POINTS}, but it is {self.fixed_point!r}.")
        written = {"current", "previous"}
        for stage in self.stages:
            unknown = sorted({stage.start, *stage.against} - written)
            if unknown:
                raise ValueError(f"A stage reads slot {unknown[0]!r}, but only {sorted(written)} are written by then.")
            written.add(stage.out)


@runtime_checkable
class Rule(Protocol):
    """Anything with a name that turns a game into a plan is a rule; `windgames.testing.check_rule` examines it."""

    @property
    def name(self) -> str:
        """What the rule is called."""
        ...

    def plan(self, game: Game) -> Plan:
        """Return stages, settings, fixed point and guarantee for this game, or raise ValueError."""
        ...


# -- the rules ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wind:
    """See `wind`."""

    eta: Any = None
    name: str = "WIND"

    def plan(self, game: Game) -> Plan:
        eta, guarantee, remark = _proximal(self.eta, game, "wind")
        return _equilibrium_plan((Stage(game.beta, eta),), eta, guarantee, remark)


def wind(eta: Any = None) -> Wind:
    r"""WIND, the paper's Algorithm 2: magnetic mirror descent (theory 5.1, 5.2).

    .. math:: \pi_{t+1} \propto \pi_t^{1/(1+\beta\eta)}\,\rho^{\beta\eta/(1+\beta\eta)}\,
              \exp\left(\tfrac{\eta}{1+\beta\eta} u(\pi_t)\right)

    On a win-rate game :math:`KL(\pi^*\|\pi_t) \le (1+\beta\eta)^{-t} KL(\pi^*\|\pi_0)` for
    :math:`0 < \eta \le 4\beta/L^2` (paper: :math:`\eta\le\beta`). On a log payoff the Hilbert distance contracts by
    :math:`(1+\eta\kappa)/(1+\beta\eta)` for :math:`\beta>\kappa` (theory 3.7).

    Parameters
    ----------
    eta : float, array of one per context, or None
        Step size. None takes the largest that the theorem allows for the game; where no theorem applies that is
        an error. A larger one runs, and the status says that it is outside the theorem.
    """
    return Wind(_check_step(eta))


@dataclass(frozen=True)
class Extragradient:
    """See `extragradient`."""

    eta: Any = None
    name: str = "extragradient"

    def plan(self, game: Game) -> Plan:
        eta, guarantee, remark = _proximal(self.eta, game, "extragradient")
        look = Stage(game.beta, eta, out="half")
        step = Stage(game.beta, eta, against={"half": 1.0})
        return _equilibrium_plan((look, step), eta, guarantee, remark)


def extragradient(eta: Any = None) -> Extragradient:
    r"""Mirror prox: a half step, then the full step from the same policy with the half step's payoff (theory 5.4).

    :math:`KL(\pi^*\|\pi_t) \le (1+\beta\eta)^{-t} KL(\pi^*\|\pi_0)` on a win-rate game for
    :math:`0<\eta\le 2(\beta+\sqrt{\beta^2+L^2})/L^2`: for small `beta` about :math:`1/(2\beta)` steps per factor e
    where WIND needs :math:`1/(4\beta^2)`. Two payoffs a step.

    Parameters
    ----------
    eta : float, array or None
        As in `wind`.
    """
    return Extragradient(_check_step(eta))


@dataclass(frozen=True)
class IterativeBestOfN:
    """See `iterative_bon`."""

    n: float
    alpha1: float
    alpha2: float = 0.0
    name: str = "iterative best-of-n"

    def plan(self, game: Game) -> Plan:
        n, alpha1, alpha2 = self.n, self.alpha1, self.alpha2
        beta, eta = float(bounds.implied_beta(n, alpha1, alpha2)), float(bounds.implied_eta(n, alpha1, alpha2))
        if not isinstance(game, LogWinRateGame | BestOfNGame):
            raise ValueError(
                f"Iterative best-of-n solves a log-win-rate game, not {game!r}. Power form: "
                f"LogWinRateGame.from_best_of_n; exact form: BestOfNGame.from_best_of_n."
            )
        if isinstance(game, BestOfNGame) and game.n != n:
            raise ValueError(f"The game is that of n = {game.n:g} draws, but the rule draws n = {n:g}.")
        given = to_numpy(game.beta)
        if not np.allclose(given, beta, rtol=1e-9, atol=1e-12):
            raise ValueError(
                f"n = {n:g}, alpha1 = {alpha1:g}, alpha2 = {alpha2:g} imply beta = {beta:.12g}, but the game has "
                f"beta = {given}. Build the game with {type(game).__name__}.from_best_of_n."
            )
        form = "exact" if isinstance(game, BestOfNGame) else "power"
        settings = {"n": n, "alpha1": alpha1, "alpha2": alpha2, "form": form}
        guarantee, remark = _log_guarantee(game, eta)
        return Plan((Stage(game.beta, eta),), settings, "equilibrium", guarantee, remark)


def iterative_bon(n: float, alpha1: float, alpha2: float = 0.0) -> IterativeBestOfN:
    r"""Iterative best-of-n with mixing, the paper's Algorithm 1 (theory 3.5).

    :math:`\pi_{t+1} \propto B_n(\pi_t)^{\alpha_1}\pi_t^{\alpha_2}\rho^{1-\alpha_1-\alpha_2}`, which is WIND's step
    on a log payoff. Exact form on `BestOfNGame`, power form on `LogWinRateGame`; on a game whose `beta` is not the
    implied one it is an error. Contracts by :math:`n\alpha_1+\alpha_2` in the Hilbert metric (theory 3.7).
    """
    n, alpha1, alpha2 = (number(x, name) for x, name in ((n, "n"), (alpha1, "alpha1"), (alpha2, "alpha2")))
    bounds.implied_eta(n, alpha1, alpha2)
    return IterativeBestOfN(n, alpha1, alpha2)


@dataclass(frozen=True)
class Sppo:
    """See `sppo`."""

    eta: Any
    name: str = "SPPO"

    def plan(self, game: Game) -> Plan:
        eta = _match(self.eta, game)
        remark = "SPPO has no pull to the reference: its fixed points are not equilibria of the regularised game."
        return Plan((Stage(0.0, eta),), {"eta": eta}, "unregularised", None, remark)


def sppo(eta: Any) -> Sppo:
    r"""Self-play preference optimisation in its population form, multiplicative weights (theory 5.7).

    :math:`\pi_{t+1}\propto\pi_t\exp(\eta P\pi_t)`: the target at ``beta = 0``. The last iterate may cycle or
    collapse; no theorem bounds it here.
    """
    return Sppo(_check_step(eta, required=True))


@dataclass(frozen=True)
class NashMD:
    """See `nash_md`."""

    eta: Any
    name: str = "Nash-MD"

    def plan(self, game: Game) -> Plan:
        eta = _match(self.eta, game)
        beta = _beta_like(game, eta)
        weight = _checked_weight(self.name, eta, beta)
        mix = Stage(beta, eta / (1 - weight), against={}, out="mixture")
        step = Stage(0.0, eta, start="mixture", against={"mixture": 1.0})
        guarantee = None
        if isinstance(game, WinRateGame):
            beta = np.asarray(to_numpy(beta))
            if np.all(beta > 0):
                floor = np.asarray(bounds.nash_md_floor(beta, to_numpy(eta)))
                guarantee = Guarantee("theory 5.7", "kl_from_solution", np.asarray(to_numpy(1 - weight)), floor)
        remark = "Nash-MD's fixed point is only within order eta of the equilibrium: lower eta for a closer one."
        return Plan((mix, step), {"eta": eta}, "none", guarantee, remark)


def nash_md(eta: Any) -> NashMD:
    r"""Nash mirror descent (Munos et al. 2023): multiplicative weights from a mixture with the reference.

    :math:`\pi_{t+1}\propto\tilde\pi_t\exp(\eta P\tilde\pi_t)` with
    :math:`\tilde\pi_t\propto\pi_t^{1-\eta\beta}\rho^{\eta\beta}`. Converges to within :math:`\eta/(24\beta)` of the
    equilibrium in :math:`KL(\pi^*\|\pi)`, not to it (theory 5.7; the published constant is 2 in place of 1/24), and
    from the reference to within order :math:`\eta^2` (theory 5.13, `bounds.nash_md_floor`).
    Needs ``eta * beta < 1``.
    """
    return NashMD(_check_step(eta, required=True))


@dataclass(frozen=True)
class OptimisticMirrorDescent:
    """See `omwu`."""

    eta: Any
    name: str = "OMWU"

    def plan(self, game: Game) -> Plan:
        eta = _match(self.eta, game)
        stage = Stage(game.beta, eta, against={"current": 2.0, "previous": -1.0})
        return Plan((stage,), {"eta": eta}, "equilibrium", None, "No bound is given for OMWU's last iterate here.")


def omwu(eta: Any) -> OptimisticMirrorDescent:
    r"""Optimistic multiplicative weights: WIND's step with the payoff :math:`2u(\pi_t)-u(\pi_{t-1})` (theory 5.7).

    One payoff a step where the extragradient takes two. At ``beta = 0`` it is the classical OMWU.
    """
    return OptimisticMirrorDescent(_check_step(eta, required=True))


@dataclass(frozen=True)
class Inpo:
    """See `inpo`."""

    eta: Any
    name: str = "INPO"

    def plan(self, game: Game) -> Plan:
        eta = _match(self.eta, game)
        weight = _checked_weight(self.name, eta, _beta_like(game, eta))
        proximal = eta / (1 - weight)
        plan = Wind(proximal).plan(game)
        return Plan(plan.stages, {"eta": eta, "eta of WIND": proximal}, "equilibrium", plan.guarantee, plan.remark)


def inpo(eta: Any) -> Inpo:
    r"""Online mirror descent, INPO's step (theory 5.7).

    :math:`\pi_{t+1}\propto\pi_t^{1-\eta\beta}\rho^{\eta\beta}\exp(\eta P\pi_t)`, which is WIND's step at
    :math:`\eta/(1-\eta\beta)` and inherits its theorem. Needs ``eta * beta < 1``.
    """
    return Inpo(_check_step(eta, required=True))


@dataclass(frozen=True)
class Optimistic:
    """See `optimistic`."""

    eta: Any = None
    name: str = "optimistic"

    def plan(self, game: Game) -> Plan:
        eta, guarantee, remark = _proximal(self.eta, game, "optimistic")
        weight = 1 / (1 + _beta_like(game, eta) * eta)
        stage = Stage(game.beta, eta, against={"current": 1 + weight, "previous": -weight})
        return _equilibrium_plan((stage,), eta, guarantee, remark)


def optimistic(eta: Any = None) -> Optimistic:
    r"""Popov's method: the extragradient's order for one payoff a step (theory 5.11).

    WIND's step with the payoff :math:`(1+a)u(\pi_t)-a\,u(\pi_{t-1})`, :math:`a=1/(1+\beta\eta)`. The weights are those
    for which :math:`\pi_{t+1}` and the next anchor are steps from the same anchor; `omwu` has 2 and -1. On a win-rate
    game :math:`KL(\pi^*\|\pi_t)\le2(1+\beta\eta)^{-t}KL(\pi^*\|\pi_0)` for
    :math:`0<\eta\le(\beta+\sqrt{\beta^2+6L^2})/(3L^2)`.

    Parameters
    ----------
    eta : float, array or None
        As in `wind`.
    """
    return Optimistic(_check_step(eta))


# -- steps and theorems ------------------------------------------------------------------------------------


def _proximal(eta: Any, game: Game, kind: str) -> tuple[Any, Guarantee | None, str]:
    """Return the step, the theorem if it applies, and a remark if it does not."""
    beta = np.asarray(to_numpy(game.beta), dtype=float)
    if isinstance(game, WinRateGame):
        number, largest_step, constant = THEOREMS[kind]
        largest = largest_step(game)
        if eta is None:
            if np.any(largest == 0):
                raise ValueError(
                    "At beta = 0 no theorem gives WIND's last iterate a step. Pass eta, take extragradient(), or "
                    "windgames.equilibrium, which solves the linear program."
                )
            # at beta = 0 a game without interaction takes any step
            eta = np.where(np.isinf(largest) & (beta == 0), 1.0, largest)
        eta = _match(eta, game)
        eta_numpy = np.asarray(to_numpy(eta), dtype=float)
        if np.any(eta_numpy > largest * (1 + 1e-12)):
            worst = float(np.max(eta_numpy))
            limit = float(np.min(largest))
            remark = f"eta = {worst:.6g} is outside theorem {number}, which allows up to {limit:.6g} on this game."
            return eta, None, remark
        if np.any(beta == 0):
            return eta, None, "At beta = 0 the theorem gives no rate."
        factor = bounds.linear_rate(beta, eta_numpy)
        return eta, Guarantee(f"theory {number}", "kl_from_solution", np.asarray(factor), constant=constant), ""
    if kind != "wind":
        if eta is None:
            raise ValueError(f"No theorem gives {kind}() a step on a log payoff. Pass eta, or take wind().")
        return _match(eta, game), None, f"No theorem covers {kind}() on a log payoff."
    if eta is None:
        if np.any(beta <= _contraction(game)):
            raise ValueError(
                "No theorem gives a step on a log payoff at beta <= kappa (theory 3.7): several equilibria may "
                "exist there. Pass eta; from the reference every eta leads to the same one for weak ties (theory 3.10)."
            )
        eta = inf
    eta = _match(eta, game)
    guarantee, remark = _log_guarantee(game, eta)
    return eta, guarantee, remark


def wind_step(game: Game) -> np.ndarray:
    """Return the largest step of theory 5.2 for this game, per context."""
    largest = bounds.wind_max_step(np.asarray(to_numpy(game.beta), dtype=float), game.preference.interaction)
    return np.broadcast_to(largest, game.batch_shape)


def extragradient_step(game: Game) -> np.ndarray:
    """Return the largest step of theory 5.4 for this game, per context."""
    beta = np.asarray(to_numpy(game.beta), dtype=float)
    return np.broadcast_to(bounds.extragradient_max_step(beta, game.preference.interaction), game.batch_shape)


def optimistic_step(game: Game) -> np.ndarray:
    """Return the largest step of theory 5.11 for this game, per context."""
    beta = np.asarray(to_numpy(game.beta), dtype=float)
    return np.broadcast_to(bounds.optimistic_max_step(beta, game.preference.interaction), game.batch_shape)


THEOREMS = {
    "wind": ("5.2", wind_step, 1.0),
    "extragradient": ("5.4", extragradient_step, 1.0),
    "optimistic": ("5.11", optimistic_step, 2.0),
}
"""For the rules whose steps a theorem on win-rate games bounds: its number, the largest step, the constant."""


def _contraction(game: Game) -> np.ndarray:
    return getattr(game, "contraction", np.ones(game.batch_shape))


def _log_guarantee(game: Game, eta: Any) -> tuple[Guarantee | None, str]:
    beta = np.asarray(to_numpy(game.beta), dtype=float)
    kappa = _contraction(game)
    if np.any(beta <= kappa):
        return None, (
            "beta is not above the contraction constant of the payoff (theory 3.7): no rate is proven, other "
            "equilibria may exist, and policies may collapse."
        )
    factor = bounds.log_payoff_contraction(beta, np.asarray(to_numpy(eta), dtype=float), kappa)
    return Guarantee("theory 3.7", "hilbert_to_solution", np.asarray(factor)), ""


def _equilibrium_plan(stages: tuple[Stage, ...], eta: Any, guarantee: Guarantee | None, remark: str) -> Plan:
    return Plan(stages, {"eta": eta}, "equilibrium", guarantee, remark)


def _check_step(eta: Any, required: bool = False) -> Any:
    if eta is None:
        if required:
            raise ValueError("This rule has no theorem that sets its step: pass eta.")
        return None
    try:
        values = np.asarray(to_numpy(eta), dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"eta must be a number or one per context, but it is {eta!r}.") from None
    if values.size == 0 or not np.all((values > 0) & (values < inf)):
        raise ValueError(f"eta must be positive and finite, but it is {eta}.")
    return eta


def _match(eta: Any, game: Game) -> Any:
    """Return one step as a float, several as an array of the game's library with one entry per context."""
    values = np.asarray(to_numpy(eta), dtype=float)
    if values.ndim == 0:
        return float(values)
    if np.all(values == values.flat[0]):
        return float(values.flat[0])
    try:
        values = np.broadcast_to(values, game.batch_shape)
    except ValueError:
        raise ValueError(f"eta has shape {values.shape}, but the game's contexts are {game.batch_shape}.") from None
    return like(values.copy(), game.log_ref)


def _beta_like(game: Game, eta: Any) -> Any:
    if not is_array_api_obj(game.beta):
        return game.beta
    return like(to_numpy(game.beta), game.log_ref)


def _checked_weight(name: str, eta: Any, beta: Any) -> Any:
    weight = eta * beta
    if np.any(to_numpy(weight) >= 1):
        raise ValueError(f"{name} needs eta * beta < 1, but it is {float(np.max(to_numpy(weight))):g}: lower eta.")
    return weight


def _in_dtype(x: Any, example: Array) -> Any:
    if not is_array_api_obj(x):
        return x
    xp = array_namespace(example)
    return xp.astype(like(to_numpy(x), example), example.dtype)

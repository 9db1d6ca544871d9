r"""The update that all rules share, and the protocol of a rule.

Every learner of the paper and its relatives takes a proximal step: stay near the current policy, stay near the
reference, follow a payoff. :func:`target` is that step. A *stage* says from which policy to take it and against which
policies to evaluate the payoff; a *rule* is a short list of stages. A tabular policy normalises the target; a sampled
or neural one regresses onto it. `windgames.rules` has the rules themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Protocol, runtime_checkable

import numpy as np

from . import bounds
from ._array import Array, array_namespace, columns, is_array_api_obj, is_traced, like, log_normalize, scale, to_numpy
from ._validation import first_index, fraction, numbers, one_of, per_context, positive
from .games import Game


def target(log_policy: Array, log_ref: Array, payoff: Array, *, beta: Any, eta: Any) -> Array:
    r"""Return the unnormalised log-policy of the next iterate, the update behind every rule (theory 5.1).

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
        ``beta >= 0`` and ``eta > 0``, with ``eta`` finite where ``beta = 0``.
    """
    inverse_eta = 1 / eta
    return (scale(inverse_eta, log_policy) + beta * log_ref + payoff) / (inverse_eta + beta)


# -- rules -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """One application of the target: ``slot[out] = normalise(target(slot[start], ref, payoff, beta, eta))``.

    The payoff is the sum of the game's payoffs against the slots named in `against`, with weights that are numbers or
    one per context. An empty `against` means no payoff: a geometric mixture with the reference. Slots are the
    ``current`` and the ``previous`` iterate and whatever earlier stages have written (``half``, ``mixture``). The
    reference is the game's, or a slot that the plan renews (`Plan.renew`).
    """

    beta: Any
    eta: Any
    start: str = "current"
    against: Mapping[str, Any] = field(default_factory=lambda: {"current": 1.0})
    out: str = "current"
    ref: str = "ref"

    def __post_init__(self) -> None:
        if not isinstance(self.against, Mapping):
            raise ValueError(f'against must map slots to weights, such as {{"current": 1.0}}, not {self.against!r}.')
        if is_traced(self.beta) or is_traced(self.eta):
            return
        eta, beta = positive(self.eta, "eta", infinite=True), positive(self.beta, "beta", zero=True)
        if np.any(eta == inf) and np.any(beta == 0):
            raise ValueError("eta must be finite where beta = 0, since nothing else bounds the step.")
        for slot, weight in self.against.items():
            where = first_index(~np.isfinite(numbers(weight, f"The weight against {slot!r}")))
            if where is not None:
                raise ValueError(f"The weight against {slot!r} must be finite, but it is {weight!r}.")

    @np.errstate(over="ignore")  # the logarithm of a vanishing mass may overflow to -inf, its limit
    def run(self, game: Game, slots: dict[str, Array], payoff: Any) -> Array:
        """Return the next log-policy; `payoff` maps a slot's name to the payoff against it."""
        log_policy = slots[self.start]
        xp = array_namespace(log_policy)
        total = xp.zeros_like(log_policy)
        for slot, weight in self.against.items():
            total = total + _in_dtype(columns(weight), log_policy) * payoff(slot)
        log_ref = xp.astype(slots.get(self.ref, game.log_ref), log_policy.dtype)
        beta, eta = (_in_dtype(columns(x), log_policy) for x in (self.beta, self.eta))
        return log_normalize(target(log_policy, log_ref, total, beta=beta, eta=eta))


DISTANCES = ("kl_to_solution", "kl_from_solution", "hilbert_to_solution")
"""Distances to the equilibrium that a trace records and a theorem may bound."""
FIXED_POINTS = ("equilibrium", "unregularised", "none")
"""Values of `Plan.fixed_point`."""


@dataclass(frozen=True)
class Guarantee:
    r"""A theorem about a rule on a game: ``quantity_t <= constant * factor**t * quantity_0 + floor``."""

    statement: str
    """Where it is proven, such as ``"theory 5.2"``."""
    quantity: str
    """Which of `Trace`'s quantities it bounds: one of `DISTANCES`."""
    factor: np.ndarray
    """Factor per step."""
    floor: np.ndarray | float = 0.0
    """Additive term that the bound does not fall below."""
    constant: float = 1.0
    """Factor of the initial distance."""

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
    """The stages that a rule runs on one game, with their fixed point and guarantee."""

    stages: tuple[Stage, ...]
    """The stages of a step, in order."""
    settings: Mapping[str, Any]
    """Parameters to report with the solution, such as the step size."""
    fixed_point: str
    """``"equilibrium"`` of this game, ``"unregularised"`` (of the game at beta = 0), or ``"none"`` of these."""
    guarantee: Guarantee | None = None
    """The theorem that bounds the iterates, if one applies."""
    remark: str = ""
    """A sentence for the status where no theorem applies: why, and what to change."""
    renew: Mapping[str, int] = field(default_factory=dict)
    """Slots that serve as a moving reference, with the number of steps after which each becomes the current policy. All
    hold the policy of the start at first."""

    def __post_init__(self) -> None:
        if self.fixed_point not in FIXED_POINTS:
            raise ValueError(f"fixed_point must be one of {FIXED_POINTS}, but it is {self.fixed_point!r}.")
        if not isinstance(self.stages, list | tuple) or not all(isinstance(stage, Stage) for stage in self.stages):
            raise ValueError(f"stages must be a tuple of Stage, such as (stage,), but they are {self.stages!r}.")
        written = {"current", "previous", *self.renew}
        for stage in self.stages:
            unknown = sorted({stage.start, *stage.against, stage.ref} - written - {"ref"})
            if unknown:
                raise ValueError(f"A stage reads slot {unknown[0]!r}, but only {sorted(written)} are written by then.")
            written.add(stage.out)
        if not any(stage.out == "current" for stage in self.stages):
            raise ValueError("No stage writes 'current', so the policy would never change: give the last one that out.")

    def local_rate(self, beta: Any, frequency: Any) -> np.ndarray | None:
        r"""Return the factor per step of the divergence near an equilibrium, in a direction of that frequency.

        Near it a slot is a complex number and the payoff multiplies by :math:`i\sigma` (theory 5.10), so that a step is
        a 2 by 2 matrix that acts on the current and the previous iterate; the factor is its squared spectral radius. Of
        `wind` it is `bounds.local_rate`. Where a reference is renewed every `k` steps, a round is such a matrix, and
        the factor is the `k`-th root of that of a round (theory 6.11; `bounds.moving_local_rate`).

        Parameters
        ----------
        beta, frequency : float or arrays that broadcast
            `beta` of the game, one of `bounds.tangent_frequencies` at the equilibrium.

        Returns
        -------
        array or None
            None if the plan does not keep the equilibrium of the game in all of its slots, or renews two of them at
            different times.
        """
        beta, sigma = np.broadcast_arrays(to_numpy(beta), to_numpy(frequency))
        if len(set(self.renew.values())) > 1:
            return None
        current, previous, moving = np.multiply.outer(np.eye(3), np.ones_like(sigma)).astype(complex)
        still = np.zeros_like(current)  # the reference of the game
        slots = {"current": current, "previous": previous, "ref": still, **dict.fromkeys(self.renew, moving)}
        for stage in self.stages:
            weights = sum((np.asarray(to_numpy(w)) for w in stage.against.values()), np.asarray(0.0))
            own = np.asarray(to_numpy(stage.beta), dtype=float)
            if (stage.ref == "ref" and not np.all(own == beta)) or not np.allclose(weights, 1, rtol=0, atol=1e-12):
                return None
            inverse_eta = 1 / np.asarray(to_numpy(stage.eta), dtype=float)
            payoff = sum(np.asarray(to_numpy(w)) * slots[slot] for slot, w in stage.against.items())
            pull = inverse_eta * slots[stage.start] + own * slots[stage.ref]
            slots[stage.out] = (pull + 1j * sigma * payoff) / (inverse_eta + own)
        step = np.moveaxis(np.stack([slots["current"], current, moving]), (0, 1), (-2, -1))
        every = next(iter(self.renew.values()), 1)
        a_round = np.linalg.matrix_power(step, every)[..., :2, :]
        a_round[..., 0] += a_round[..., 2]  # what is renewed begins as the current policy; all else does not move
        (a, b), (c, d) = np.moveaxis(a_round[..., :2], (-2, -1), (0, 1))
        middle, root = (a + d) / 2, np.sqrt(((a - d) / 2) ** 2 + b * c)
        return np.maximum(np.abs(middle + root), np.abs(middle - root)) ** (2 / every)


@dataclass(frozen=True)
class GameConstants:
    """The constants of a game that a rule needs for its plan, where no `Game` can be built, as for a language model.

    A `Game` has the same attributes, so a rule accepts either.
    """

    kind: str
    """The payoff: ``"win-rate"``, ``"log-win-rate"`` or ``"best-of-n"``."""
    beta: Any
    """Strength of the regularisation, a float or one per context."""
    interaction: Any = 1.0
    """Interaction constant `L` of the preference (theory 5.2); 1 holds for all."""
    contraction: Any = 1.0
    """Hilbert-metric Lipschitz constant of a log payoff (theory 3.7); 1 holds for all."""
    n: float | None = None
    """Number of draws of a best-of-n game."""
    batch_shape: tuple[int, ...] = ()
    """Shape of the contexts."""

    def __post_init__(self) -> None:
        one_of(self.kind, "kind", ("win-rate", "log-win-rate", "best-of-n"))
        per_context(self.beta, "beta", zero=True)
        fraction(self.interaction, "interaction")
        fraction(self.contraction, "contraction")


@runtime_checkable
class Rule(Protocol):
    r"""Anything with a `name` and a `plan` is a rule; `windgames.testing.check_rule` examines it.

    `plan` may read `kind`, `beta`, `interaction`, `contraction`, `n` and `batch_shape` of the game. A rule that reads
    nothing else also trains language models.

    Examples
    --------
    WIND's step at half the largest size that is proven:

    >>> import windgames as wg
    >>> class Careful:
    ...     name = "careful"
    ...
    ...     def plan(self, game):
    ...         eta = 0.5 * wg.bounds.wind_max_step(game.beta, game.interaction)
    ...         return wg.Plan((wg.Stage(game.beta, eta),), {"eta": eta}, "equilibrium")
    >>> game = wg.WinRateGame(wg.RewardPreference([0.0, 1.0, 2.0]), ref=[0.5, 0.3, 0.2], beta=0.1)
    >>> bool(wg.solve(game, Careful()).converged)
    True
    """

    @property
    def name(self) -> str:
        """Name of the rule in solutions and reports."""
        ...

    def plan(self, game: Game | GameConstants) -> Plan:
        """Return stages, settings, fixed point and guarantee for this game, or raise ValueError."""
        ...


def is_rule(x: Any) -> bool:
    """Return whether `x` is a rule, and not a class of rules such as ``windgames.wind`` without parentheses."""
    return isinstance(x, Rule) and not isinstance(x, type)


def plan_of(rule: Rule, game: Game | GameConstants) -> Plan:
    """Return what a rule plans on a game, or say that it is no plan."""
    plan = rule.plan(game)
    if not isinstance(plan, Plan):
        raise ValueError(f"The plan of {rule.name} must be a windgames.Plan, but it is {plan!r}.")
    return plan


def _in_dtype(x: Any, example: Array) -> Any:
    if not is_array_api_obj(x):
        return x
    xp = array_namespace(example)
    return xp.astype(like(to_numpy(x), example), example.dtype)

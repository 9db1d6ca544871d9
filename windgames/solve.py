"""The one loop that runs a rule on a game, and what it returns.

The game judges every iterate; the rule never grades itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from math import ceil, inf, log
from typing import Any

import numpy as np

from . import bounds
from ._array import Array, array_namespace, broadcast, hilbert, is_array_api_obj, kl, log_normalize, to_numpy
from ._validation import positive_number, whole
from .games import BestOfNGame, Game, LogWinRateGame, WinRateGame, check_game, with_rounding
from .updates import DISTANCES, Guarantee, Plan, Rule

QUANTITIES = ("gap", "kl_certificate", "hilbert_certificate", "residual")


@dataclass(frozen=True, repr=False)
class Trace:
    r"""What the game said of each recorded iterate, as numpy arrays of shape ``(records, ...)``.

    The distances are there if a reference solution was given, else None. Mind the two directions of the
    divergence: certificates bound `kl_to_solution`, rates bound `kl_from_solution`, which may be far larger.
    """

    steps: np.ndarray
    gap: np.ndarray
    kl_certificate: np.ndarray
    hilbert_certificate: np.ndarray
    residual: np.ndarray
    kl_to_solution: np.ndarray | None = None
    r""":math:`KL(\pi_t\|\pi^*)`."""
    kl_from_solution: np.ndarray | None = None
    r""":math:`KL(\pi^*\|\pi_t)`."""
    hilbert_to_solution: np.ndarray | None = None
    r""":math:`h(\pi_t,\pi^*)`."""
    bound: np.ndarray | None = None
    """The theorem's bound on the quantity named by `bound_on`, with what the reference solution's own certificate
    leaves open; None where no theorem applies."""
    bound_on: str = ""
    theorem: str = ""

    def __repr__(self) -> str:
        there = [name for name in (*QUANTITIES, *DISTANCES) if getattr(self, name) is not None]
        bound = f"; {self.theorem} bounds {self.bound_on}" if self.theorem else ""
        return f"Trace of {len(self.steps)} records: {', '.join(there)}{bound}"

    def to_dict(self) -> dict[str, np.ndarray]:
        """Return the columns that exist, ready for ``pandas.DataFrame`` (contexts are flattened into columns)."""
        out: dict[str, np.ndarray] = {"steps": self.steps}
        for name in (*QUANTITIES, *DISTANCES, "bound"):
            values = getattr(self, name)
            if values is None:
                continue
            if values.ndim == 1:
                out[name] = values
            else:
                for index in np.ndindex(values.shape[1:]):
                    out[f"{name}[{','.join(map(str, index))}]"] = values[(slice(None), *index)]
        return out


@dataclass(frozen=True, repr=False)
class Solution:
    """A policy and all that is known about it.

    `gap`, `kl_certificate`, `hilbert_certificate`, `residual`, `converged` and `steps` have the shape of the
    contexts; `converged` means that the residual is at most the `tol` that was asked for.
    """

    game: Game
    log_policy: Array
    gap: np.ndarray
    kl_certificate: np.ndarray
    residual: np.ndarray
    converged: np.ndarray
    steps: np.ndarray
    status: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    trace: Trace | None = None

    @cached_property
    def policy(self) -> Array:
        """The policy as probabilities, shape ``(..., m)``."""
        return array_namespace(self.log_policy).exp(self.log_policy)

    @cached_property
    def support(self) -> Array:
        """Mask of the responses that are played at all."""
        return self.log_policy > -inf

    @cached_property
    def hilbert_certificate(self) -> np.ndarray:
        """Proven bound on the Hilbert distance to the equilibrium; infinite where none is known."""
        return to_numpy(self.game.hilbert_certificate(self.log_policy))

    def _rows(self) -> list[tuple[str, str]]:
        def most(x: np.ndarray) -> str:
            value = float(np.max(x)) if x.size else 0.0
            return "none known" if value == inf else f"{value:.2e}"

        contexts = int(np.prod(self.game.batch_shape))
        per_context = self.game.batch_shape != ()
        worst = " (worst context)" if per_context else ""
        sizes = to_numpy(self.support).sum(axis=-1)
        regularised = np.broadcast_to(to_numpy(self.game.beta) > 0, self.game.batch_shape)
        played = f"{sizes.min()}" if sizes.min() == sizes.max() else f"{sizes.min()} to {sizes.max()}"
        rows = [
            ("status", self.status),
            ("method", self.method + "".join(f", {k}={_short(v)}" for k, v in self.settings.items())),
            ("steps", f"{int(np.max(self.steps))}{worst}"),
            ("residual h(π, BR(π))", most(self.residual[regularised]) + worst),
            ("gap", most(self.gap) + worst),
            ("proven: KL(π‖π*) ≤", most(self.kl_certificate) + worst),
            ("proven: h(π, π*) ≤", most(self.hilbert_certificate) + worst),
            ("support", f"{played} of {self.game.n_responses} responses"),
        ]
        if not np.any(regularised):  # at beta = 0 the best response is not a point, and the gap is all there is
            rows = [row for row in rows if not row[0].startswith("residual")]
        if per_context:
            rows.insert(1, ("converged", f"{int(np.sum(self.converged))} of {contexts} contexts"))
        return rows

    def __repr__(self) -> str:
        rows = self._rows()
        width = max(len(name) for name, _ in rows)
        lines = "\n".join(f"  {name:<{width}}  {text}" for name, text in rows)
        return f"Solution of {self.game!r}\n{lines}"

    def _repr_html_(self) -> str:
        cells = "".join(f"<tr><th>{escape(a)}</th><td>{escape(b)}</td></tr>" for a, b in self._rows())
        return f"<table><caption>Solution of {escape(repr(self.game))}</caption>{cells}</table>"


def _short(value: Any) -> str:
    if is_array_api_obj(value) and value.ndim:
        values = to_numpy(value)
        return f"{values.min():.4g} to {values.max():.4g}"
    return value if isinstance(value, str) else f"{float(value):.6g}"


def solve(
    game: Game,
    rule: Rule,
    tol: float = 1e-10,
    max_steps: int = 10_000,
    start: Array | None = None,
    reference_solution: Solution | Array | None = None,
    callback: Callable[[int, Array], Any] | None = None,
) -> Solution:
    r"""Run a rule on a game and record what the game says of each iterate.

    For the equilibrium itself `windgames.equilibrium` is faster by orders of magnitude; this loop is there to study
    rules.

    Parameters
    ----------
    game : Game
    rule : Rule
        `wind`, `extragradient`, `iterative_bon`, ... or your own.
    tol : float
        Stop when the residual :math:`h(\pi_t, BR(\pi_t))` is at most `tol` in every context.
    max_steps : int
        Stop after that many steps.
    start : array, shape ``(..., m)``, optional
        Normalised log-probabilities to start from; the reference policy if None. A run that was stopped goes on
        from ``solution.log_policy``.
    reference_solution : Solution or array, optional
        The equilibrium (log-probabilities), to record the distances to it and to start the theorem's bound from
        the true distance. Without it the bound starts from the certificate of the first iterate.
    callback : callable, optional
        Called as ``callback(step, log_policy)`` after each step: for progress bars and checkpoints.

    Returns
    -------
    Solution
        With a `Trace`. Its status says in a sentence what happened and, if the run did not converge, what to
        change.

    Raises
    ------
    ValueError
        If the rule does not fit the game, or `start` is not a policy of the game.
    """
    check_game(game)
    if not isinstance(rule, Rule):
        raise ValueError(
            f"rule must be a rule such as windgames.wind(), but it is {rule!r}: it needs a name and a plan(game)."
        )
    tol, max_steps = positive_number(tol, "tol", zero=True), whole(max_steps, "max_steps")
    current = _start(game, start)
    solution = None
    if reference_solution is not None:
        given = reference_solution.log_policy if isinstance(reference_solution, Solution) else reference_solution
        solution = game.check_policy(given, "reference_solution")
    plan = rule.plan(game)

    slots = {"current": current, "previous": current}
    known: dict[str, Array] = {}

    def payoff(slot: str) -> Array:
        if slot not in known:
            known[slot] = game.payoff(slots[slot])
        return known[slot]

    record: dict[str, list[np.ndarray]] = {name: [] for name in (*QUANTITIES, *DISTANCES)}
    converged = np.zeros(game.batch_shape, dtype=bool)
    reached = np.full(game.batch_shape, -1)
    step = 0
    while True:
        measured = game.measure(slots["current"], payoff("current"))
        for name, value in measured.items():
            record[name].append(to_numpy(value))
        if solution is not None:
            for name, value in _distances(slots["current"], solution).items():
                record[name].append(value)
        converged = record["residual"][-1] <= tol
        reached = np.where(converged, np.where(reached < 0, step, reached), -1)
        if np.all(converged) or step == max_steps:
            break
        slots["new previous"] = slots["current"]
        old = known["current"]
        for stage in plan.stages:
            slots[stage.out] = stage.run(game, slots, payoff)
            known.pop(stage.out, None)
        slots["previous"], known["previous"] = slots.pop("new previous"), old
        step += 1
        if callback is not None:
            callback(step, slots["current"])

    columns: dict[str, Any] = {name: np.stack(record[name]) for name in QUANTITIES}
    columns |= {name: np.stack(record[name]) for name in DISTANCES if record[name]}
    trace = _with_bound(Trace(steps=np.arange(step + 1), **columns), plan, game, current, solution)
    return Solution(
        game=game,
        log_policy=slots["current"],
        gap=columns["gap"][-1],
        kl_certificate=columns["kl_certificate"][-1],
        residual=columns["residual"][-1],
        converged=np.asarray(converged),
        steps=np.where(reached < 0, step, reached),
        status=_status(game, plan, trace, tol, slots["current"]),
        method=rule.name,
        settings=plan.settings,
        trace=trace,
    )


def _start(game: Game, start: Array | None) -> Array:
    if start is not None:
        return log_normalize(game.check_policy(start, "start"))
    xp = array_namespace(game.log_ref)
    return broadcast(log_normalize(xp.astype(game.log_ref, game.ref.dtype)), game.batch_shape)


def _distances(log_policy: Array, solution: Array) -> dict[str, np.ndarray]:
    xp = array_namespace(log_policy)
    p, q = xp.astype(log_policy, xp.float64), xp.astype(solution, xp.float64)
    values = {"kl_to_solution": kl(p, q), "kl_from_solution": kl(q, p), "hilbert_to_solution": hilbert(p, q)}
    return {name: to_numpy(value) for name, value in values.items()}


def _with_bound(trace: Trace, plan: Plan, game: Game, start: Array, solution: Array | None) -> Trace:
    theorem = plan.guarantee
    if theorem is None:
        return trace
    measured = getattr(trace, theorem.quantity)
    if measured is not None:
        initial = measured[0]
    elif theorem.quantity == "kl_from_solution" and isinstance(game, WinRateGame):
        initial = np.asarray(bounds.kl_from_hilbert(trace.residual[0]))  # theory 2.10
    else:
        initial = to_numpy(game.hilbert_certificate(log_normalize(start)))
        if theorem.quantity == "kl_from_solution":
            initial = np.asarray(bounds.kl_from_hilbert(initial))
    # A distance that is infinite at the start bounds nothing.
    if not np.all(np.isfinite(initial)):
        return trace
    bound = theorem.bound(initial, trace.steps)
    if solution is not None:
        # The reference solution, and each iterate, are known only up to this.
        slack = 2 * to_numpy(game.hilbert_certificate(solution))
        slack = np.where(np.isfinite(slack), slack, 0.0)
        bound = with_rounding(bound, slack) if theorem.quantity == "kl_from_solution" else bound + slack
    return Trace(
        **{k: v for k, v in vars(trace).items() if k not in ("bound", "bound_on", "theorem")},
        bound=bound,
        bound_on=theorem.quantity,
        theorem=theorem.statement,
    )


# -- the status, a sentence --------------------------------------------------------------------------------


COLLAPSE = (
    "Collapse: with beta <= 1 (n alpha1 + alpha2 >= 1) the mass of all but a few responses may vanish (theory 3.8, "
    "3.9), as it did here. Raise beta above 1, or mix in more of the reference."
)


def _status(game: Game, plan: Plan, trace: Trace, tol: float, log_policy: Array) -> str:
    last = trace.residual[-1]
    step = int(trace.steps[-1])
    log_game = isinstance(game, LogWinRateGame | BestOfNGame)
    largest = [np.max(to_numpy(x), axis=-1) for x in (log_policy, game.log_ref)]
    narrow = (largest[0] > log(0.999)) & (largest[1] < log(0.99))
    collapsed = bool(np.any(narrow))
    fallen = log_game and bool(np.any(narrow & np.asarray(to_numpy(game.beta) <= 1)))
    if np.all(last <= tol):
        parts = [f"Converged after {step} steps: residual {np.max(last):.2e}, asked {tol:.0e}."]
        if fallen:
            parts.append(COLLAPSE)
        elif plan.remark:
            parts.append(plan.remark)
        if log_game and not np.all(np.isfinite(trace.kl_certificate[-1])):
            parts.append("The residual is the proof; no certificate of uniqueness exists here.")
        return " ".join(parts)
    parts = [f"Not converged after {step} steps: residual {np.max(last):.2e}, asked {tol:.0e}."]
    factor = _recent_factor(trace.residual)
    beta = np.asarray(to_numpy(game.beta), dtype=float)
    dtype = str(log_policy.dtype).rpartition(".")[-1]
    eps = float(array_namespace(log_policy).finfo(log_policy.dtype).eps)
    if np.all(last <= 50 * eps * (1 + 1 / np.where(beta > 0, beta, 1.0))):
        parts.append(f"That is the rounding of {dtype}: no smaller tol can be met.")
    elif plan.guarantee is not None:
        parts.append(f"Slow: {plan.guarantee.statement} applies{_outlook(plan.guarantee, last, tol)}.")
        parts.append("Go on from solution.log_policy, take windgames.equilibrium, or raise beta or eta.")
    elif len(trace.steps) < 3:
        parts.append("Too few steps to tell where this goes. " + plan.remark)
    elif plan.fixed_point == "unregularised":
        parts.append(plan.remark)
        if collapsed:
            parts.append(
                "The policy is collapsing onto few responses; take a rule with a pull to the reference (wind)."
            )
    elif plan.fixed_point == "none":
        parts.append(plan.remark)
    elif fallen:
        parts.append(COLLAPSE)
    elif not np.isfinite(factor) or factor >= 1:
        why = plan.remark or "The preference may be ill-defined for this game: see windgames.describe."
        parts.append(f"No convergence: the residual is not falling. {why} Lower eta, or raise beta.")
    else:
        more = max(1, ceil(log(tol / float(np.max(last))) / log(factor))) if tol > 0 and factor > 0 else 0
        parts.append(f"Slow: the residual falls by a factor {factor:.4g} a step, about {more} more steps are needed.")
        if plan.remark:
            parts.append(plan.remark)
        parts.append("Go on from solution.log_policy, take windgames.equilibrium, raise beta or change eta.")
    return " ".join(parts)


def _outlook(theorem: Guarantee, residual: np.ndarray, tol: float) -> str:
    """Say how many more steps a theorem promises to be enough, if it does."""
    rate = float(np.max(theorem.factor))
    if np.any(np.asarray(theorem.floor) > 0):
        return f", down to a floor of {float(np.max(theorem.floor)):.2g} in {theorem.quantity}"
    if not (0 < rate < 1 and tol > 0):
        return ""
    order = 2 if theorem.quantity.startswith("kl") else 1  # the divergence falls with the square of the residual
    more = ceil(order * log(float(np.max(residual)) / tol) / -log(rate)) if np.all(np.isfinite(residual)) else 0
    promise = f", at most about {more} more steps" if more else ""
    return f": its bound falls by {1 - rate:.2g} of itself a step{promise}"


def _recent_factor(residual: np.ndarray) -> float:
    """Return the mean factor a step over the last half of the run, in the worst context."""
    half = len(residual) // 2
    if len(residual) < 3:
        return inf
    first, last = residual[half], residual[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(first > 0, last / first, 0.0)
    return float(np.max(np.where(np.isnan(ratio), inf, ratio)) ** (1 / (len(residual) - 1 - half)))

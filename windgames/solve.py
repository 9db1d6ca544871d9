"""The one loop that runs a rule on a game.

The game measures every iterate; the rule has no part in that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil, inf, log
from typing import Any

import numpy as np

from . import bounds
from ._array import Array, array_namespace, broadcast, hilbert, kl, log_normalize, to_numpy
from ._display import optional
from ._validation import at_least, positive_number, whole
from .games import BestOfNGame, Game, LogWinRateGame, WinRateGame, check_game, with_rounding
from .solution import QUANTITIES, Solution, Trace
from .updates import DISTANCES, Guarantee, Plan, Rule, is_rule, plan_of

LOCAL_RATE_WORK = 3e7
"""The local rate is computed up to this many contexts times responses cubed: tens of milliseconds."""
SURELY_POSITIVE = 1e-9
"""Probabilities and frequencies below this may be zero up to rounding."""


def solve(
    game: Game,
    rule: Rule,
    tol: float = 1e-10,
    max_steps: int = 10_000,
    start: Array | None = None,
    reference_solution: Solution | Array | None = None,
    callback: Callable[[int, Array], Any] | None = None,
    record_every: int = 1,
    progress: bool = False,
    record_policies: bool = False,
) -> Solution:
    r"""Run a rule on a game and record what the game measures of the iterates.

    To compute an equilibrium use `windgames.equilibrium`, which is faster by orders of magnitude; this loop is there
    to study rules.

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
        Normalised log-probabilities to start from; the reference policy if None. To resume a run, pass its
        ``solution.log_policy``.
    reference_solution : Solution or array, optional
        The equilibrium (log-probabilities), to record the distances to it and to start the theorem's bound from
        the true distance. Without it the bound starts from the certificate of the first iterate.
    callback : callable, optional
        Called as ``callback(step, log_policy)`` after each step, for instance to save checkpoints.
    record_every : int
        Measure, record and test for convergence only every so many steps, and at the last one.
    progress : bool
        Show a progress bar with the residual (needs tqdm, extra ``plot``).
    record_policies : bool
        Keep the recorded iterates as ``trace.log_policies``, shape ``(records, ..., m)``.

    Returns
    -------
    Solution
        With a `Trace`. Its status says in a sentence what happened and, if the run did not converge, what to
        change.

    Raises
    ------
    ValueError
        If the rule does not fit the game, or `start` is not a policy of the game.

    Examples
    --------
    >>> import windgames as wg
    >>> game = wg.WinRateGame(wg.RewardPreference([0.0, 1.0, 2.0]), ref=[0.5, 0.3, 0.2], beta=0.1)
    >>> solution = wg.solve(game, wg.wind(), record_every=10, record_policies=True)
    >>> bool(solution.converged)
    True
    >>> solution.trace.steps
    array([ 0, 10, 20, 30, 40, 50, 60])
    >>> solution.trace.log_policies.shape
    (7, 3)
    """
    check_game(game)
    if not is_rule(rule):
        raise ValueError(
            f"rule must be a rule such as windgames.wind(), but it is {rule!r}: it needs a name and a plan(game)."
        )
    tol, max_steps = positive_number(tol, "tol", zero=True), whole(max_steps, "max_steps")
    record_every = at_least(record_every, "record_every", 1)
    current = _start(game, start)
    solution = None
    if reference_solution is not None:
        given = reference_solution.log_policy if isinstance(reference_solution, Solution) else reference_solution
        solution = game.check_policy(given, "reference_solution")
    plan = plan_of(rule, game)

    slots = {"current": current, "previous": current, **dict.fromkeys(plan.renew, current)}
    known: dict[str, Array] = {}

    def payoff(slot: str) -> Array:
        if slot not in known:
            known[slot] = game.payoff(slots[slot])
        return known[slot]

    record: dict[str, list[np.ndarray]] = {name: [] for name in ("steps", *QUANTITIES, *DISTANCES, "log_policies")}
    converged = np.zeros(game.batch_shape, dtype=bool)
    reached = np.full(game.batch_shape, -1)
    step = 0
    bar = optional("tqdm.auto", "solve(..., progress=True)", "plot").tqdm(total=max_steps) if progress else None
    while True:
        if step % record_every == 0 or step == max_steps:
            measured = game.measure(slots["current"], payoff("current"))
            if solution is not None:
                measured |= _distances(slots["current"], solution)
            for name, value in measured.items():
                record[name].append(to_numpy(value))
            record["steps"].append(np.asarray(step))
            if record_policies:
                record["log_policies"].append(np.array(to_numpy(slots["current"])))
            converged = record["residual"][-1] <= tol
            reached = np.where(converged, np.where(reached < 0, step, reached), -1)
            if bar is not None:
                bar.set_postfix_str(f"residual {np.max(record['residual'][-1]):.1e}")
            if np.all(converged) or step == max_steps:
                break
        before, payoff_before = slots["current"], None
        for stage in plan.stages:
            after = stage.run(game, slots, payoff)
            if slots["current"] is before:
                payoff_before = known.get("current")
            slots[stage.out] = after
            known.pop(stage.out, None)
        slots["previous"] = before
        known.pop("previous", None)
        if payoff_before is not None:
            known["previous"] = payoff_before
        step += 1
        slots |= {slot: slots["current"] for slot, every in plan.renew.items() if step % every == 0}
        if bar is not None:
            bar.update()
        if callback is not None:
            callback(step, slots["current"])
    if bar is not None:
        bar.close()

    columns: dict[str, Any] = {name: np.stack(values) for name, values in record.items() if values}
    trace = _with_bound(Trace(**columns, names=game.preference.names), plan, game, current, solution)
    if solution is not None or np.all(converged):
        rate = _local_rate(plan, game, slots["current"] if solution is None else solution)
        trace = replace(trace, local_rate=rate)
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


def _distances(log_policy: Array, solution: Array) -> dict[str, Array]:
    xp = array_namespace(log_policy)
    p, q = xp.astype(log_policy, xp.float64), xp.astype(solution, xp.float64)
    return {"kl_to_solution": kl(p, q), "kl_from_solution": kl(q, p), "hilbert_to_solution": hilbert(p, q)}


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
    # from an infinite distance no bound follows
    if not np.all(np.isfinite(initial)):
        return trace
    bound = theorem.bound(initial, trace.steps)
    if solution is not None:
        # the reference solution itself is known only up to its certificate
        slack = 2 * to_numpy(game.hilbert_certificate(solution))
        slack = np.where(np.isfinite(slack), slack, 0.0)
        bound = with_rounding(bound, slack) if theorem.quantity == "kl_from_solution" else bound + slack
    return replace(
        trace, bound=bound, bound_on=theorem.quantity, theorem=theorem.statement, bound_factor=theorem.factor
    )


def _local_rate(plan: Plan, game: Game, equilibrium: Array) -> np.ndarray | None:
    """Return the factor per step near an equilibrium, in the slowest direction, of each context (theory 5.10, 6.11).

    None if at ``beta = 0`` the equilibrium lacks a response or is not the only one.
    """
    beta, m = np.broadcast_to(to_numpy(game.beta), game.batch_shape).astype(float), game.n_responses
    if plan.fixed_point != "equilibrium" or not isinstance(game, WinRateGame) or m == 1:
        return None
    if beta.size * m**3 > LOCAL_RATE_WORK:
        return None
    policy = np.exp(to_numpy(equilibrium).astype(float))
    # the last one belongs to no direction
    frequencies = bounds.tangent_frequencies(to_numpy(game.preference.matrix()), policy)[..., :-1]
    if np.any(beta == 0) and min(np.min(x[beta == 0]) for x in (policy, frequencies)) < SURELY_POSITIVE:
        return None
    rates = plan.local_rate(beta, np.moveaxis(frequencies, -1, 0))
    return None if rates is None else np.max(rates, axis=0)


# -- the status, a sentence --------------------------------------------------------------------------------


COLLAPSE = (
    "Collapse: with beta <= 1 (n alpha1 + alpha2 >= 1) the mass of all but a few responses may vanish (theory 3.8, "
    "3.9), and it did. Raise beta above 1, or give the reference more weight."
)
"""Sentence in the status of a policy that has collapsed under a log payoff."""


def _status(game: Game, plan: Plan, trace: Trace, tol: float, log_policy: Array) -> str:
    last = trace.residual[-1]
    step = int(trace.steps[-1])
    beta = np.asarray(to_numpy(game.beta), dtype=float)
    log_game = isinstance(game, LogWinRateGame | BestOfNGame)
    largest = [np.max(to_numpy(x), axis=-1) for x in (log_policy, game.log_ref)]
    one_response = (largest[0] > log(0.999)) & (largest[1] < log(0.99))
    collapsed = bool(np.any(one_response))
    collapsed_log_game = log_game and bool(np.any(one_response & (beta <= 1)))
    measure = f"{'gap' if np.all(beta == 0) else 'residual'} {np.max(last):.2e}, tol {tol:.0e}"
    if np.all(last <= tol):
        parts = [f"Converged after {step} steps: {measure}."]
        if collapsed_log_game:
            parts.append(COLLAPSE)
        elif plan.remark:
            parts.append(plan.remark)
        if log_game and not np.all(np.isfinite(trace.kl_certificate[-1])):
            parts.append("The residual proves an equilibrium; no certificate proves that it is the only one.")
        return " ".join(parts)
    parts = [f"Not converged after {step} steps: {measure}."]
    factor = _recent_factor(trace)
    dtype = str(log_policy.dtype).rpartition(".")[-1]
    eps = float(array_namespace(log_policy).finfo(log_policy.dtype).eps)
    if np.all(last <= 50 * eps * (1 + 1 / np.where(beta > 0, beta, 1.0))):
        parts.append(f"That is the rounding of {dtype}: no smaller tol can be met.")
    elif plan.guarantee is not None:
        parts.append(f"Slow: {plan.guarantee.statement} applies{_outlook(plan.guarantee, last, tol)}.")
        parts.append("Continue from solution.log_policy, use windgames.equilibrium, or raise beta or eta.")
    elif len(trace.steps) < 3:
        parts.append("Too few records to estimate a rate. " + plan.remark)
    elif plan.fixed_point == "unregularised":
        parts.append(plan.remark)
        if collapsed:
            parts.append("The policy is collapsing onto few responses; use a rule that is regularised, such as wind.")
    elif plan.fixed_point == "none":
        parts.append(plan.remark)
    elif collapsed_log_game:
        parts.append(COLLAPSE)
    elif not np.isfinite(factor) or factor >= 1:
        why = plan.remark or "The preference may not suit this game: see windgames.describe."
        parts.append(f"No convergence: the residual is not falling. {why} Lower eta, or raise beta.")
    else:
        more = max(1, ceil(log(tol / float(np.max(last))) / log(factor))) if tol > 0 and factor > 0 else 0
        parts.append(f"Slow: the residual falls by a factor {factor:.4g} per step; about {more} more steps are needed.")
        if plan.remark:
            parts.append(plan.remark)
        parts.append("Continue from solution.log_policy, use windgames.equilibrium, raise beta or change eta.")
    return " ".join(parts)


def _outlook(theorem: Guarantee, residual: np.ndarray, tol: float) -> str:
    """Return, as the end of a sentence, the number of further steps that suffice by the theorem."""
    rate = float(np.max(theorem.factor))
    if np.any(np.asarray(theorem.floor) > 0):
        return f", down to a floor of {float(np.max(theorem.floor)):.2g} in {theorem.quantity}"
    if not (0 < rate < 1 and tol > 0):
        return ""
    order = 2 if theorem.quantity.startswith("kl") else 1  # the divergence falls with the square of the residual
    more = ceil(order * log(float(np.max(residual)) / tol) / -log(rate)) if np.all(np.isfinite(residual)) else 0
    promise = f", at most about {more} more steps" if more else ""
    return f": its bound falls by {100 * (1 - rate):.2g}% per step{promise}"


def _recent_factor(trace: Trace) -> float:
    """Return the mean factor per step over the last half of the run, in the worst context."""
    half = len(trace.steps) // 2
    if len(trace.steps) < 3:
        return inf
    first, last = trace.residual[half], trace.residual[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(first > 0, last / first, 0.0)
    return float(np.max(np.where(np.isnan(ratio), inf, ratio)) ** (1 / (trace.steps[-1] - trace.steps[half])))

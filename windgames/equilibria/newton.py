"""Newton's method from the reference or a guess, along the path in beta, and what is done where it fails."""

from __future__ import annotations

from math import inf

import numpy as np

from .._array import hilbert, kl, log_normalize
from ..updates import target
from .problems import Problem, minus, span_of
from .sorted import SortedProblem

MAX_ROUNDS = 2000
"""Rounds in which contexts advance together on their paths; many more than have ever been needed."""
BEST_RESPONSES = {True: 5000, False: 2000}
"""Most best responses in a game with several equilibria: of a reward, where they converge, and of any other one."""
RANDOM_STARTS = 60
"""Random policies from which Newton's method is tried where best responses and the path in beta fail."""
PLAIN_UP_TO = 64
"""Number of responses up to which a single context is tried by full Newton steps first, which saves a third of the
time."""
DYING = -800.0
"""Log-probability below which a response that keeps falling is checked for whether its win rate tends to zero."""

Point = tuple[float, np.ndarray]
"""A point of the path: tau = 1/beta, and the equilibria of all contexts there."""


def solve_newton(
    problem: Problem, tol: float, rows: np.ndarray | None = None, since: Point | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the equilibria of the contexts `rows` (all if None) and the number of linear systems for each.

    The path in beta is followed from the point `since`, if given, and otherwise from the reference at tau = 0.
    """
    everyone, enough = np.arange(len(problem.beta)), problem.attainable_tol(tol)
    z = problem.log_ref.copy()
    systems = np.zeros(len(everyone), dtype=int)
    wanted = np.ones(len(everyone), dtype=bool) if rows is None else np.isin(everyone, rows)
    unique = problem.unique & wanted
    done = ~unique
    if np.any(unique):
        rows = everyone[unique]
        cold = since is None and problem.guess is None
        central = rows[problem.beta[rows] < problem.central_path_below] if cold else rows[:0]
        if central.size:
            guess, count = problem.initial_guess(central)
            z[central], done[central], systems[central] = _follow(problem, central, enough[central], guess=guess)
            systems[central] += count
            rows = np.setdiff1d(rows, central)
        if rows.size:
            given = None if problem.guess is None else problem.guess[rows]
            z[rows], done[rows], systems[rows] = _follow(problem, rows, enough[rows], since, given)
    for row in everyone[~done]:
        z[row], more = _fall_back(problem, row, z[row], enough[row])
        systems[row] += more
    several = everyone[~problem.unique & wanted]
    if several.size:
        z[several], systems[several] = _from_reference(problem, several, tol)
    return z, systems


def _follow(
    problem: Problem,
    rows: np.ndarray,
    tol: np.ndarray,
    since: Point | None = None,
    guess: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Follow the path in tau = 1/beta for the given contexts; return policies, success and linear systems.

    Each context has its own state: `good` is an equilibrium at `tau`, and `z` is improved at `trial`. In every round a
    context either accepts `trial` and goes on, gives up and tries a shorter stride, halves its Newton step, or takes
    one. A single small context is tried by full steps at the goal first.
    """
    wasted = 0
    if len(rows) == 1 and since is None and problem.log_ref.shape[1] <= PLAIN_UP_TO:
        done, least, wasted = _newton_at_goal(problem, rows, problem.log_ref[rows] if guess is None else guess)
        if least <= tol[0]:
            return done, np.array([True]), np.array([wasted])
    goal = 1 / problem.beta[rows]
    n = len(rows)
    good = problem.log_ref[rows]
    tau = np.zeros(n)
    growth = np.full(n, 10.0)
    if since is not None and since[0] > 0:
        tau[:], good = since[0], since[1][rows]
        growth = goal / tau
        z, trial = good.copy(), goal.copy()
    elif guess is None:
        z, trial = good.copy(), np.minimum(goal, 2.0)
    else:
        z, trial = guess.copy(), goal.copy()
    base, step, size = z.copy(), np.zeros_like(z), np.ones(n)
    before = np.full(n, inf)
    tries = np.zeros(n, dtype=int)
    systems = np.full(n, wasted)
    active = np.arange(n)
    best, best_z = np.full(n, inf), z.copy()
    for _ in range(MAX_ROUNDS):
        if not active.size:
            break
        i = active
        with np.errstate(over="ignore", invalid="ignore"):
            u = problem.payoff(z[i], rows[i])
            r = problem.residual(z[i], u, 1 / trial[i], rows[i])
            span = span_of(r, z[i] == -inf)
        span = np.where(np.isnan(span), inf, span)
        final = trial[i] == goal[i]
        better = final & (span < best[i])
        best[i[better]], best_z[i[better]] = span[better], z[i[better]]
        # A step that does not lower the residual is halved; after a few halvings the attempt has failed.
        worse = ~(span < (1 - 0.1 * size[i]) * before[i])
        # At the goal: stop when the tolerance is met and a further step no longer helps.
        arrived = final & (best[i] <= tol[i]) & (worse | (span == 0))
        passed = ~final & (span <= 0.3)
        failed = ~arrived & ~passed & ((worse & (size[i] <= 1 / 8)) | (tries[i] >= 25))
        halve = worse & ~arrived & ~passed & ~failed
        newton = ~(arrived | passed | failed | halve)

        if np.any(passed):
            j = i[passed]
            tau[j], good[j] = trial[j], z[j]
            quick = tries[j] <= 3
            growth[j] = np.where(quick, np.minimum(growth[j] ** 1.5, 1e3), growth[j])
            trial[j] = np.minimum(goal[j], tau[j] * growth[j])
            base[j], step[j], before[j], size[j], tries[j] = z[j], 0, inf, 1, 0
        if np.any(failed):
            j = i[failed]
            growth[j] = growth[j] ** 0.5
            shorter = np.where(tau[j] == 0, np.minimum(trial[j] / 4, 2.0), tau[j] * growth[j])
            trial[j] = np.minimum(goal[j], shorter)
            z[j] = base[j] = good[j]
            step[j], before[j], size[j], tries[j] = 0, inf, 1, 0
        if np.any(halve):
            j = i[halve]
            size[j] /= 2
            z[j] = log_normalize(base[j] + size[j][:, None] * step[j])
        if np.any(newton):
            j = i[newton]
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                step[j] = problem.direction(z[j], u[newton], r[newton], 1 / trial[j], rows[j])
            base[j], before[j], size[j] = z[j], span[newton], 1
            sane = np.all(np.isfinite(step[j]) | (z[j] == -inf), axis=-1)
            step[j] = np.where(z[j] == -inf, 0.0, np.where(sane[:, None], step[j], 0.0))
            z[j] = log_normalize(z[j] + step[j])
            tries[j] += 1
            systems[j] += 1
        stuck = failed & ((growth[i] < 1.01) | (trial[i] < 1e-8) | (best[i] <= tol[i]))
        active = i[~(arrived | stuck)]
    return np.where(np.isfinite(best)[:, None], best_z, good), best <= tol, systems


def _newton_at_goal(problem: Problem, row: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, float, int]:
    """Take full Newton steps at the context's own beta while they lower the residual; return also its span."""
    beta = problem.beta[row]
    best, best_z, count = inf, z, 0
    while count < 30:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            u = problem.payoff(z, row)
            r = problem.residual(z, u, beta, row)
            span = float(span_of(r, z == -inf)[0])
            if not span < 0.9 * best:
                break
            best, best_z = span, z
            if span == 0:
                break
            step = problem.direction(z, u, r, beta, row)
            step = np.where(z == -inf, 0.0, step)
        if not np.all(np.isfinite(step)):
            break
        z = log_normalize(z + step)
        count += 1
    if span < best:
        best, best_z = span, z
    return best_z, best, count


def _fall_back(problem: Problem, row: int, z: np.ndarray, tol: float) -> tuple[np.ndarray, int]:
    """Alternate between the rule with a theorem (extragradient, or best responses) and Newton's method."""
    one, total = np.asarray([row]), 0
    z, beta = z[None], problem.beta[row]
    for _ in range(40):
        for _ in range(500):
            z = _proven_step(problem, one, z, beta)
        done, span, count = _newton_at_goal(problem, one, z)
        total += count
        if span <= tol:
            return done[0], total
    return z[0], total


def _proven_step(problem: Problem, row: np.ndarray, z: np.ndarray, beta: float) -> np.ndarray:
    """Return a best response in a log-win-rate game (theory 3.7), or an extragradient step (theory 5.2)."""
    log_ref = problem.log_ref[row]
    if problem.log_payoff:
        return log_normalize(log_ref + problem.payoff(z, row) / beta)
    eta = float(problem.max_step[row[0]])
    half = log_normalize(target(z, log_ref, problem.payoff(z, row), beta=beta, eta=eta))
    return log_normalize(target(z, log_ref, problem.payoff(half, row), beta=beta, eta=eta))


# -- log-win-rate games where no theorem gives uniqueness ------------------------------------------------------


def _from_reference(problem: Problem, rows: np.ndarray, tol: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the equilibria that best responses reach from the reference (theory 3.10), all contexts together.

    The iteration decides which equilibrium that is. Newton's method only finishes once the residual is small, and its
    answer is accepted only close to the iterate. Where best responses do not converge, which happens only with a
    matrix that no reward induces, the path in beta is followed, and where that fails random policies are tried.
    """
    z = (problem.log_ref if problem.start is None else problem.start)[rows].copy()
    beta = problem.beta[rows][:, None]
    systems, newton_below = np.zeros(len(rows), dtype=int), np.full(len(rows), 1e-3)
    active = np.arange(len(rows))
    if isinstance(problem, SortedProblem):
        known, top = (x[rows] for x in problem.on_top())
        z[known], active = top[known], active[~known]
    for _ in range(BEST_RESPONSES[isinstance(problem, SortedProblem)]):
        if not active.size:
            break
        i = active
        with np.errstate(over="ignore"):
            after = log_normalize(problem.log_ref[rows[i]] + problem.payoff(z[i], rows[i]) / beta[i])
        span = hilbert(z[i], after)
        falling = minus(z[i], after) > 1e-3
        z[i] = after
        for k in np.flatnonzero(np.any((after < DYING) & (after > -inf), axis=-1)):
            z[i[k]] = _drop_dying(problem, rows[i[k : k + 1]], after[k : k + 1], falling[k : k + 1])[0]
        for k in np.flatnonzero((span <= newton_below[i]) & (span > 0)):
            one, iterate = rows[i[k : k + 1]], z[i[k : k + 1]]
            done, residual, count = _newton_at_goal(problem, one, iterate)
            systems[i[k]] += count
            newton_below[i[k]] = span[k] / 10
            if residual <= tol and float(hilbert(done, iterate)[0]) <= 0.1:
                z[i[k]], span[k] = done[0], 0.0
        active = i[span > tol / 10]
    if active.size and not isinstance(problem, SortedProblem):
        path, success, more = _follow(problem, rows[active], np.full(active.size, tol))
        systems[active] += more
        z[active] = np.where(success[:, None], path, z[active])
        for row in active[~success]:
            z[row], count = _from_random_policies(problem, rows[[row]], z[row], tol)
            systems[row] += count
    return z, systems


def _from_random_policies(problem: Problem, one: np.ndarray, z: np.ndarray, tol: float) -> tuple[np.ndarray, int]:
    """Try Newton's method from random policies; return the equilibrium nearest to the reference in KL, or `z`."""
    rng = np.random.default_rng(0)
    log_ref, total = problem.log_ref[one], 0
    best, least = z, inf
    for k in range(RANDOM_STARTS):
        start = log_normalize(log_ref + rng.normal(size=log_ref.shape) * (1 + k))
        done, span, count = _newton_at_goal(problem, one, start)
        total += count
        if span <= tol and (divergence := float(kl(done, log_ref)[0])) < least:
            best, least = done[0], divergence
    return best, total


def _drop_dying(problem: Problem, row: np.ndarray, z: np.ndarray, falling: np.ndarray) -> np.ndarray:
    """Remove the vanishing responses that beat no other response: their limiting payoff is ``-inf``."""
    dying = (z < DYING) & (z > -inf) & falling
    while np.any(dying):
        rest = log_normalize(np.where(dying, -inf, z))
        alive = dying & (problem.payoff(rest, row) > -inf)
        if not np.any(alive):
            return rest
        dying &= ~alive
    return z

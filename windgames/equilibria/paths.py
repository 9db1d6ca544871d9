r"""`equilibrium_path`: the equilibria of a game for many values of beta, for less than each alone.

From large beta to small, each equilibrium is guessed by extrapolating :math:`\log\pi` from the previous ones. Newton
steps correct the guess, and share one factorisation as long as they converge fast (theory 6.6). Where a guess is too
far off, the path between the two betas is followed with shorter strides, or for small beta the central path. Rewards
have a closed form to start from at every beta, which is the better guess, so they are solved as a batch.
"""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np

from .._array import like, log_normalize, to_numpy
from .._validation import as_float, first_index
from ..games import Game
from ..solution import Solution
from .certificate import DEFAULT_TOL, certify, check_arguments
from .contexts import in_chunks, make_problem, method_name, problem_class
from .direct import equilibrium
from .newton import Point, solve_newton
from .problems import Problem, span_of
from .sorted import SortedProblem
from .winners import solve_winners

DEGREE = 3
"""Largest degree of the polynomials that extrapolate to the next equilibrium."""
REUSE_BELOW = 0.5
"""A factorisation is used again while its steps shrink the residual at least by this factor."""
MOST_SYSTEMS = 10
"""Factorisations that may correct a guess before it is discarded."""


def equilibrium_path(game: Game, betas: Any, tol: float | None = None) -> Solution:
    r"""Return the equilibria of a game for many values of beta, each with the certificates of `equilibrium`.

    Twenty values from 10 to 0.001 take as many linear systems as two or three of the hardest alone, and up to seven
    where the reference is lopsided. The answers are those of `equilibrium` at each beta; at ``beta = 0``, and in
    log-win-rate games where no theorem makes the equilibrium unique, each is computed on its own.

    Parameters
    ----------
    game : Game
        Its beta is not used. Contexts are those of its preference and reference.
    betas : array, shape ``(n,)``
        In any order, repetitions allowed.
    tol : float, optional
        As in `equilibrium`.

    Returns
    -------
    Solution
        Of the game whose first axis of contexts is `betas`, so `policy` has shape ``(n, ..., m)``. `steps` counts
        factorised linear systems, those of a repeated beta once.

    Raises
    ------
    ValueError
        If `betas` is not a list of non-negative finite numbers, or `tol` is not positive.

    Examples
    --------
    >>> import windgames as wg
    >>> game = wg.WinRateGame(wg.RewardPreference([0.0, 1.0, 2.0]), ref=[0.5, 0.3, 0.2], beta=1.0)
    >>> print(wg.equilibrium_path(game, [10.0, 1.0, 0.1]).policy.round(2))
    [[0.49 0.3  0.21]
     [0.38 0.32 0.3 ]
     [0.02 0.01 0.97]]
    """
    tol = check_arguments(game, tol)
    grid = to_numpy(as_float(betas, "betas")).astype(float)
    if grid.ndim != 1 or not grid.size:
        raise ValueError(f"betas must be a list of numbers, but its shape is {grid.shape}.")
    where = first_index(~((grid >= 0) & (grid < inf)))
    if where is not None:
        raise ValueError(f"betas must be non-negative and finite, but betas[{where[0]}] is {grid[where]}.")
    single = game.replace(beta=1.0).to_numpy()
    batch, m = single.batch_shape, game.n_responses
    prices = grid.reshape(-1, *(1 for _ in batch)) * np.ones(batch)
    full = game.replace(beta=like(prices, game.log_ref))
    if problem_class(single) is SortedProblem:
        return equilibrium(full, tol)
    contexts = np.arange(int(np.prod(batch)))
    values, place = np.unique(grid, return_inverse=True)
    values, place = values[::-1], len(values) - 1 - place
    policies, steps = np.empty((len(values), len(contexts), m)), np.zeros((len(values), len(contexts)), dtype=int)
    methods = []
    if values[-1] == 0:
        methods.append(solve_winners(single.replace(beta=0.0), contexts, policies[-1], steps[-1]))
    positive = values[values > 0]
    if positive.size:

        def walk(chunk: np.ndarray) -> None:
            problem = make_problem(single, chunk, np.ones(len(chunk)))
            for k, (z, count) in enumerate(_walk(problem, positive, tol or DEFAULT_TOL)):
                policies[k, chunk], steps[k, chunk] = problem.expand(z), count

        in_chunks(problem_class(single), single, contexts, walk)
        methods.append(f"{method_name(single)} on the path in beta")
    first = np.zeros(len(grid), dtype=bool)
    first[np.unique(place, return_index=True)[1]] = True
    counted = np.where(first[:, None], steps[place], 0)
    return certify(full, single.replace(beta=prices), policies[place], counted, tol, " and ".join(methods))


def _walk(problem: Problem, betas: np.ndarray, tol: float) -> Any:
    """Yield the equilibria of all contexts, and the systems factorised for each, at falling values of beta."""
    n = len(problem.rows)
    past: list[Point] = [(0.0, problem.log_ref)]
    for beta in betas:
        current = problem.at(np.full(n, beta))
        z, systems = _guess(current, past, 1 / beta), np.zeros(n, dtype=int)
        left = ~current.unique
        rows = np.flatnonzero(~left)
        if rows.size:
            z[rows], done, systems[rows] = _correct(current, rows, z[rows], float(current.attainable_tol(tol)[0]))
            left[rows] = ~done
        if np.any(left):
            since = None if beta < current.central_path_below else past[-1]
            alone, more = solve_newton(current, tol, np.flatnonzero(left), since=since)
            z, systems = np.where(left[:, None], alone, z), systems + more
        yield z, systems
        past = [*past[-DEGREE:], (1 / beta, z)]


def _guess(problem: Problem, past: list[Point], tau: float) -> np.ndarray:
    r"""Extrapolate :math:`\log\pi` by polynomials in tau and in log tau; the one of smallest residual counts."""
    everyone = np.arange(len(problem.rows))
    best, least = past[-1][1].copy(), np.full(len(everyone), inf)
    candidates = [best]
    for log in (False, True):
        usable = [p for p in past if not (log and p[0] == 0)]
        # where a system costs no more than a payoff, only one guess of each kind is tried
        for degree in range(1, DEGREE + 1) if problem.steps_per_system > 1 else [len(usable) - 1]:
            points = usable[-degree - 1 :]
            if len(points) > degree > 0:
                nodes = np.array([p[0] for p in points])
                weights = _lagrange(np.log(nodes), np.log(tau)) if log else _lagrange(nodes, tau)
                lost = best == -inf
                z = sum(w * np.where(lost, 0.0, p[1]) for w, p in zip(weights, points, strict=True))
                candidates.append(log_normalize(np.where(lost, -inf, z)))
    for z in candidates:
        span = _measure(problem, everyone, z)[2]
        better = span < least
        best, least = np.where(better[:, None], z, best), np.where(better, span, least)
    return best


def _lagrange(nodes: np.ndarray, x: float) -> list[float]:
    """Return the weights of the values at `nodes` in their polynomial's value at `x`."""
    return [float(np.prod([(x - b) / (a - b) for b in nodes if b != a])) for a in nodes]


def _measure(problem: Problem, rows: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return payoff, residual and its span at a policy."""
    with np.errstate(over="ignore", invalid="ignore"):
        u = problem.payoff(z, rows)
        r = problem.residual(z, u, problem.beta[rows], rows)
        span = span_of(r, z == -inf)
    return u, r, np.where(np.isnan(span), inf, span)


def _correct(
    problem: Problem, rows: np.ndarray, z: np.ndarray, tol: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Take Newton steps from a good guess; return policies, success and the number of factorised systems.

    A system serves up to `problem.steps_per_system` steps, as long as the residual of some context shrinks fast enough.
    """
    u, r, span = _measure(problem, rows, z)
    count = np.zeros(len(rows), dtype=int)
    active = np.flatnonzero(np.isfinite(span) & (span > tol / 10))
    while active.size:
        i, before = active, span[active]
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            newton = problem.newton(z[i], u[i], problem.beta[rows[i]], rows[i])
        count[i] += 1
        size, uses, going = np.ones(len(i)), 0, np.ones(len(i), dtype=bool)
        while np.any(going):
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                step = np.where(z[i] == -inf, 0.0, newton(r[i]))
                step = np.where(np.all(np.isfinite(step), axis=-1, keepdims=True), step, 0.0)
                after = log_normalize(z[i] + size[:, None] * step)
            new_u, new_r, new_span = _measure(problem, rows[i], after)
            uses += 1
            better, quick = new_span < (1 - 0.1 * size) * span[i], new_span < REUSE_BELOW * span[i]
            j = i[better]
            z[j], u[j], r[j], span[j] = after[better], new_u[better], new_r[better], new_span[better]
            # only the first step of a system is shortened where it is too long
            size = np.where(better, 1.0, size / 4)
            going = np.where(better, quick & (uses < problem.steps_per_system), (span[i] == before) & (size > 0.01))
        active = i[(span[i] < 0.9 * before) & (span[i] > tol / 10) & (count[i] < MOST_SYSTEMS)]
    return z, span <= tol / 2, count

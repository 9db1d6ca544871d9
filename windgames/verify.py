r"""Independent verification of equilibria by convex optimisation.

The rest of the package iterates fixed-point equations. This module states the game as an optimisation problem, solves
it with conic solvers through cvxpy, and compares. It is the only module that imports cvxpy, and only when called.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, nan
from typing import Any

import numpy as np
from scipy.special import entr, xlogy

from ._array import Array, array_namespace, is_array_api_obj, kl, log_normalize, safe_log, to_numpy
from ._display import html_table, optional, text_table
from ._validation import positive_number
from .games import Game, WinRateGame, check_game
from .solution import Solution

LARGEST = 2000
"""Largest number of responses of a win-rate game to verify: its program contains the whole matrix."""
CUTS = (1e-12, 1e-10, 1e-9, 1e-8, 1e-7)
"""Thresholds below which a solver's probabilities may be rounding; its error bound is the best over all of them."""
SMALLEST_LOG_RATIO = -35.0
"""In the program of a best response, log-probabilities this far below the largest one are raised to it (6e-16)."""
STATIONARITY_ABOVE = 1e-6
"""Responses of smaller probability are left out of the stationarity residuals."""
NUMBERS = (
    "agrees",
    "value",
    "distance",
    "gain",
    "stationarity",
    "complementarity",
    "solver_stationarity",
    "infeasibility",
    "solver_error",
)
"""Fields of `Verification` with one entry per context."""
CONIC = ("ECOS", "CLARABEL", "SCS")
"""Order in which solvers are tried on conic programs."""
LINEAR = ("CLARABEL", "ECOS", "SCS")
"""Order in which solvers are tried on linear programs."""
OPTIONS: dict[str, dict[str, Any]] = {
    "ECOS": {"abstol": 1e-12, "reltol": 1e-12, "feastol": 1e-12, "max_iters": 500},
    "CLARABEL": {"tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-12, "max_iter": 500},
    "SCS": {"eps_abs": 1e-9, "eps_rel": 1e-9, "max_iters": 100_000},
}
"""Options of each solver."""


class VerificationError(RuntimeError):
    """No solver reached the accuracy that the verification needs; the message quotes each solver's report."""


@dataclass(frozen=True, repr=False)
class Verification:
    r"""Comparison of a policy with the solution of the convex program; numbers have the shape of the contexts.

    `agrees` is the verdict: for ``beta > 0`` that `distance` is at most `tv_tol` and `gain` at most `gain_tol`; at
    ``beta = 0``, where equilibria may be many, that `gain` and `complementarity` are at most `gain_tol`. In a win-rate
    game the value must also be 1/2 up to `gain_tol`, and in every game no response outside the policy's support may
    have a finite payoff while ``beta > 0``. The object is true if every context agrees.
    """

    game: Game
    program: str
    """The program that was solved, in words."""
    agrees: np.ndarray
    """The verdict, per context."""
    value: np.ndarray
    """Optimal value: 1/2 for the win-rate game, else the best response's payoff minus `beta` times its KL to `ref`."""
    distance: np.ndarray
    """Total variation between the given policy and the solver's."""
    gain: np.ndarray
    """Gain of the solver's best response over the given policy, in units of the payoff."""
    stationarity: np.ndarray
    r"""Span of :math:`\log\pi-\log\rho-u(\pi)/\beta` over responses above 1e-6; of :math:`u(\pi)` at ``beta = 0``."""
    complementarity: np.ndarray
    """Mean shortfall from the largest entry of the same vector (at ``beta = 0`` from the largest payoff of all)."""
    solver_stationarity: np.ndarray
    """The same as `stationarity`, for the solver's policy."""
    infeasibility: np.ndarray
    """How far the solver's policy was from the simplex before it was normalised."""
    solver_error: np.ndarray
    r"""Proven bound on the error of the solver's policy: in total variation, at ``beta = 0`` in value."""
    solver: tuple[str, ...]
    """The solver whose solution was used, per context."""
    trouble: tuple[str, ...]
    """Reports of solvers that failed, or whose solution was used in spite of their own warning."""
    tv_tol: float
    """Largest total variation to the solver's policy that counts as agreement."""
    gain_tol: float
    """Largest gain of a best response that counts as agreement."""

    def __bool__(self) -> bool:
        return bool(np.all(self.agrees))

    def _rows(self) -> list[tuple[str, str]]:
        batch = self.game.batch_shape
        worst = " (worst context)" if batch else ""

        def most(x: np.ndarray) -> str:
            return f"{float(np.max(x)):.1e}{worst}"

        verdict = "yes" if self else "no"
        if batch:
            verdict += f": {int(np.sum(self.agrees))} of {np.size(self.agrees)} contexts"
        low, high = float(np.min(self.value)), float(np.max(self.value))
        rows = [
            (
                "agrees",
                f"{verdict} (total variation up to {self.tv_tol:.0e}, gain up to {self.gain_tol:.0e})",
            ),
            ("program", self.program),
            ("value", f"{low:.12g}" if low == high else f"{low:.12g} to {high:.12g}"),
            ("distance", f"{most(self.distance)}, total variation to the solver's policy"),
            ("gain", f"{most(self.gain)}, of the solver's best response"),
            (
                "stationarity",
                f"{most(self.stationarity)}; the solver's own policy {most(self.solver_stationarity)}",
            ),
            ("complementarity", most(self.complementarity)),
            ("solver", ", ".join(sorted(set(self.solver)))),
            (
                "solver's error",
                f"at most {most(self.solver_error)}; off the simplex by {most(self.infeasibility)}",
            ),
        ]
        return rows + [("trouble", words) for words in self.trouble]

    def __repr__(self) -> str:
        return text_table(f"Verification of {self.game!r}", self._rows())

    def _repr_html_(self) -> str:
        return html_table(f"Verification of {self.game!r}", self._rows())


def verify(
    game: Game,
    log_policy: Solution | Array,
    *,
    tv_tol: float = 1e-5,
    gain_tol: float = 1e-8,
    solvers: Sequence[str] | None = None,
) -> Verification:
    r"""Check with convex solvers whether a policy is an equilibrium of the game.

    In a win-rate game with ``beta > 0`` the inner minimum has a closed form, and the equilibrium (theory 2.1) is the
    solution of a convex program with exponential cones, whose optimal value is 1/2 (theory 6.3):

    .. math:: \max_{\pi}\; -\beta\,KL(\pi\|\rho) - \beta\log\sum_j \rho_j\exp(-(P^\top\pi)_j/\beta)

    The equilibrium of a log-win-rate or best-of-n game (theory 2.2) is not the solution of a convex program, but the
    best response to the policy's own payoff `u` is, :math:`\max_p \langle p,u\rangle-\beta KL(p\|\rho)`, and its gain
    must be zero. This shows that the policy is *an* equilibrium, not that it is the only one.
    At ``beta = 0`` both are linear programs (theory 2.6), and equilibria need not be unique, so `distance` is reported
    without being part of the verdict.

    A solver's solution is used if it reports an optimum and its policy is provably close to it: with :math:`q` the best
    response to the solver's :math:`\pi` and :math:`p` that to :math:`q`, duality gives
    :math:`KL(\pi\|\pi^*)\le KL(\pi\|p)` without using :math:`P+P^\top=1` (with it, this is theory 2.3). Otherwise the
    next solver is tried.

    Parameters
    ----------
    game : Game
    log_policy : Solution or array, shape ``(..., m)``
        The candidate, as a solution or as normalised log-probabilities.
    tv_tol, gain_tol : float
        Largest total variation to the solver's policy, and largest gain of a best response, that count as agreement.
    solvers : sequence of str, optional
        Names of cvxpy solvers, in the order in which to try them; ECOS, Clarabel, SCS if None.

    Returns
    -------
    Verification

    Raises
    ------
    ImportError
        If cvxpy is not installed.
    ValueError
        If the candidate is not a policy of the game, a tolerance is not a positive number, a solver's name is
        unknown, or a win-rate game has more than 2000 responses.
    VerificationError
        If no solver reaches the accuracy; the message quotes their reports.

    Examples
    --------
    >>> import numpy as np, windgames as wg
    >>> game = wg.WinRateGame(wg.MatrixPreference([[0.5, 0, 1], [1, 0.5, 0], [0, 1, 0.5]]), [0.2, 0.3, 0.5], beta=0.1)
    >>> bool(wg.verify(game, wg.equilibrium(game)))
    True
    >>> bool(wg.verify(game, np.log([0.2, 0.3, 0.5])))
    False
    """
    check_game(game)
    tv_tol, gain_tol = positive_number(tv_tol, "tv_tol"), positive_number(gain_tol, "gain_tol")
    unknown = sorted(set(solvers or ()) - set(OPTIONS))
    if unknown or (solvers is not None and not solvers):
        raise ValueError(f"solvers must name some of {', '.join(OPTIONS)}, but it is {list(solvers or ())}.")
    win_rate = isinstance(game, WinRateGame)
    if win_rate and game.n_responses > LARGEST:
        raise ValueError(
            f"The convex program of a win-rate game contains the {game.n_responses} x {game.n_responses} matrix, and "
            f"{LARGEST} responses are the most that verify allows. Verify a smaller game, or use game.kl_certificate, "
            f"which proves the distance at any size."
        )
    cp = _cvxpy()
    given = game.check_policy(log_policy.log_policy if isinstance(log_policy, Solution) else log_policy)
    xp = array_namespace(given)
    given = log_normalize(xp.astype(given, xp.float64))
    batch, m = game.batch_shape, game.n_responses
    policy = to_numpy(given)
    payoff = np.broadcast_to(to_numpy(game.payoff(given)), (*batch, m))
    log_ref = np.broadcast_to(to_numpy(game.log_ref), (*batch, m))
    beta = np.broadcast_to(
        np.asarray(to_numpy(game.beta), dtype=float) if is_array_api_obj(game.beta) else game.beta, batch
    )
    matrix = None
    if win_rate:
        matrix = np.broadcast_to(to_numpy(game.preference.matrix()).astype(float), (*batch, m, m))

    columns: dict[str, np.ndarray] = {
        name: np.empty(batch, dtype=bool if name == "agrees" else float) for name in NUMBERS
    }
    solver, trouble = [], []
    for index in np.ndindex(batch):
        P = None if matrix is None else matrix[index]
        b = float(beta[index])
        programs = _Programs(cp, solvers, tv_tol, gain_tol, f"context {index}: " if batch else "")
        row = _context(programs, policy[index], payoff[index], log_ref[index], b, P)
        for name, value in row.items():
            columns[name][index] = value
        solver.append(programs.solver)
        trouble += programs.reports
    return Verification(
        game=game,
        program=_program(win_rate, beta),
        **{name: values[()] for name, values in columns.items()},
        solver=tuple(solver),
        trouble=tuple(trouble),
        tv_tol=tv_tol,
        gain_tol=gain_tol,
    )


def _cvxpy() -> Any:
    return optional("cvxpy", "windgames.verify", "verify")


def _program(win_rate: bool, beta: np.ndarray) -> str:
    free = "linear program" if win_rate else "linear best response to the policy's payoff"
    regularised = "convex program of the win-rate game" if win_rate else "convex best response to the policy's payoff"
    if np.all(beta == 0):
        return free
    return regularised if np.all(beta > 0) else f"{regularised}; at beta = 0 the {free}"


# -- one context -------------------------------------------------------------------------------------------


def _context(
    programs: _Programs,
    log_policy: np.ndarray,
    u: np.ndarray,
    log_ref: np.ndarray,
    beta: float,
    P: np.ndarray | None,
) -> dict[str, float | bool]:
    """Return the row of numbers of one context."""
    policy = np.exp(log_policy)
    response = programs.response(u, log_ref, beta)
    solved = response
    if P is not None:
        solved = programs.linear_program(P) if beta == 0 else programs.win_rate_program(P, log_ref, beta)
        expected = 0.5
        value = float(np.min(P.T @ solved)) if beta == 0 else _win_rate_value(P, solved, log_ref, beta)
    else:
        value = expected = _value(response, u, log_ref, beta)
    gain = _value(response, u, log_ref, beta) - _value(policy, u, log_ref, beta)
    distance = float(np.abs(solved - policy).sum() / 2)
    stationarity, complementarity = _stationarity(log_policy, u, log_ref, beta)
    with np.errstate(divide="ignore"):
        of_solver = _stationarity(np.log(solved), u if P is None else P @ solved, log_ref, beta)[0]
    agrees = gain <= programs.gain_tol and abs(value - expected) <= programs.gain_tol
    if beta == 0:
        agrees = agrees and complementarity <= programs.gain_tol
    else:
        # a response outside the support with a finite payoff would gain: the first bit of mass costs nothing
        agrees = agrees and distance <= programs.tv_tol and bool(np.all(u[log_policy == -inf] == -inf))
    return {
        "agrees": agrees,
        "value": value,
        "distance": distance,
        "gain": gain,
        "stationarity": stationarity,
        "complementarity": complementarity,
        "solver_stationarity": of_solver,
        "infeasibility": programs.infeasibility,
        "solver_error": programs.error,
    }


def _value(p: np.ndarray, u: np.ndarray, log_ref: np.ndarray, beta: float) -> float:
    r"""Return :math:`\langle p,u\rangle-\beta KL(p\|\rho)`, with :math:`0\cdot(-\infty)=0`."""
    played = p > 0
    return float(np.sum(p[played] * (u[played] + beta * log_ref[played])) + beta * np.sum(entr(p)))


def _win_rate_value(P: np.ndarray, p: np.ndarray, log_ref: np.ndarray, beta: float) -> float:
    """Return the value that the policy guarantees in the win-rate game against every opponent."""
    logits = log_ref - P.T @ p / beta
    top = np.max(logits)
    return float(-beta * (np.sum(xlogy(p, p) - p * log_ref) + top + np.log(np.sum(np.exp(logits - top)))))


def _stationarity(log_policy: np.ndarray, u: np.ndarray, log_ref: np.ndarray, beta: float) -> tuple[float, float]:
    """Return the span of the objective's gradient over the support, and its mean shortfall from its maximum."""
    support = log_policy > np.log(STATIONARITY_ABOVE)
    p = np.exp(log_policy[support])
    g = u[support] if beta == 0 else u[support] / beta + log_ref[support] - log_policy[support]
    if np.any(g == -inf):
        return inf, inf
    top = np.max(u) if beta == 0 else np.max(g)
    return float(np.max(g) - np.min(g)), float(np.sum(p * (top - g)))


def _reply(u: np.ndarray, log_ref: np.ndarray, beta: float) -> np.ndarray:
    return log_normalize(log_ref + u / beta)


def _proven_distance(p: np.ndarray, log_reply: Callable[[np.ndarray], np.ndarray]) -> float:
    r"""Return a proven bound on the total variation from `p` to the optimum.

    :math:`KL(q\|q^*)\le KL(q\|\text{reply}(q))` holds for every policy `q`, so `q` may be `p` with entries below a
    threshold set to zero: 1e-10 in place of 1e-40 is a small error, but would enlarge the divergence much.
    """
    best = inf
    for cut in CUTS:
        q = np.where(p >= cut, p, 0.0)
        q = q / q.sum()
        best = min(best, float(np.abs(q - p).sum() / 2 + np.sqrt(kl(safe_log(q), log_reply(q)) / 2)))
    return best


# -- programs and solvers ----------------------------------------------------------------------------------


@dataclass
class _Programs:
    """The programs of one context, the solver whose solution was used, and the reports of the others."""

    cp: Any
    solvers: Sequence[str] | None
    tv_tol: float
    gain_tol: float
    where: str
    solver: str = ""
    infeasibility: float = nan
    error: float = nan

    def __post_init__(self) -> None:
        self.reports: list[str] = []

    def win_rate_program(self, P: np.ndarray, log_ref: np.ndarray, beta: float) -> np.ndarray:
        """Return the maximiser of theory 6.3; divided by `beta`, and with a centred matrix, it is better scaled."""
        cp = self.cp
        p = cp.Variable(len(log_ref))
        # entr and a linear term, not kl_div: a cone cannot hold a reference of 1e-100, but can hold its logarithm
        exponents = log_ref - ((P.T - 0.5) / beta) @ p
        objective = -cp.sum(cp.entr(p)) - p @ log_ref + cp.log_sum_exp(exponents)

        def reply(x: np.ndarray) -> np.ndarray:
            return _reply(P @ np.exp(_reply(-(P.T @ x), log_ref, beta)), log_ref, beta)

        def error(x: np.ndarray) -> float:
            return _proven_distance(x, reply)

        problem = cp.Problem(cp.Minimize(objective), [cp.sum(p) == 1])
        return self.solve(problem, p, error, self.tv_tol, CONIC, "total variation")

    def response(self, u: np.ndarray, log_ref: np.ndarray, beta: float) -> np.ndarray:
        """Return the best response to a fixed payoff; responses of payoff minus infinity are left out."""
        cp = self.cp
        open_ = u > -inf
        p = cp.Variable(int(open_.sum()), nonneg=beta == 0)  # an entropy implies positivity
        if beta == 0:
            score = u[open_] - np.max(u)
            objective, tol, order, unit = p @ score, self.gain_tol, LINEAR, "payoff"

            def error(x: np.ndarray) -> float:
                return float(-np.sum(x * score))

        else:
            score = log_ref[open_] + u[open_] / beta
            score = np.maximum(score - np.max(score), SMALLEST_LOG_RATIO)
            objective, tol, order, unit = (
                cp.sum(cp.entr(p)) + p @ score,
                self.tv_tol,
                CONIC,
                "total variation",
            )

            def error(x: np.ndarray) -> float:
                return _proven_distance(x, lambda _: log_normalize(score))

        problem = cp.Problem(cp.Maximize(objective), [cp.sum(p) == 1])
        out = np.zeros(len(u))
        out[open_] = self.solve(problem, p, error, tol, order, unit)
        return out

    def linear_program(self, P: np.ndarray) -> np.ndarray:
        """Return a policy of largest guaranteed win rate (theory 2.6)."""
        cp = self.cp
        p, v = cp.Variable(len(P), nonneg=True), cp.Variable()
        secured = P.T @ p >= v
        problem = cp.Problem(cp.Maximize(v), [cp.sum(p) == 1, secured])

        def error(x: np.ndarray) -> float:
            opponent = np.maximum(np.asarray(secured.dual_value, dtype=float), 0)
            return float(np.max(P @ opponent) / opponent.sum() - np.min(P.T @ x))

        return self.solve(problem, p, error, self.gain_tol, LINEAR, "value")

    def solve(
        self,
        problem: Any,
        p: Any,
        error: Callable[[np.ndarray], float],
        tol: float,
        order: Sequence[str],
        unit: str,
    ) -> np.ndarray:
        """Try one solver after the other, and use the first that reports an optimum and provably has it.

        After a second solver that does not, the solution of smallest proven error is used if that is within `tol`: a
        proof outweighs the status that a solver reports. The reports are kept.
        """
        best: tuple[float, str, np.ndarray, float] | None = None
        reports = []
        for name in self.solvers or order:
            status, value, remarks = self._run(problem, p, name)
            if value is None:
                reports.append(f"{self.where}{name}: {status}{remarks}")
                continue
            x = np.maximum(value, 0)
            off = max(float(np.max(-value)), abs(float(value.sum()) - 1), 0.0)
            x = x / x.sum()
            bound = error(x)
            if best is None or bound < best[0]:
                best = bound, name, x, off
            if status == self.cp.OPTIMAL and bound <= tol:
                break
            reports.append(f"{self.where}{name}: {status}, {unit} proven up to {bound:.1e}{remarks}")
            if len(reports) > 1 and best[0] <= tol:
                break
        self.reports += reports
        if best is None or not best[0] <= tol:
            raise VerificationError(
                f"No solver solved the program to within {tol:.0e} in {unit}. " + "; ".join(reports) + ". "
                "Raise the tolerance or beta, or try other solvers."
            )
        self.error, self.solver, x, self.infeasibility = best
        return x

    def _run(self, problem: Any, p: Any, name: str) -> tuple[str, np.ndarray | None, str]:
        """Return the solver's status, its policy if it has one, and its warnings."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                problem.solve(solver=name, **OPTIONS[name])
                status = str(problem.status)
            except self.cp.error.SolverError as error:
                return str(error), None, ""
        remarks = "".join(f" (warning: {str(w.message).splitlines()[0]})" for w in caught)
        value = None if p.value is None else np.asarray(p.value, dtype=float)
        usable = value is not None and np.all(np.isfinite(value)) and value.sum() > 0
        return status, value if usable else None, remarks

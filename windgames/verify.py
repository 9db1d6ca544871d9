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
CUTS = (0.0, 1e-12, 1e-10, 1e-9, 1e-8, 1e-7)
"""Thresholds below which a solver's probabilities may be rounding; its error bound is the best over all of them."""
LOSING = 1e-9
"""A response that a winner beats by more than that, relative to the largest margin, is in no winner's support."""
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
    "selection",
)
"""Fields of `Verification` with one entry per context."""
REFINED, REFINEMENTS = 1e-10, 8
"""Total variation below which a solver's policy is not refined further, and the most quadratic programs that do it."""
TINY = 1e-6
"""Probabilities below it are set to those of the reply before a policy is refined: they have no digits of their own."""
OPTIONS: dict[str, dict[str, Any]] = {
    "CLARABEL": {"tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-12, "max_iter": 500},
    "ECOS": {"abstol": 1e-12, "reltol": 1e-12, "feastol": 1e-12, "max_iters": 500},
    "SCS": {"eps_abs": 1e-9, "eps_rel": 1e-9, "max_iters": 100_000},
}
"""Options of each solver, in the order in which they are tried where they are installed."""


class VerificationError(RuntimeError):
    """No solver reached the accuracy that the verification needs; the message quotes each solver's report."""


@dataclass(frozen=True, repr=False)
class Verification:
    r"""Comparison of a policy with the solution of the convex program; numbers have the shape of the contexts.

    `agrees` is the verdict: for ``beta > 0`` that `distance` is at most `tv_tol` and `gain` at most `gain_tol`; at
    ``beta = 0``, where equilibria may be many, that `gain` and `complementarity` are at most `gain_tol`, and, where it
    is claimed, `selection` at most `tv_tol`. In a win-rate game the value must also be 1/2 up to `gain_tol`, and in
    every game no response outside the policy's support may have a finite payoff while ``beta > 0``. The object is true
    if every context agrees.
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
    selection: np.ndarray
    r"""Bound on the total variation to the winner nearest to the reference, of a win-rate game at ``beta = 0`` where
    that was claimed (a lower bound on it, above `tv_tol`, where the claim is false); NaN elsewhere."""
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
            *(
                [("selection", f"{float(np.nanmax(self.selection)):.1e}{worst}, total variation to the nearest winner")]
                if not np.all(np.isnan(self.selection))
                else []
            ),
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
    nearest: bool | None = None,
) -> Verification:
    r"""Check with convex solvers whether a policy is an equilibrium of the game.

    In a win-rate game with ``beta > 0`` the inner minimum has a closed form, and the equilibrium (theory 2.1) is the
    solution of a convex program with exponential cones, whose optimal value is 1/2 (theory 6.3):

    .. math:: \max_{\pi}\; -\beta\,KL(\pi\|\rho) - \beta\log\sum_j \rho_j\exp(-(P^\top\pi)_j/\beta)

    The equilibrium of a log-win-rate or best-of-n game (theory 2.2) is not the solution of a convex program, but the
    best response to the policy's own payoff `u` is, :math:`\max_p \langle p,u\rangle-\beta KL(p\|\rho)`, and its gain
    must be zero. This shows that the policy is *an* equilibrium, not that it is the only one.
    At ``beta = 0`` both are linear programs (theory 2.6), and equilibria need not be unique, so `distance` is reported
    without being part of the verdict. That a winner `w` is the one nearest to the reference, `w^*`, as `equilibrium`
    claims, is proven by the dual of the projection. For every :math:`\lambda\ge0`, with :math:`A=P-\frac12`,

    .. math:: \tfrac12 \|w-w^*\|_1^2 \le KL(w\|w^*) \le KL(w\|\rho) + \log\sum_j\rho_j e^{-(A^\top\lambda)_j}.

    A solver's policy is refined by quadratic programs around it while its proven error is above 1e-10. It is used if
    the solver reports an optimum and the policy is provably close to it: with :math:`q` the best response to the
    solver's :math:`\pi` and :math:`p` that to :math:`q`, duality gives :math:`KL(\pi\|\pi^*)\le KL(\pi\|p)` without
    using :math:`P+P^\top=1` (with it, this is theory 2.3). Otherwise the next solver is tried.

    Parameters
    ----------
    game : Game
    log_policy : Solution or array, shape ``(..., m)``
        The candidate, as a solution or as normalised log-probabilities.
    tv_tol, gain_tol : float
        Largest total variation to the solver's policy, and largest gain of a best response, that count as agreement.
    solvers : sequence of str, optional
        Names of cvxpy solvers, in the order in which to try them; Clarabel, ECOS where it is installed, SCS if None.
    nearest : bool, optional
        Whether a winner at ``beta = 0`` is claimed to be the nearest to the reference in KL; if None, that of a
        solution by `equilibrium` is.

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
    if nearest is None:
        nearest = isinstance(log_policy, Solution) and log_policy.trace is None
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
        row = _context(programs, policy[index], payoff[index], log_ref[index], b, P, nearest)
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
    nearest: bool,
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
    infeasibility, error = programs.infeasibility, programs.error
    gain = _value(response, u, log_ref, beta) - _value(policy, u, log_ref, beta)
    distance = float(np.abs(solved - policy).sum() / 2)
    stationarity, complementarity = _stationarity(log_policy, u, log_ref, beta)
    with np.errstate(divide="ignore"):
        of_solver = _stationarity(np.log(solved), u if P is None else P @ solved, log_ref, beta)[0]
    agrees = gain <= programs.gain_tol and abs(value - expected) <= programs.gain_tol
    selection = nan
    if beta == 0:
        agrees = agrees and complementarity <= programs.gain_tol
        if agrees and nearest and P is not None:
            selection = programs.selection(P, log_ref, log_policy)
            agrees = selection <= programs.tv_tol
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
        "infeasibility": infeasibility,
        "solver_error": error,
        "selection": selection,
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

        def slopes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            log_opponent = _reply(-(P.T @ x), log_ref, beta)
            opponent = np.exp(log_opponent)
            u = P @ opponent / beta
            # the log-sum-exp has the variance under the opponent as its second derivative
            spread = np.sqrt(opponent)[:, None] * (P.T - opponent @ P.T) / beta
            return log_normalize(log_ref + u), log_ref + u, spread

        problem = cp.Problem(cp.Minimize(objective), [cp.sum(p) == 1])
        return self.solve(problem, p, error, self.tv_tol, "total variation", slopes)

    def response(self, u: np.ndarray, log_ref: np.ndarray, beta: float) -> np.ndarray:
        """Return the best response to a fixed payoff; responses of payoff minus infinity are left out."""
        cp = self.cp
        open_ = u > -inf
        p = cp.Variable(int(open_.sum()), nonneg=beta == 0)  # an entropy implies positivity
        if beta == 0:
            score = u[open_] - np.max(u)
            objective, tol, unit, slopes = p @ score, self.gain_tol, "payoff", None

            def error(x: np.ndarray) -> float:
                return float(-np.sum(x * score))

        else:
            score = log_ref[open_] + u[open_] / beta
            score = np.maximum(score - np.max(score), SMALLEST_LOG_RATIO)
            objective, tol, unit = cp.sum(cp.entr(p)) + p @ score, self.tv_tol, "total variation"

            def slopes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
                return log_normalize(score), score, np.zeros((0, len(x)))

            def error(x: np.ndarray) -> float:
                return _proven_distance(x, lambda _: log_normalize(score))

        problem = cp.Problem(cp.Maximize(objective), [cp.sum(p) == 1])
        out = np.zeros(len(u))
        out[open_] = self.solve(problem, p, error, tol, unit, slopes)
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

        return self.solve(problem, p, error, self.gain_tol, "value")

    def selection(self, P: np.ndarray, log_ref: np.ndarray, log_winner: np.ndarray) -> float:
        """Return a bound on the total variation of a winner to the one nearest to the reference, by the dual.

        Where the bound is above the tolerance, but the dual's policy wins as well as the given one, is another one and
        nearer to the reference, the claim is false, and the distance to that policy is returned.
        """
        cp, A, winner = self.cp, P - 0.5, np.exp(log_winner)
        A = A / max(float(np.max(np.abs(A))), 1e-300)
        # multipliers that are winners remove the responses that lose to one: the solver need not find infinite ones
        losing = A.T @ winner - np.finfo(float).eps * (4 + np.log2(len(A)))  # less the rounding of the sum
        kept = losing < LOSING
        multiplier = cp.Variable(len(A), nonneg=True)
        problem = cp.Problem(cp.Minimize(cp.log_sum_exp(log_ref[kept] - A.T[kept] @ multiplier)))
        divergence, bound, reports = float(kl(log_winner, log_ref)), inf, []
        for name in [None, *self._order()]:
            nothing = "", np.zeros(len(A)), ""
            status, value, remarks = nothing if name is None else self._run(problem, multiplier, name)
            if value is not None:
                for times in (0.0, *np.logspace(0, 10, 11)):
                    logits = log_ref - A.T @ np.maximum(value, 0) - times * losing
                    top = float(np.max(logits))
                    excess = divergence + top + float(np.log(np.sum(np.exp(logits - top))))
                    bound = min(bound, float(np.sqrt(max(excess, 0.0) / 2)))
                if bound <= self.tv_tol:
                    return bound
                status = f"{status}, total variation to the nearest winner proven up to {bound:.1e}"
                p = log_normalize(np.where(kept, log_ref - A.T @ np.maximum(value, 0), -inf))
                apart = float(np.abs(np.exp(p) - winner).sum() / 2)
                wins = float(np.max(A @ np.exp(p))) <= self.gain_tol
                if wins and apart > self.tv_tol and kl(p, log_ref) < divergence:
                    return apart
            if name is not None:
                reports.append(f"{self.where}{name}: {status}{remarks}")
        raise VerificationError(
            f"No solver could tell whether the policy is the winner nearest to the reference, to within "
            f"{self.tv_tol:.0e} in total variation. " + "; ".join(reports) + ". Raise tv_tol, or pass nearest=False."
        )

    def _order(self) -> Sequence[str]:
        """Return the solvers to try: those asked for, or all that are installed."""
        return self.solvers or [name for name in OPTIONS if name in self.cp.installed_solvers()]

    def refined(
        self, x: np.ndarray, error: Callable[[np.ndarray], float], slopes: Callable[..., Any], name: str
    ) -> tuple[float, np.ndarray]:
        r"""Return the policy after quadratic programs around it, as long as they lower its proven error.

        They are the expansions of :math:`\sum p\log p - f(p)` to second order, in relative changes `d` of `p` on the
        scale of the last error, so that the solver's own tolerance applies to the digits that are still wrong.
        """
        cp, best = self.cp, error(x)
        for _ in range(REFINEMENTS):
            if best <= REFINED:
                break
            log_reply, gradient, spread = slopes(x)
            x0 = np.where(x < TINY, np.exp(log_reply), x)
            x0 = np.maximum(x0 / x0.sum(), 1e-300)
            _, gradient, spread = slopes(x0)
            slope = np.log(x0) - gradient
            slope -= x0 @ slope
            size = float(np.sqrt(np.sum(x0 * slope**2)))
            if not 0 < size < inf:
                break
            root, d = np.sqrt(x0), cp.Variable(len(x0))  # d: relative changes times the root of the probability
            curve = cp.sum_squares(d) + (cp.sum_squares((spread * root) @ d) if spread.size else 0.0)
            problem = cp.Problem(cp.Minimize(curve / 2 + d @ (root * slope / size)), [root @ d == 0])
            value = self._run(problem, d, name)[1]
            if value is None:
                break
            y = np.maximum(x0 + size * root * value, x0 / 10)
            y /= y.sum()
            bound = error(y)
            if not bound < best:
                break
            best, x = bound, y
        return best, x

    def solve(
        self,
        problem: Any,
        p: Any,
        error: Callable[[np.ndarray], float],
        tol: float,
        unit: str,
        slopes: Callable[..., Any] | None = None,
    ) -> np.ndarray:
        """Try one solver after the other, and use the first that reports an optimum and provably has it.

        After a second solver that does not, the solution of smallest proven error is used if that is within `tol`: a
        proof outweighs the status that a solver reports. The reports are kept.
        """
        best: tuple[float, str, np.ndarray, float] | None = None
        reports = []
        for name in self._order():
            status, value, remarks = self._run(problem, p, name)
            if value is None or not value.sum() > 0:
                reports.append(f"{self.where}{name}: {status}{remarks}")
                continue
            x = np.maximum(value, 0)
            off = max(float(np.max(-value)), abs(float(value.sum()) - 1), 0.0)
            x = x / x.sum()
            bound, x = (error(x), x) if slopes is None else self.refined(x, error, slopes, name)
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
        usable = value is not None and np.all(np.isfinite(value))
        return status, value if usable else None, remarks

"""Solvers of win-rate games, ours and other people's, each as a small function of a game.

A function takes a `WinRateGame` without contexts (with them if the solver is `batched`) and returns log-probabilities,
those of the row player where a method has two; it may add the seconds that it spent inside its solver, without the
building of the problem. Nothing here times or grades. A library is imported when it is called, and left out by name
where it is missing: ``pip install windgames[peers]``.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import windgames as wg
from windgames.verify import OPTIONS

Answer = np.ndarray | tuple[np.ndarray, float]
TOL = 1e-10
"""Residual at which the iterations stop."""


@dataclass(frozen=True)
class Solver:
    """A method with its name, where it comes from, and the games that it is asked about."""

    name: str
    solve: Callable[[wg.Game], Answer]
    packages: tuple[str, ...] = ()
    free: bool | None = None
    """Whether it is for ``beta = 0`` only, or for ``beta > 0`` only."""
    batched: bool = False
    largest: int = 3000
    """Most responses that it is asked for: beyond, minutes or gigabytes go into making its problem."""
    loop: bool = False
    """One of ours, made to go through the contexts one by one."""
    any_game: bool = False
    """Not only win-rate games."""

    @property
    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [package for package in self.packages if not _version(package)]

    @property
    def version(self) -> str:
        return ", ".join(f"{package} {_version(package)}" for package in self.packages) or f"windgames {wg.__version__}"

    def takes(self, game: wg.Game) -> bool:
        """Whether the game is of a kind and size for it."""
        fits = self.any_game or isinstance(game, wg.WinRateGame)
        right = self.free is None or self.free == (game.beta == 0)
        return fits and right and game.n_responses <= self.largest and (not self.loop or game.batch_shape != ())

    def __call__(self, game: wg.Game) -> tuple[np.ndarray, float]:
        """Return log-probabilities of the shape of the game, and the seconds inside the solver (NaN: not told)."""
        if self.batched or game.batch_shape == ():
            answers = [self.solve(game)]
        else:
            answers = [self.solve(one) for one in one_by_one(game)]
        pairs = [answer if isinstance(answer, tuple) else (answer, np.nan) for answer in answers]
        shape = (*game.batch_shape, game.n_responses)
        return np.reshape([policy for policy, _ in pairs], shape), float(sum(inside for _, inside in pairs))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def one_by_one(game: wg.Game) -> Iterator[wg.Game]:
    """Take a game with contexts apart."""
    p, make = game.preference, type(game)
    for i, ref in enumerate(game.ref):
        if isinstance(p, wg.RewardPreference):
            yield make(wg.RewardPreference(p.reward[i], ties=p.ties), ref, game.beta)
        else:
            yield make(wg.MatrixPreference(p.matrix()[i]), ref, game.beta)


def _logs(probabilities: Any) -> np.ndarray:
    """Return logarithms of what a solver gave, normalised, with its negative rounding as zeros."""
    p = np.maximum(np.asarray(probabilities, dtype=float).reshape(-1), 0.0)
    with np.errstate(divide="ignore"):
        return np.log(p / p.sum())


def folded(game: wg.Game) -> np.ndarray:
    r"""Return the antisymmetric payoffs whose logit equilibrium with precision 1/beta is the game's.

    The reference becomes a part of the payoff, :math:`P_{ij}-\frac12+\beta(\log\rho_i-\log\rho_j)`.
    """
    P = np.asarray(game.preference.matrix())
    bonus = game.beta * game.log_ref
    return (P - P.T) / 2 + bonus[:, None] - bonus


# -- windgames -----------------------------------------------------------------------------------------------


def equilibrium(game: wg.Game) -> Answer:
    return wg.equilibrium(game).log_policy


def mirror_descent(game: wg.Game) -> Answer:
    """Iterate the paper's algorithm at its step; it records the residual of each iterate, of one payoff both."""
    return wg.solve(game, wg.wind(eta=game.beta), tol=TOL, max_steps=10**7).log_policy


# -- cvxpy ---------------------------------------------------------------------------------------------------


def conic(solver: str, tight: bool) -> Callable[[wg.Game], Answer]:
    """Return a conic solver on the convex program of theory 6.3, or on the linear program of theory 2.6."""

    def solve(game: wg.Game) -> Answer:
        import cvxpy as cp

        P, m = np.asarray(game.preference.matrix()), game.n_responses
        p = cp.Variable(m, nonneg=True) if game.beta == 0 else cp.Variable(m)
        if game.beta == 0:
            value = cp.Variable()
            problem = cp.Problem(cp.Maximize(value), [cp.sum(p) == 1, (P.T - 0.5) @ p >= value])
        else:
            exponents = game.log_ref - ((P.T - 0.5) / game.beta) @ p
            objective = -cp.sum(cp.entr(p)) - p @ game.log_ref + cp.log_sum_exp(exponents)
            problem = cp.Problem(cp.Minimize(objective), [cp.sum(p) == 1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "may be inaccurate": the grade will tell
            problem.solve(solver=solver, **(OPTIONS[solver] if tight else {}))
        if p.value is None:
            raise RuntimeError(f"{solver} says {problem.status}")
        return _logs(p.value), float(problem.solver_stats.solve_time or np.nan)

    return solve


# -- game-theory libraries -----------------------------------------------------------------------------------


def gambit_logit(game: wg.Game) -> Answer:
    """Follow the path of logit equilibria to precision 1/beta."""
    import pygambit

    A = folded(game)
    found = pygambit.qre.logit_solve_lambda(pygambit.Game.from_arrays(A, A.T), 1 / game.beta)
    return _logs([found[0][i] for i in range(game.n_responses)])


def spiel_mirror_descent(game: wg.Game) -> Answer:
    """Iterate magnetic mirror descent with OpenSpiel's own step, until our residual says that it is there."""
    import pyspiel
    from open_spiel.python.algorithms.mmd_dilated import MMDDilatedEnt

    A = folded(game)
    matrix_game = pyspiel.create_matrix_game(A.tolist(), (-A).tolist())
    learner = MMDDilatedEnt(pyspiel.convert_to_turn_based(matrix_game), alpha=game.beta)
    while True:
        for _ in range(10):
            learner.update_sequences()
        log_policy = _logs(learner.current_sequences()[0][-game.n_responses :])
        if float(game.residual(log_policy)) <= TOL:
            return log_policy


def spiel_linear_program(game: wg.Game) -> Answer:
    import pyspiel
    from open_spiel.python.algorithms.lp_solver import solve_zero_sum_matrix_game

    A = folded(game)
    return _logs(solve_zero_sum_matrix_game(pyspiel.create_matrix_game(A.tolist(), (-A).tolist()))[0])


def nashpy_linear_program(game: wg.Game) -> Answer:
    import nashpy

    return _logs(nashpy.Game(folded(game)).linear_program()[0])


def quantecon_minmax(game: wg.Game) -> Answer:
    from quantecon.optimize import minmax

    return _logs(minmax(folded(game))[1])


def quantecon_lemke_howson(game: wg.Game) -> Answer:
    from quantecon.game_theory import NormalFormGame, Player, lemke_howson

    A = folded(game)
    return _logs(lemke_howson(NormalFormGame((Player(A), Player(-A.T))), max_iter=10**7)[0])


ALL = 10**9
SOLVERS = [
    Solver("windgames", equilibrium, batched=True, largest=ALL, any_game=True),
    Solver("windgames, one by one", equilibrium, largest=ALL, loop=True),
    Solver("mirror descent (the paper)", mirror_descent, free=False, batched=True, largest=ALL),
    *(
        Solver(f"{name}{', tight' if tight else ''}", conic(name.upper(), tight), ("cvxpy", name.lower()), largest=1000)
        for name in ("Clarabel", "ECOS", "SCS")
        for tight in (False, True)
    ),
    Solver("pygambit, logit", gambit_logit, ("pygambit",), free=False, largest=300),
    Solver("OpenSpiel, mmd_dilated", spiel_mirror_descent, ("open_spiel",), free=False, largest=300),
    Solver("OpenSpiel, LP", spiel_linear_program, ("open_spiel",), free=True),
    Solver("Nashpy, LP", nashpy_linear_program, ("nashpy",), free=True),
    Solver("QuantEcon, minmax", quantecon_minmax, ("quantecon",), free=True),
    Solver("QuantEcon, Lemke-Howson", quantecon_lemke_howson, ("quantecon",), free=True),
]
OURS = ("windgames", "windgames, one by one")


def named(name: str) -> Solver:
    return next(solver for solver in SOLVERS if solver.name == name)

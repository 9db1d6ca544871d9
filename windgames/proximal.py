r"""The proximal point method: equilibria whose reference is the equilibrium before (theory 6.8).

Every step solves a game at `beta` exactly; the references tend to a winner of the game at ``beta = 0``.
COMAL (arXiv 2410.23223) and magnetic preference optimisation (arXiv 2410.16714) do this to language models.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np

from ._array import Array, hilbert, kl, like, log_normalize, to_numpy
from ._validation import positive_number, whole
from .equilibria import equilibrium
from .games import Game, WinRateGame, check_game
from .solution import Solution, Trace

STEP_TOL = 1e-10
"""Residual to which every step's equilibrium is solved, as far as double precision allows."""


def proximal_point(
    game: Game,
    tol: float = 1e-6,
    max_steps: int = 1000,
    start: Array | None = None,
    reference_solution: Solution | Array | None = None,
    callback: Callable[[int, Array], Any] | None = None,
) -> Solution:
    r"""Move the reference to the equilibrium again and again, which tends to a winner of the game at ``beta = 0``.

    .. math:: \rho_{k+1} = \mathrm{softmax}(\log\rho_k + P\rho_{k+1}/\beta)

    For every winner `w`, :math:`KL(w\|\rho_{k+1})\le KL(w\|\rho_k)-KL(\rho_{k+1}\|\rho_k)`; the average of the first
    `K` policies has a gap of at most :math:`\beta\max\log(1/\rho_0)/K` (`bounds.proximal_gap_bound`), and the last one
    converges (theory 6.8). Which winner it is depends on the way; `equilibrium` at ``beta = 0`` returns the one nearest
    to the reference, and is faster: this function is there to study the method.

    Parameters
    ----------
    game : WinRateGame
        Its `beta`, positive, is that of every step: the smaller it is, the fewer and longer are the steps.
        Log-probabilities are kept all along, so that masses may fall below the smallest float.
    tol : float
        Stop when the gap of the game at ``beta = 0``, :math:`\max P\rho_k-\frac12`, is at most `tol` in every context.
    max_steps : int
        Stop after that many steps.
    start : array, shape ``(..., m)``, optional
        Normalised log-probabilities of the first reference; the game's own if None.
    reference_solution : Solution or array, optional
        A winner (log-probabilities), to record the distances to it.
    callback : callable, optional
        Called as ``callback(step, log_policy)`` after each step.

    Returns
    -------
    Solution
        Of the same game at ``beta = 0``: `gap` and `residual` are the unregularised gap. `steps` counts proximal steps.

    Raises
    ------
    ValueError
        If the game is not a win-rate game, its `beta` is 0, or `start` is not a policy of full support of the game.

    Examples
    --------
    >>> import windgames as wg
    >>> rock_paper_scissors = wg.MatrixPreference([[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]])
    >>> found = wg.proximal_point(wg.WinRateGame(rock_paper_scissors, ref=[0.9, 0.05, 0.05], beta=0.1))
    >>> print(found.policy.round(3))
    [0.333 0.333 0.333]
    """
    check_game(game)
    if not isinstance(game, WinRateGame):
        raise ValueError(f"The proximal point method is for win-rate games (theory 6.8), but the game is {game!r}.")
    if not np.all(to_numpy(game.beta) > 0):
        raise ValueError(
            "A proximal step needs a positive beta, but the game has beta = 0. Give it one, or take "
            "windgames.equilibrium, which finds a winner at beta = 0."
        )
    tol, max_steps = positive_number(tol, "tol", zero=True), whole(max_steps, "max_steps")
    local = game.to_numpy()
    shape = (*game.batch_shape, game.n_responses)
    log_policy = to_numpy(game.log_ref) if start is None else to_numpy(game.check_policy(start, "start"))
    log_policy = log_normalize(np.broadcast_to(log_policy, shape).astype(float))
    if np.any(log_policy == -inf):
        raise ValueError("start must have full support: a response without mass never gets any.")
    winner = None
    if reference_solution is not None:
        given = reference_solution.log_policy if isinstance(reference_solution, Solution) else reference_solution
        winner = to_numpy(game.check_policy(given, "reference_solution")).astype(float)
    free = local.replace(beta=np.zeros(game.batch_shape) if game.batch_shape else 0.0)

    records: dict[str, list[np.ndarray]] = {}
    reached, step, systems = np.full(game.batch_shape, -1), 0, 0
    while True:
        measured = {name: to_numpy(x) for name, x in free.measure(log_policy).items()}
        if winner is not None:
            measured["kl_to_solution"], measured["kl_from_solution"] = kl(log_policy, winner), kl(winner, log_policy)
            measured["hilbert_to_solution"] = hilbert(log_policy, winner)
        for name, value in measured.items():
            records.setdefault(name, []).append(value)
        converged = measured["gap"] <= tol
        reached = np.where(converged, np.where(reached < 0, step, reached), -1)
        if np.all(converged) or step == max_steps:
            break
        found = equilibrium(local.replace(log_ref=log_policy), tol=STEP_TOL, start=log_policy)
        log_policy, systems, step = found.log_policy, systems + int(np.max(found.steps, initial=0)), step + 1
        if callback is not None:
            callback(step, like(log_policy, game.log_ref))

    columns: dict[str, Any] = {name: np.stack(values) for name, values in records.items()}
    worst = float(np.max(measured["gap"], initial=0.0))
    status = f"Converged after {step} proximal steps: gap at beta = 0 {worst:.2e}, tol {tol:.0e}."
    if not np.all(converged):
        status = (
            f"Not converged after {step} proximal steps: gap at beta = 0 {worst:.2e}, tol {tol:.0e}. Go on from "
            f"solution.log_policy (start=), lower beta for longer steps, or take windgames.equilibrium at beta = 0."
        )
    return Solution(
        game=game.replace(beta=like(free.beta, game.log_ref) if game.batch_shape else 0.0),
        log_policy=like(log_policy, game.log_ref),
        gap=columns["gap"][-1],
        kl_certificate=columns["kl_certificate"][-1],
        residual=columns["residual"][-1],
        converged=np.asarray(converged),
        steps=np.where(reached < 0, step, reached),
        status=status,
        method="proximal point",
        settings={"beta": to_numpy(game.beta), "systems": systems},
        trace=Trace(steps=np.arange(step + 1), **columns),
    )

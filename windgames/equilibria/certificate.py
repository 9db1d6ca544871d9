"""`certify`: what the game itself says of an answer, and the status sentence that tells a person."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np

from .._array import batch_size, like
from .._validation import positive_number
from ..games import Game, WinRateGame, check_game
from ..solution import Solution
from .sorted import only_the_top


def check_arguments(game: Any, tol: Any) -> float:
    """Return `tol` as a float after checking it and the game."""
    check_game(game)
    return positive_number(tol, "tol")


def certify(
    game: Game,
    local: Game,
    log_policy: np.ndarray,
    systems: np.ndarray,
    tol: float,
    method: str,
    origin: str = "the reference",
) -> Solution:
    """Return the answer as a Solution, after one more best response where that lowers the residual.

    `local` is the game on numpy arrays, `systems` the number of linear systems of each context, and `origin` names
    where best responses started.
    """
    log_policy, systems = log_policy.reshape(*game.batch_shape, -1), systems.reshape(game.batch_shape)
    beta = np.broadcast_to(np.asarray(local.beta, dtype=float), game.batch_shape)
    measured = local.measure(log_policy)
    if np.all(beta > 0):
        response = local.best_response(log_policy)
        other = local.measure(response)
        better = other["residual"] < measured["residual"]
        log_policy = np.where(better[..., None], response, log_policy)
        measured = {name: np.where(better, other[name], value) for name, value in measured.items()}
    finite = np.where(log_policy > -inf, log_policy, 0.0)
    price = np.where(beta > 0, beta, 1.0)
    # a log-probability of size z is itself known to eps z only, and a payoff of size one to eps/2
    eps = np.finfo(float).eps
    proven = measured["residual"] + eps * np.max(np.abs(finite), axis=-1) + np.where(beta > 0, eps / price / 2, 0.0)
    converged = proven <= tol
    return Solution(
        game=game,
        log_policy=like(log_policy, game.log_ref),
        gap=measured["gap"],
        kl_certificate=measured["kl_certificate"],
        residual=measured["residual"],
        converged=np.asarray(converged),
        steps=systems,
        status=" ".join(_sentences(game, local, beta, finite, measured, proven, converged, tol, origin)),
        method=method,
        settings={"tol": tol},
    )


def _sentences(
    game: Game,
    local: Game,
    beta: np.ndarray,
    finite: np.ndarray,
    measured: dict[str, np.ndarray],
    proven: np.ndarray,
    converged: np.ndarray,
    tol: float,
    origin: str,
) -> list[str]:
    """Return the sentences of the status."""
    price = np.where(beta > 0, beta, 1.0)
    measure = f"{'gap' if np.all(beta == 0) else 'residual'} {float(np.max(measured['residual'])):.2e}, tol {tol:.0e}"
    sentences = [f"Converged: {measure}."]
    count = int(np.sum(~converged))
    if count:
        where = f" in {count} of {converged.size} contexts" if batch_size(game.batch_shape) > 1 else ""
        sentences = [f"Not converged{where}: {measure}; log-probabilities go down to {finite.min():.1e}."]
        rounding = 1e-14 * (1 + 1 / price) + 1e-15 * np.max(np.abs(finite), axis=-1)
        if np.all(proven[~converged] <= rounding[~converged]):
            sentences.append("That is the rounding of double precision: raise tol.")
        elif isinstance(game, WinRateGame):
            sentences.append(
                "An equilibrium exists: raise beta, or continue with solve(game, extragradient(), start=...)."
            )
        else:
            sentences.append(
                "At the critical beta of a log-win-rate game (theory 3.8) best responses converge slower than "
                "geometrically; with a matrix they may cycle, and the path in beta may fold. Raise beta."
            )
    if np.any(beta == 0) and np.all(converged[beta == 0]):
        sentences.append(
            "At beta = 0 this is the winner nearest to the reference in KL, as far as double precision can tell; the "
            "gap proves that no deviation gains more."
        )
    collapsed = only_the_top(local)
    if np.any(collapsed):
        sentences.append("The reference on the responses of largest reward is the only equilibrium (theory 3.9).")
    if not isinstance(game, WinRateGame) and np.any(np.isinf(local.certificate_factor) & (beta > 0) & ~collapsed):
        sentences.append(
            f"beta is not above the contraction constant (theory 3.7): other equilibria may exist. This is the one "
            f"that best responses reach from {origin} (where they cycle: the path in beta, then random starts), and "
            f"the residual is its only proof."
        )
    return sentences

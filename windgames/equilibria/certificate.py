"""`certify`: what the game itself says of an answer, and the sentences of the status."""

from __future__ import annotations

from math import ceil, inf, log10
from typing import Any

import numpy as np

from .._array import batch_size, like
from .._validation import positive_number
from ..games import Game, WinRateGame, check_game
from ..solution import Solution
from .contexts import beta_of_contexts
from .sorted import only_equilibrium_is_top

DEFAULT_TOL = 1e-10
"""Residual asked for where the caller names no `tol`."""
PROBABILITY_TOL = 1e-12
"""Where rounding leaves a residual above `DEFAULT_TOL`, a context counts as converged if each probability is proven to
this."""
MOST_PROVEN = 1000
"""Number of responses up to which probabilities are proven, which takes the inverse of a matrix."""


def check_arguments(game: Any, tol: Any) -> float | None:
    """Return `tol` as a float, or None, after checking it and the game."""
    check_game(game)
    return None if tol is None else positive_number(tol, "tol")


def certify(
    game: Game,
    local: Game,
    log_policy: np.ndarray,
    systems: np.ndarray,
    tol: float | None,
    method: str,
    origin: str = "the reference",
) -> Solution:
    """Return the answer as a Solution, after one more best response where that lowers a residual above rounding.

    `local` is the game on numpy arrays, `systems` the number of linear systems of each context, and `origin` names
    where best responses started.
    """
    asked = DEFAULT_TOL if tol is None else tol
    log_policy, systems = log_policy.reshape(*game.batch_shape, -1), systems.reshape(game.batch_shape)
    beta = beta_of_contexts(local).reshape(game.batch_shape)
    payoff = local.payoff(log_policy)
    measured, rounding = local.measure(log_policy, payoff), np.asarray(local.rounding(payoff))
    if np.any((measured["residual"] > rounding) & (beta > 0)):
        response = local.respond(payoff)
        other = local.measure(response)
        better = (other["residual"] < measured["residual"]) & (beta > 0)
        log_policy = np.where(better[..., None], response, log_policy)
        measured = {name: np.where(better, other[name], value) for name, value in measured.items()}
    if not isinstance(local, WinRateGame):  # the logarithms of a policy may be far larger than the reference's
        size = np.max(np.abs(np.where(log_policy > -inf, log_policy, 0.0)), axis=-1)
        rounding = np.maximum(rounding, np.finfo(float).eps * size)
    bound = measured["residual"] + rounding
    converged = np.asarray(bound <= asked)
    error = np.full(game.batch_shape, inf)
    if tol is None and not np.all(converged):
        error = _probability_bounds(local, log_policy, beta, bound, measured["hilbert_certificate"], ~converged)
        converged = converged | (error <= PROBABILITY_TOL)
    return Solution(
        game=game,
        log_policy=like(log_policy, game.log_ref),
        gap=measured["gap"],
        kl_certificate=measured["kl_certificate"],
        residual=measured["residual"],
        converged=converged,
        steps=systems,
        status=" ".join(_sentences(local, beta, measured["residual"], rounding, error, converged, asked, origin)),
        method=method,
        settings={"tol": asked},
    )


def _sentences(
    game: Game,
    beta: np.ndarray,
    residual: np.ndarray,
    rounding: np.ndarray,
    error: np.ndarray,
    converged: np.ndarray,
    tol: float,
    origin: str,
) -> list[str]:
    """Return the sentences of the status."""
    measure = f"{'gap' if np.all(beta == 0) else 'residual'} {float(np.max(residual)):.2e}, tol {tol:.0e}"
    by_proof = converged & (residual + rounding > tol)
    failed = ~converged
    sentences = [f"Converged: {measure}."]
    if np.any(failed):
        where = f" in {int(np.sum(failed))} of {converged.size} contexts" if batch_size(game.batch_shape) > 1 else ""
        sentences = [f"Not converged{where}: {measure}."]
        if np.all((residual <= 4 * rounding)[failed]):
            attainable = float(np.max((residual + rounding)[failed]))
            attainable = ceil(attainable / 10.0 ** (power := ceil(log10(attainable)) - 1)) * 10.0**power
            sentences.append(f"That is the rounding of double precision: tol={attainable:.0e} can be met.")
        elif isinstance(game, WinRateGame):
            sentences.append(
                "An equilibrium exists: raise beta, or continue with solve(game, extragradient(), start=...)."
            )
        else:
            sentences.append(
                "At the critical beta of a log-win-rate game (theory 3.8) best responses converge slower than "
                "geometrically; with a matrix they may cycle, and the path in beta may fold. Raise beta."
            )
    if np.any(by_proof):
        sentences.append(
            f"Double precision leaves a residual up to {float(np.max((residual + rounding)[by_proof])):.0e} at such a "
            f"beta, but every probability is proven to {float(np.max(error[by_proof])):.0e} (theory 6.10)."
        )
    if np.any(beta == 0) and np.all(converged[beta == 0]):
        sentences.append(
            "At beta = 0 this is the winner nearest to the reference in KL, as far as double precision can tell; the "
            "gap proves that no deviation gains more."
        )
    if not isinstance(game, WinRateGame):
        open_question = np.isinf(game.certificate_factor) & (beta > 0)
        top = open_question & only_equilibrium_is_top(game, beta)
        if np.any(top):
            sentences.append("The reference on the best responses is the only equilibrium (theory 3.9).")
        if np.any(open_question & ~top):
            sentences.append(
                f"beta is not above the contraction constant (theory 3.7): other equilibria may exist. This is the one "
                f"that best responses reach from {origin} (where they cycle: the path in beta, then random starts), "
                f"and the residual is its only proof."
            )
    return sentences


def _probability_bounds(
    game: Game,
    log_policy: np.ndarray,
    beta: np.ndarray,
    residual: np.ndarray,
    distance: np.ndarray,
    wanted: np.ndarray,
) -> np.ndarray:
    r"""Return a bound on :math:`\max|\pi-\pi^*|` in the contexts `wanted`, infinite where there is none (theory 6.10).

    `residual` and `distance` are bounds on the residual and on the Hilbert distance to the equilibrium.
    """
    out, m = np.full(wanted.shape, inf), game.n_responses
    if not isinstance(game, WinRateGame) or m > MOST_PROVEN:
        return out
    matrix = np.asarray(game.preference.matrix()) - 0.5
    for index in map(tuple, np.argwhere(wanted & (beta > 0) & (distance < 0.1))):
        A = np.broadcast_to(matrix, (*game.batch_shape, m, m))[index]
        p = np.exp(log_policy[index])
        K = np.ones((m + 1, m + 1))
        K[:m, :m], K[m, :m], K[m, m] = np.eye(m) - A * (p / beta[index]), p, 0.0
        try:
            X = np.linalg.inv(K)[:m, :m]
        except np.linalg.LinAlgError:
            continue
        direct = np.sum(np.abs(X), axis=-1) * (residual[index] / 2)
        again = np.expm1(distance[index]) * np.abs(X - np.eye(m))
        change = direct
        for _ in range(5):
            change = direct + again @ change
        # a vector that the map takes below itself bounds its fixed point; twice, for the rounding of the inverse
        change = 2 * change
        if np.all(direct + again @ change <= change):
            out[index] = np.max(p * np.expm1(change))
    return out

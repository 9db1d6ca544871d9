"""The equilibrium as a differentiable function in torch: train a reward, a judge or a reference through it.

Forward solves the game, backward solves one transposed linear system (theory 6.4 of windgames); no solver step is
recorded, and both are windgames' own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

import windgames as wg

NAMES = ("reward", "matrix", "embedding", "skew", "log_ref", "beta")


def equilibrium_policy(
    *,
    reward: Tensor | None = None,
    matrix: Tensor | None = None,
    embedding: Tensor | None = None,
    skew: Tensor | None = None,
    log_ref: Tensor,
    beta: Tensor | float,
    scale: float = 1.0,
    log_game: bool = False,
    tol: float = 1e-10,
) -> Tensor:
    r"""Return the log-probabilities of a game's equilibrium, differentiable by all that defines the game.

    Exactly one preference is given: `reward` (Bradley-Terry: a 0/1 comparison of rewards has no useful derivative),
    `matrix`, or `embedding` and `skew` (low rank).

    Parameters
    ----------
    reward : tensor, shape ``(..., m)``, optional
    matrix : tensor, shape ``(..., m, m)``, optional
        Constant-sum in a win-rate game; its gradient is skew, the part that such matrices can follow.
    embedding, skew : tensors, shapes ``(..., m, k)`` and ``(..., k, k)``, optional
        As in `windgames.LowRankPreference`; `skew` may be left out for even `k`.
    log_ref : tensor, shape ``(..., m)``
        Log-probabilities of the reference, or any logits: they are normalised.
    beta : tensor or float
        Positive; one, or one per context.
    scale : float
        Of the Bradley-Terry comparison.
    log_game : bool
        The log-win-rate game instead of the win-rate game.
    tol : float
        As in `windgames.equilibrium`.

    Returns
    -------
    tensor, shape ``(..., m)``
        With the dtype and on the device of `log_ref`. The computation is in float64 on the CPU.

    Raises
    ------
    ValueError
        If the game is not one (windgames' message says what is wrong), ``beta = 0``, the solver did not converge, or
        the equilibrium has no derivative.
    """
    if (reward is not None) + (matrix is not None) + (embedding is not None) != 1:
        raise ValueError("Give exactly one of reward, matrix and embedding.")
    if skew is not None and embedding is None:
        raise ValueError("skew goes with embedding.")
    settings = {"scale": scale, "log_game": log_game, "tol": tol}
    return _Equilibrium.apply(settings, reward, matrix, embedding, skew, log_ref, beta)


class _Equilibrium(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, settings: dict[str, Any], *data: Any) -> Tensor:
        given = dict(zip(NAMES, data, strict=True))
        values = {k: v.detach().double().cpu() if isinstance(v, Tensor) else v for k, v in given.items()}
        if values["reward"] is not None:
            preference: wg.Preference = wg.BradleyTerryPreference(values["reward"], settings["scale"])
        elif values["matrix"] is not None:
            preference = wg.MatrixPreference(values["matrix"])
        else:
            preference = wg.LowRankPreference(values["embedding"], values["skew"])
        kind = wg.LogWinRateGame if settings["log_game"] else wg.WinRateGame
        ref = torch.softmax(values["log_ref"], dim=-1)
        solution = wg.equilibrium(kind(preference, ref, values["beta"]), settings["tol"])
        ctx.sensitivity = wg.sensitivity(solution)
        ctx.like = {k: v for k, v in given.items() if isinstance(v, Tensor)}
        return solution.log_policy.to(given["log_ref"])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gradient = ctx.sensitivity.vjp(grads[0].double().cpu())
        out = (gradient[k].to(ctx.like[k]) if k in ctx.like else None for k in NAMES)
        return (None, *out)

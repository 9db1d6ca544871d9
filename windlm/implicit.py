"""The equilibrium as a differentiable function in torch, to train a reward, a judge or a reference through it.

The forward pass solves the game with windgames, the backward pass solves one transposed linear system (theory 6.4); no
solver step is recorded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

import windgames as wg

NAMES = ("reward", "matrix", "embedding", "skew", "log_ref", "beta")
"""Arguments that define a game, in the order of the autograd function."""


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
    r"""Return the log-probabilities of a game's equilibrium, differentiable in preference, reference and beta.

    Exactly one preference is given: `reward` (Bradley-Terry, since a 0/1 comparison of rewards has no useful
    derivative), `matrix`, or `embedding` and `skew` (low rank).

    Parameters
    ----------
    reward : tensor, shape ``(..., m)``, optional
    matrix : tensor, shape ``(..., m, m)``, optional
        Must be constant-sum in a win-rate game; its gradient is the skew-symmetric part, which keeps it constant-sum.
    embedding, skew : tensors, shapes ``(..., m, k)`` and ``(..., k, k)``, optional
        As in `windgames.LowRankPreference`; `skew` is optional for even `k`.
    log_ref : tensor, shape ``(..., m)``
        Log-probabilities of the reference, or unnormalised logits.
    beta : tensor or float
        Positive regularisation strength, one or one per context.
    scale : float
        Temperature of the Bradley-Terry comparison, in units of the reward.
    log_game : bool
        Whether to solve the log-win-rate game instead of the win-rate game.
    tol : float
        Tolerance, as in `windgames.equilibrium`.

    Returns
    -------
    tensor, shape ``(..., m)``
        Dtype and device are those of `log_ref`; the computation is in float64 on the CPU.

    Raises
    ------
    ValueError
        If the game is invalid, ``beta = 0``, the solver did not converge, or the equilibrium is not differentiable.
    """
    if (reward is not None) + (matrix is not None) + (embedding is not None) != 1:
        raise ValueError("Give exactly one of reward, matrix and embedding.")
    if skew is not None and embedding is None:
        raise ValueError("skew is only used with embedding.")
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

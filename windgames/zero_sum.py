r"""Zero-sum games between two different players, as preference games: `embed_zero_sum`."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._array import array_namespace, is_array_api_obj, like, log_normalize, owned, scalar, to_numpy
from ._validation import as_float, first_index
from .preferences import MatrixPreference


@dataclass(frozen=True, repr=False)
class ZeroSumEmbedding:
    """A zero-sum game and the preference whose winners are its optimal strategies; see `embed_zero_sum`."""

    payoff: Any
    """What the row player receives from the column player, shape ``(..., m, n)``."""
    preference: MatrixPreference
    """Between ``m + n + 1`` responses: the rows, the columns, and one more that ties the two together."""
    row_names: tuple[Hashable, ...] | None = None
    column_names: tuple[Hashable, ...] | None = None

    def recover(self, solution: Any) -> tuple[Any, Any, Any]:
        r"""Return the row strategy, the column strategy and the value.

        The value is what the strategies earn against each other. How good they are is told by the game itself:
        nobody gains more than :math:`\max_i(Ay)_i - \min_j(x^\top A)_j`, which is `exploitability`.

        Parameters
        ----------
        solution : Solution or array, shape ``(..., m + n + 1)``
            Of a win-rate game of `preference`; exact at ``beta = 0``. An array holds log-probabilities.

        Raises
        ------
        ValueError
            If the solution is of another game, or plays no row or no column.
        """
        log_policy = getattr(solution, "log_policy", solution)
        if not is_array_api_obj(log_policy):
            log_policy = as_float(log_policy, "solution")
        m, n = self.payoff.shape[-2:]
        if log_policy.ndim < 1 or log_policy.shape[-1] != m + n + 1:
            raise ValueError(
                f"solution must be of a game of this embedding, with {m + n + 1} responses, but its policy has shape "
                f"{tuple(log_policy.shape)}."
            )
        xp = array_namespace(log_policy)
        parts = log_policy[..., :m], log_policy[..., m : m + n]
        for part, who in zip(parts, ("row", "column"), strict=True):
            where = first_index(xp.max(part, axis=-1) == -float("inf"))
            if where is not None:
                raise ValueError(f"The solution plays no {who}, so it is no equilibrium at beta = 0: solve it first.")
        x, y = (xp.exp(log_normalize(part)) for part in parts)
        A = xp.astype(self.payoff, x.dtype)
        value = xp.sum(x * xp.matmul(A, y[..., None])[..., 0], axis=-1)
        return x, y, value if value.ndim else float(value)

    def exploitability(self, row: Any, column: Any) -> Any:
        r"""Return :math:`\max_i(Ay)_i - \min_j(x^\top A)_j`, which bounds the error of the value, too."""
        xp = array_namespace(row)
        A = xp.astype(self.payoff, row.dtype)
        gain = xp.max(xp.matmul(A, column[..., None])[..., 0], axis=-1)
        out = gain - xp.min(xp.matmul(row[..., None, :], A)[..., 0, :], axis=-1)
        return out if out.ndim else float(out)

    def __repr__(self) -> str:
        m, n = self.payoff.shape[-2:]
        return f"ZeroSumEmbedding({m} x {n} game, {self.preference!r})"


def embed_zero_sum(payoff: Any, row_names: Any = None, column_names: Any = None) -> ZeroSumEmbedding:
    r"""Write an ``m x n`` zero-sum game as a preference, so that it is solved with the same certificates.

    The payoff is moved and scaled to :math:`B\in[1,2]^{m\times n}`, which changes no optimal strategy, and (Gale, Kuhn
    and Tucker, after von Neumann)

    .. math:: P = \tfrac12 + \tfrac14 S,\qquad
        S = \begin{pmatrix} 0 & B & -1\\ -B^\top & 0 & 1\\ 1^\top & -1^\top & 0\end{pmatrix}.

    A policy :math:`(x, y, \lambda)` that nothing beats, :math:`Sz\le0`, has :math:`By\le\lambda 1`,
    :math:`B^\top x\ge\lambda 1` and :math:`\sum x\le\sum y`. These imply :math:`\lambda>0` and
    :math:`\sum x=\sum y>0`, and `x` and `y`, normalised, are optimal.

    Parameters
    ----------
    payoff : array or DataFrame, shape ``(..., m, n)``
        What the row player receives from the column player.
    row_names, column_names : sequence, optional
        Names of the strategies; the labels of a DataFrame if None.

    Returns
    -------
    ZeroSumEmbedding
        With `preference` and ``recover(solution) -> (row strategy, column strategy, value)``.

    Raises
    ------
    ValueError
        If an entry is not finite, there is no row or no column, or names are not as many as strategies.

    Examples
    --------
    >>> import numpy as np, windgames as wg
    >>> e = wg.embed_zero_sum([[2.0, -1.0, 0.0], [-1.0, 1.0, 3.0]])
    >>> solution = wg.equilibrium(wg.WinRateGame(e.preference, ref=np.full(6, 1 / 6), beta=0))
    >>> row, column, value = e.recover(solution)
    >>> print(row.round(6), column.round(6), round(value, 6))
    [0.4 0.6] [0.4 0.6 0. ] 0.2
    """
    rows, columns = row_names, column_names
    if hasattr(payoff, "columns") and hasattr(payoff, "index"):
        rows = payoff.index if rows is None else rows
        columns = payoff.columns if columns is None else columns
        payoff = payoff.to_numpy()
    payoff = owned(as_float(payoff, "payoff"))
    if payoff.ndim < 2 or 0 in payoff.shape:
        raise ValueError(f"payoff must have shape (..., m, n) with no empty axis, but its shape is {payoff.shape}.")
    xp = array_namespace(payoff)
    where = first_index(~xp.isfinite(payoff))
    if where is not None:
        raise ValueError(f"payoff must be finite, but entry {where} is {scalar(payoff[where])}.")
    A = to_numpy(payoff).astype(float)
    low, high = (f(A, axis=(-2, -1), keepdims=True) for f in (np.min, np.max))
    half = high / 2 - low / 2  # of the range, which itself may overflow
    B = 1 + (A / 2 - low / 2) / np.where(half > 0, half, 1.0)
    *batch, m, n = A.shape
    S = np.zeros((*batch, m + n + 1, m + n + 1))
    S[..., :m, m:-1], S[..., m:-1, :m] = B, -B.swapaxes(-1, -2)
    S[..., :m, -1], S[..., -1, :m] = -1, 1
    S[..., m:-1, -1], S[..., -1, m:-1] = 1, -1
    P = 0.5 + S / 4
    out = MatrixPreference(like(P, payoff))
    rows, columns = (None if names is None else tuple(names) for names in (rows, columns))
    for axis, names, size in (("row", rows, m), ("column", columns, n)):
        if names is not None and len(names) != size:
            raise ValueError(f"{axis}_names has {len(names)} entries, but the game has {size} {axis}s.")
    if rows is not None or columns is not None:
        labels = (range(k) if names is None else names for names, k in ((rows, m), (columns, n)))
        out.names = (
            *(f"{who} {name}" for who, x in zip(("row", "column"), labels, strict=True) for name in x),
            "value",
        )
    return ZeroSumEmbedding(payoff, out, rows, columns)

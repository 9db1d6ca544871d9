"""Newton systems of dense games: an LU factorisation, or a few products with the matrix (theory 6.7)."""

from __future__ import annotations

from math import inf, sqrt

import numpy as np
from scipy.linalg.lapack import dgetrf, dgetrs

from .._array import (
    log_normalize,
    logsumexp,
)
from ..games import Game
from .central_path import ITERATED, central_path, few_products, gains
from .problems import Newton, Problem, System, centred, span_of

FORCING = 1e-3
"""Share of the residual that is left when a step is iterated and not factorised."""


LOW, CLOSE = 0.05, 0.01
"""Below this price, a tenth of it where systems are iterated, the central path is followed first, until the sum of
share times slack is so small a part of the price."""


class DenseProblem(Problem):
    """The payoff's derivative is a matrix, the system an LU factorisation, or a few products where they do."""

    name = "dense"
    repeats = 12
    patient = True
    """Whether conjugate gradients have kept within their limit so far; systems get harder along the path."""

    def __init__(self, game: Game, rows: np.ndarray, beta: np.ndarray) -> None:
        super().__init__(game, rows, beta)
        p, m = game.preference, game.n_responses
        self.shared = p.batch_shape == () or len(rows) == np.prod(game.batch_shape) == 1
        matrix, self.log_matrix = np.asarray(p.matrix()), None
        if self.log_payoff:
            logs = np.asarray(p.log_matrix(matrix.dtype))
            self.log_matrix = logs.reshape(1, m, m) if self.shared else self._context(logs, 2)
        else:
            matrix = matrix - 0.5
        self.matrix = matrix.reshape(1, m, m) if self.shared else self._context(matrix, 2)

    def _rows(self, matrix: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return matrix if self.shared else matrix[rows]

    def payoff(self, z: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return log win rates, or win rates less a half."""
        win = gains(self._rows(self.matrix, rows), np.exp(z))
        if not self.log_payoff:
            return win
        if win.min() > 1e-280:  # nothing that underflowed above could have counted
            return np.log(win)
        assert self.log_matrix is not None
        return logsumexp(self._rows(self.log_matrix, rows) + z[:, None, :])

    def _matrix(self, z: np.ndarray, u: np.ndarray, beta: np.ndarray, rows: np.ndarray) -> np.ndarray:
        r"""Return :math:`\mathcal A` of theory 6.1; of a win-rate game :math:`I-AD/\beta` with the skew part alone.

        The latter lacks the centring, for which a second right-hand side makes up: passes over the matrix less.
        """
        q = np.exp(z)
        if self.log_payoff:
            assert self.log_matrix is not None
            dead = (u == -inf)[..., None]
            logs = self._rows(self.log_matrix, rows) + z[:, None, :] - np.where(dead, 0.0, u[..., None])
            M = np.where(dead, 0.0, np.exp(np.where(dead, 0.0, logs)))
            A = (q[:, None, :] @ M - M) / beta[:, None, None]
        else:
            A = self._rows(self.matrix, rows) * (-q / beta[:, None])[:, None, :]
        index = np.arange(z.shape[1])
        A[:, index, index] += 1
        return A

    def system(self, z: np.ndarray, u: np.ndarray, beta: np.ndarray, rows: np.ndarray) -> System:
        q = np.exp(z)
        # a singular matrix has a zero pivot, and its solutions are not finite
        factors = [dgetrf(A)[:2] for A in self._matrix(z, u, beta, rows)]

        def inverse(t: np.ndarray, transposed: bool = False) -> np.ndarray:
            return np.stack([dgetrs(*lu, b, trans=transposed)[0] for lu, b in zip(factors, t, strict=True)])

        ones = None if self.log_payoff else inverse(np.ones_like(q))
        slope = None if ones is None else np.sum(q * ones, axis=-1, keepdims=True)

        def solve(t: np.ndarray, transposed: bool = False) -> np.ndarray:
            if ones is None:
                x = inverse(t if transposed else centred(q, t), transposed)
                return x - q * np.sum(x, axis=-1, keepdims=True) if transposed else x
            if transposed:
                return inverse(t - q * np.sum(ones * t, axis=-1, keepdims=True) / slope, True)
            x = inverse(centred(q, t))
            return x - ones * np.sum(q * x, axis=-1, keepdims=True) / slope

        return solve

    def newton(self, z: np.ndarray, u: np.ndarray, beta: np.ndarray, rows: np.ndarray) -> Newton:
        factorised: list[System] = []

        def step(r: np.ndarray) -> np.ndarray:
            if self._iterates(len(r)) and not factorised:
                found = self._few_products(z[0], r[0], float(beta[0]), rows)
                if found is not None:
                    return found[None]
                self.patient = False
            if not factorised:
                factorised.append(self.system(z, u, beta, rows))
            return factorised[0](-r)

        return step

    def direction(self, z: np.ndarray, u: np.ndarray, r: np.ndarray, beta: np.ndarray, rows: np.ndarray) -> np.ndarray:
        if len(z) == 1:
            return self.newton(z, u, beta, rows)(r)
        q = np.exp(z)
        t = -centred(q, r)
        right = t[..., None] if self.log_payoff else np.stack([t, np.ones_like(t)], axis=-1)
        try:  # many small systems in one call
            x = np.linalg.solve(self._matrix(z, u, beta, rows), right)
        except np.linalg.LinAlgError:
            return np.full_like(z, np.nan)
        if self.log_payoff:
            return x[..., 0]
        along = (q[:, None, :] @ x)[:, 0]
        return x[..., 0] - x[..., 1] * (along[:, :1] / along[:, 1:])

    def _iterates(self, contexts: int) -> bool:
        return contexts == 1 and self.patient and not self.log_payoff and self.log_ref.shape[-1] >= ITERATED

    def _few_products(self, z: np.ndarray, r: np.ndarray, beta: float, row: np.ndarray) -> np.ndarray | None:
        """Return Newton's step to a few digits, or None where conjugate gradients are slow."""
        A, root = self._rows(self.matrix, row)[0], np.exp(z / 2)
        b = -root * r
        b -= root * (root @ b)
        # an error of y = D^(1/2) dz moves dz by at most half of it over beta
        enough = FORCING * 2 * min(beta, 0.5) * float(span_of(r, z == -inf))
        y = few_products(A, root / sqrt(beta), b, enough, normal=root)
        if y is None:
            return None
        # what has next to no mass does not show in y: it follows from the rest
        t = A @ (root * y) / beta - r
        return t - root**2 @ t

    @property
    def low(self) -> float:  # type: ignore[override]
        return 0.0 if self.log_payoff else LOW / 10 if self._iterates(len(self.rows)) else LOW

    def near(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        beta = self.beta[rows]
        matrix = self._rows(self.matrix, rows)
        x, _, systems = central_path(matrix, self.log_ref[rows], beta, CLOSE * beta)
        z = self.log_ref[rows] + self.payoff(np.log(x), rows) / beta[:, None]
        return log_normalize(z), systems

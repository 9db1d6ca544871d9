"""Newton systems of dense games: an LU factorisation, or conjugate gradients where a few products do (theory 6.7)."""

from __future__ import annotations

from math import inf, sqrt

import numpy as np
from scipy.linalg.lapack import dgetrf, dgetrs

from .._array import log_normalize, logsumexp
from ..games import Game
from .central_path import CG_FROM, batched_matvec, central_path, conjugate_gradients
from .problems import Newton, Problem, System, centred, span_of

CG_TOLERANCE = 1e-3
"""Error of a step by conjugate gradients, relative to the residual."""
CENTRAL_PATH_BELOW = 0.05
"""For beta below this the search starts at the end of the central path; where steps are by conjugate gradients, below a
tenth of this."""
CENTRAL_PATH_END = 1e-3
"""The central path ends where the sum of probability times slack is this multiple of beta."""


class DenseProblem(Problem):
    """The derivative of the payoff is an ``m x m`` matrix."""

    name = "dense"
    steps_per_system = 12
    use_cg = True
    """Whether conjugate gradients have converged so far; once they do not, later systems on the path are harder."""

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
        win = batched_matvec(self._rows(self.matrix, rows), np.exp(z))
        if not self.log_payoff:
            return win
        if win.min() > 1e-280:  # no probability that underflowed could have mattered
            return np.log(win)
        assert self.log_matrix is not None
        return logsumexp(self._rows(self.log_matrix, rows) + z[:, None, :])

    def _matrix(self, z: np.ndarray, u: np.ndarray, beta: np.ndarray, rows: np.ndarray) -> np.ndarray:
        r"""Return :math:`\mathcal A` of theory 6.1; for a win-rate game :math:`I-AD/\beta` with the skew part only.

        The latter omits the centring, which a second right-hand side replaces: that saves passes over the matrix.
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
        """Set up the Newton systems by LU; where a matrix is singular the solutions are not finite."""
        q = np.exp(z)
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
            if self._cg_applies(len(r)) and not factorised:
                dz = self._cg_step(z[0], r[0], float(beta[0]), rows)
                if dz is not None:
                    return dz[None]
                self.use_cg = False
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

    def _cg_applies(self, contexts: int) -> bool:
        return contexts == 1 and self.use_cg and not self.log_payoff and self.log_ref.shape[-1] >= CG_FROM

    def _cg_step(self, z: np.ndarray, r: np.ndarray, beta: float, row: np.ndarray) -> np.ndarray | None:
        """Return Newton's step to a relative error of `CG_TOLERANCE`, or None where conjugate gradients are slow."""
        A, root = self._rows(self.matrix, row)[0], np.exp(z / 2)
        b = -root * r
        b -= root * (root @ b)
        # an error of y = D^(1/2) dz moves dz by at most half of it over beta
        error = CG_TOLERANCE * 2 * min(beta, 0.5) * float(span_of(r, z == -inf))
        y = conjugate_gradients(A, root / sqrt(beta), b, error, normal=root)
        if y is None:
            return None
        # y = D^(1/2) dz has no digits of dz where the probability is tiny: the equation gives them
        t = A @ (root * y) / beta - r
        return t - root**2 @ t

    @property
    def central_path_below(self) -> float:  # type: ignore[override]
        """The value of beta below which the search starts on the central path."""
        if self.log_payoff:
            return 0.0
        return CENTRAL_PATH_BELOW / 10 if self._cg_applies(len(self.rows)) else CENTRAL_PATH_BELOW

    def initial_guess(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the best responses to the ends of the central paths (theory 6.7), and the systems that they took."""
        beta = self.beta[rows]
        x, _, systems = central_path(self._rows(self.matrix, rows), self.log_ref[rows], beta, CENTRAL_PATH_END * beta)
        return log_normalize(self.log_ref[rows] + self.payoff(np.log(x), rows) / beta[:, None]), systems

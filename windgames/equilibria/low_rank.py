"""Newton systems of low-rank win-rate games, of the size of the embedding dimension (theory 6.5)."""

from __future__ import annotations

import numpy as np

from ..games import Game
from ..preferences import LowRankPreference
from .problems import Problem, System, centred


class LowRankProblem(Problem):
    """The payoff depends on the policy only through the mean embedding, so the system is ``k x k``."""

    name = "low rank"

    def __init__(self, game: Game, rows: np.ndarray, beta: np.ndarray) -> None:
        super().__init__(game, rows, beta)
        p = game.preference
        assert isinstance(p, LowRankPreference)
        self.shared = p.embedding.ndim == 2
        self.embedding = p.embedding[None] if self.shared else self._context(p.embedding, 2)
        self.skew = self._context(p.skew, 2)

    def _rows(self, rows: np.ndarray) -> np.ndarray:
        return self.embedding if self.shared else self.embedding[rows]

    def _means(self, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the sums of embeddings with given weights, shape ``(contexts, k)``."""
        return x @ self.embedding[0] if self.shared else (x[:, None, :] @ self.embedding[rows])[:, 0]

    def _tilt(self, mean: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the scores of all responses against a mean embedding."""
        against = (self.skew[rows] @ mean[..., None])[..., 0]
        return against @ self.embedding[0].T if self.shared else (self.embedding[rows] @ against[..., None])[..., 0]

    def payoff(self, z: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return 0.5 + self._tilt(self._means(np.exp(z), rows), rows)

    def system(self, z: np.ndarray, u: np.ndarray, beta: np.ndarray, rows: np.ndarray) -> System:
        q, price = np.exp(z), beta[:, None]
        mean = self._means(q, rows)
        spread = self._rows(rows) - mean[:, None, :]
        covariance = spread.swapaxes(-1, -2) @ (q[..., None] * spread)
        turn = covariance @ self.skew[rows] / beta[:, None, None]
        one = np.eye(turn.shape[-1])

        def solve(t: np.ndarray, transposed: bool = False) -> np.ndarray:
            t = t - q * np.sum(t, axis=-1, keepdims=True) if transposed else centred(q, t)
            w = self._means(t if transposed else q * t, rows)
            w = np.linalg.solve(one + turn if transposed else one - turn, w[..., None])[..., 0]
            change = centred(q, self._tilt(w, rows)) / price
            return t - q * change if transposed else t + change

        return solve

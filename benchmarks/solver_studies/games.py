"""The games that solvers are measured on, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

import numpy as np

import windgames as wg
from windgames.testing import MATRICES, random_matrix

RANK = 8
"""Dimensions of the low-rank preferences' embeddings."""


@dataclass(frozen=True)
class Instance:
    """A game by name: everyone who makes it gets the same numbers."""

    kind: str
    m: int
    beta: float
    contexts: int = 0
    """Zero for a game without an axis of contexts."""
    seed: int = 0

    def make(self) -> wg.Game:
        """Return the game, or raise what `windgames` has against it."""
        if self.kind in HARD | LARGE:
            return (HARD | LARGE)[self.kind](self.m, self.beta)
        rng = np.random.default_rng([crc32(self.kind.encode()), self.m, self.contexts, self.seed])
        batch = (self.contexts,) if self.contexts else ()
        preference = KINDS.get(self.kind, _random(self.kind))(self.m, batch, rng)
        if self.kind == "lopsided reference":
            ref = np.exp(-60 * rng.random((*batch, self.m)))  # down to 1e-26
        else:
            ref = np.maximum(rng.dirichlet(np.ones(self.m), batch or None), 1e-300)
        return wg.WinRateGame(preference, ref / ref.sum(axis=-1, keepdims=True), self.beta)


Make = Callable[[int, tuple[int, ...], np.random.Generator], wg.Preference]


def _reward(m: int, batch: tuple[int, ...], rng: np.random.Generator) -> wg.Preference:
    return wg.RewardPreference(rng.normal(size=(*batch, m)))


def _bradley_terry(m: int, batch: tuple[int, ...], rng: np.random.Generator) -> wg.Preference:
    return wg.BradleyTerryPreference(2 * rng.normal(size=(*batch, m)))


def _intransitive(m: int, batch: tuple[int, ...], rng: np.random.Generator) -> wg.Preference:
    x = rng.normal(size=(*batch, m, m))
    return _constant_sum(1 / (1 + np.exp(np.swapaxes(x, -1, -2) - x)))


def _low_rank(m: int, batch: tuple[int, ...], rng: np.random.Generator) -> wg.Preference:
    x = rng.normal(size=(*batch, m, RANK))
    return wg.LowRankPreference(x / np.sqrt(2 * np.max(np.sum(x**2, axis=-1), axis=-1))[..., None, None])


def _tournament(m: int, batch: tuple[int, ...], rng: np.random.Generator) -> wg.Preference:
    return _constant_sum(rng.integers(0, 2, (*batch, m, m)).astype(float))


def _constant_sum(matrix: np.ndarray) -> wg.MatrixPreference:
    """Keep what is above the diagonal."""
    upper = np.triu(matrix, 1)
    lower = np.tril(1 - np.swapaxes(upper, -1, -2), -1)
    return wg.MatrixPreference(upper + lower + 0.5 * np.eye(matrix.shape[-1]))


KINDS: dict[str, Make] = {
    "reward": _reward,
    "Bradley-Terry": _bradley_terry,
    "intransitive": _intransitive,
    "low rank": _low_rank,
    "tournament": _tournament,
    "lopsided reference": _intransitive,
}
RANDOM = [f"random {kind}" for kind in MATRICES]


def _random(kind: str) -> Make:
    return lambda m, batch, rng: wg.MatrixPreference(random_matrix(kind.removeprefix("random "), m, rng))


# -- hard cases ----------------------------------------------------------------------------------------------

HardGame = Callable[[int, float], wg.Game]


def _game(preference: Callable[[int], wg.Preference]) -> HardGame:
    return lambda m, beta: wg.WinRateGame(preference(m), _reference(m), beta)


def _reference(m: int, smallest: float = 1e-3) -> np.ndarray:
    ref = np.geomspace(1, smallest, m)
    return ref / ref.sum()


def _all_ties(m: int) -> wg.Preference:
    return wg.MatrixPreference(np.full((m, m), 0.5))


def _duplicates(m: int) -> wg.Preference:
    """Rock, paper and scissors, each many times."""
    return wg.MatrixPreference(_cycle(3)[np.ix_(np.arange(m) % 3, np.arange(m) % 3)])


def _cycle(m: int) -> np.ndarray:
    """Each response beats the next half of the circle: zeros and ones, of odd size all in play."""
    return random_matrix("cycle", m, np.random.default_rng(0))


def _tiny_reference(m: int, beta: float) -> wg.Game:
    return wg.WinRateGame(Instance("intransitive", m, beta).make().preference, _reference(m, 1e-300), beta)


def _like(kind: str) -> HardGame:
    return lambda m, beta: Instance(kind, m, beta).make()


def _log_game(preference: Callable[[int], wg.Preference]) -> HardGame:
    return lambda m, beta: wg.LogWinRateGame(preference(m), _reference(m), beta)


HARD: dict[str, HardGame] = {
    "hard: reward": _like("reward"),
    "hard: intransitive": _like("intransitive"),
    "hard: tournament": _like("tournament"),
    "hard: reference to 1e-300": _tiny_reference,
    "hard: all ties": _game(_all_ties),
    "hard: duplicates": _game(_duplicates),
    "hard: five rewards": _game(lambda m: wg.RewardPreference(np.arange(m) % 5)),
    "hard: log game, cycle of 0 and 1": _log_game(lambda m: wg.MatrixPreference(_cycle(m))),
    "hard: log game, tournament": _log_game(lambda m: Instance("tournament", m, 1.0).make().preference),
    "hard: log game, weak ties": _log_game(lambda m: wg.RewardPreference(np.arange(m) % 5, ties="weak")),
    "hard: log game, zero row": _log_game(lambda m: wg.MatrixPreference(np.triu(np.ones((m, m)), 1))),
    "hard: log game, not constant-sum": _log_game(lambda m: wg.MatrixPreference(np.tril(np.ones((m, m))) / 2 + 0.25)),
    "hard: not constant-sum": _game(lambda m: wg.MatrixPreference(np.full((m, m), 0.4))),
    "hard: reference with a zero": lambda m, beta: wg.WinRateGame(_all_ties(m), np.eye(m)[0], beta),
}


def _weak_ties(m: int, beta: float) -> wg.Game:
    game = Instance("reward", m, beta).make()
    assert isinstance(game.preference, wg.RewardPreference)
    return wg.LogWinRateGame(wg.RewardPreference(game.preference.reward, ties="weak"), game.ref, beta)


LARGE: dict[str, HardGame] = {"log game, weak ties": _weak_ties}
"""Beside `KINDS`, for the study of large games."""

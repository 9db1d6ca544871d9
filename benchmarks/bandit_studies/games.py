"""Environments, mixing weights, games and distances that several exact studies share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from environments import PREFERENCES, Bandit, digits, preference, rock_paper_scissors, synthetic

import windgames as wg

ROUNDING = 1e-9
"""Relative slack in comparisons with a bound: what float64 leaves of a ratio of two small distances."""


ENVIRONMENTS: dict[str, Callable[[], Bandit]] = {
    "synthetic, ties": partial(synthetic, 8, 20, ties=True),
    "synthetic, distinct": partial(synthetic, 8, 20, ties=False),
    "synthetic, wide": partial(synthetic, 4, 200, ties=False),
    "two responses": partial(synthetic, 8, 2, ties=False),
    "digits": digits,
}


def total_variation(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    return np.sum(np.abs(np.exp(log_p) - np.exp(log_q)), axis=-1) / 2


def total_variation_off_top(log_p: np.ndarray, log_q: np.ndarray, reward: np.ndarray) -> np.ndarray:
    """Return the total variation of two policies that are proportional to each other on the best responses.

    Their differences there have one sign and the sum of those elsewhere, so the others give it: accurate
    far below the rounding of masses near one.
    """
    below = reward < reward.max(axis=-1, keepdims=True)
    d = np.where(below, np.exp(log_p) - np.exp(log_q), 0.0)
    return (np.sum(np.abs(d), axis=-1) + np.abs(np.sum(d, axis=-1))) / 2


MIXES = [
    (1.5, 0.5, 0.1),
    (2, 0.3, 0),
    (2, 0.2, 0.4),
    (2.5, 0.25, 0.2),
    (4, 0.2, 0),
    (4, 0.1, 0.4),
    (8, 0.1, 0),
]
MIXES += [(8, 0.05, 0.5)]
"""``(n, alpha1, alpha2)``, all with ``n alpha1 + alpha2 < 1``."""


def rate_game(name: str) -> tuple[wg.Preference, np.ndarray]:
    if name == "rock-paper-scissors":
        return rock_paper_scissors()
    bandit = digits(20) if name.startswith("digits") else ENVIRONMENTS["synthetic, ties"]()
    return preference(bandit, name.split(", ")[1]), bandit.ref


RATE_GAMES = ["digits, reward", *(f"synthetic, {kind}" for kind in PREFERENCES), "rock-paper-scissors"]

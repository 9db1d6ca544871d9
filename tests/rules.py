"""Every update rule with safe settings, and the games that each is examined on."""

import numpy as np

import windgames as wg
from windgames.testing import random_matrix, random_reference


def _win_rate_games():
    rng = np.random.default_rng(7)
    for kind, m, beta in [
        ("logistic", 5, 0.3),
        ("tournament", 6, 0.1),
        ("cycle", 3, 1.0),
        ("ties", 4, 0.2),
        ("duplicates", 6, 0.05),
        ("reward", 1, 0.1),
    ]:
        yield wg.WinRateGame(wg.MatrixPreference(random_matrix(kind, m, rng)), random_reference(m, rng), beta)
    yield wg.WinRateGame(wg.RewardPreference([2.0, 1, 1, 0, 3]), random_reference(5, rng), 0.1)


def _log_games(n, alpha1, alpha2):
    rng = np.random.default_rng(8)
    weak = wg.RewardPreference([2.0, 1, 1, 0, 3], ties="weak")
    yield wg.LogWinRateGame.from_best_of_n(weak, random_reference(5, rng), n, alpha1, alpha2)
    yield wg.BestOfNGame.from_best_of_n(weak, random_reference(5, rng), n, alpha1, alpha2)
    matrix = wg.MatrixPreference(rng.uniform(0.1, 1, (4, 4)))
    yield wg.LogWinRateGame.from_best_of_n(matrix, random_reference(4, rng), n, alpha1, alpha2)


WIN_RATE = list(_win_rate_games())
UNREGULARISED = [game.replace(beta=0.0) for game in WIN_RATE]
EXAMPLES = [
    (wg.wind(), WIN_RATE),
    (wg.wind(0.05), WIN_RATE),
    (wg.wind(), list(_log_games(4, 0.15, 0.1))),
    (wg.extragradient(), WIN_RATE),
    (wg.extragradient(0.1), WIN_RATE),
    (wg.iterative_bon(4, 0.15, 0.1), list(_log_games(4, 0.15, 0.1))),
    (wg.iterative_bon(2, 0.3), list(_log_games(2, 0.3, 0.0))),
    (wg.inpo(0.1), WIN_RATE),
    (wg.omwu(0.1), WIN_RATE),
    (wg.optimistic(), WIN_RATE),
    (wg.optimistic(0.1), WIN_RATE),
    (wg.nash_md(0.1), WIN_RATE),
    (wg.sppo(0.1), WIN_RATE),
    (wg.moving_reference(wg.wind(), 1), WIN_RATE),
    (wg.moving_reference(wg.extragradient(), 3, beta=0.2), UNREGULARISED),
    (wg.moving_reference(wg.optimistic(0.1), 2, beta=0.2), UNREGULARISED),
]
IDS = [f"{rule.name}-{i}" for i, (rule, _) in enumerate(EXAMPLES)]

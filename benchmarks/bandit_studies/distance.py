"""The equilibria of the log-win-rate and the win-rate game as beta goes to 0."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from study import Rows, Scale, Study, show

import windgames as wg
from bandit_studies.games import ENVIRONMENTS, ROUNDING, total_variation
from windgames import bounds


def total_variation_off_top(log_p: np.ndarray, log_q: np.ndarray, reward: np.ndarray) -> np.ndarray:
    """Return the total variation of two policies that are proportional to each other on the best responses.

    Their differences there have one sign and the sum of those elsewhere, so the others give it: accurate
    far below the rounding of masses near one.
    """
    below = reward < reward.max(axis=-1, keepdims=True)
    d = np.where(below, np.exp(log_p) - np.exp(log_q), 0.0)
    return (np.sum(np.abs(d), axis=-1) + np.abs(np.sum(d, axis=-1))) / 2


def configs(scale: Scale) -> list[dict[str, Any]]:
    smoke = scale.smoke
    names = ["synthetic, ties", "digits"] if smoke else list(ENVIRONMENTS)
    return [{"environment": name, "points": 7 if smoke else 29} for name in names]


def cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    """Return the total variation between the two equilibria and its bound, over a range of beta."""
    bandit = ENVIRONMENTS[config["environment"]]()
    weak, half = (wg.RewardPreference(bandit.reward, ties=ties) for ties in ("weak", "half"))
    rows = []
    for beta in np.geomspace(2.0, 0.002, config["points"]):
        log_win_rate = wg.equilibrium(wg.LogWinRateGame(weak, bandit.ref, beta))
        win_rate = wg.equilibrium(wg.WinRateGame(half, bandit.ref, beta))
        distance = total_variation_off_top(log_win_rate.log_policy, win_rate.log_policy, bandit.reward)
        plain = total_variation(log_win_rate.log_policy, win_rate.log_policy)
        bound = bounds.equilibria_distance_bound(beta, bandit.top_mass)
        index = bounds.collapse_index(min(beta, 1.0), bandit.top_mass)
        rows.append(
            {
                "environment": bandit.name,
                "beta": float(beta),
                "contexts": len(bandit.ref),
                "proven_to_collapse": float(np.mean((index < 1) & (beta < 1))),
                "distance_median": float(np.median(distance)),
                "distance": float(distance.max()),
                "bound_median": float(np.median(bound)),
                "bound": float(np.max(bound)),
                "violations": int(np.sum(distance > bound * (1 + ROUNDING) + 1e-300)),
                "plain_error": float(np.abs(plain - distance).max()),
                "residual": float(max(log_win_rate.residual.max(), win_rate.residual.max())),
            }
        )
    return rows


def report(table: pd.DataFrame) -> None:
    betas = np.sort(table.beta.unique())[:: max(1, table.beta.nunique() // 4)]
    shown = table[table.beta.isin(betas)]
    small = table[table.beta == table.beta.min()]
    show(
        "Log-win-rate (weak ties) against win-rate (half ties) equilibrium: total variation, worst context",
        shown[
            [
                "environment",
                "beta",
                "proven_to_collapse",
                "distance_median",
                "distance",
                "bound_median",
                "bound",
            ]
        ],
        f"{table.violations.sum()} violations of the bound in {table.contexts.sum()} pairs of equilibria; "
        f"at beta = {small.beta.iloc[0]:.3g} the worst distance is {small.distance.max():.2g}, the median "
        f"at most {small.distance_median.max():.2g}.",
    )


STUDY = Study(
    configs, cell, report, "How far apart are the two games' equilibria as beta goes to 0?", minutes=(0.3, 0.3)
)

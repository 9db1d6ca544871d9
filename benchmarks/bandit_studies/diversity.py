"""Entropy, effective support and the mass of the best response, along the way."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import numpy as np
import pandas as pd
from study import Rows, Scale, Study, show

import windgames as wg
from bandit_studies.learners import (
    GENTLE,
    learn,
    world,
)
from windgames._array import expectation

DIVERSE = [
    ("WIND, all responses", 0.05),
    ("WIND, all responses", 0.1),
    ("WIND, all responses", 0.3),
    ("WIND, all responses", 1.0),
    ("SPPO", 0.1),
    ("J-BOND", 0.1),
    ("best-of-n distillation", 0.1),
    ("REINFORCE, self-play", 0.1),
]
FACTORS = (0.8, 0.95, 1.05, 1.2)
"""n alpha1 + alpha2 of exact iterative best-of-4, on both sides of the threshold."""


def configs(scale: Scale) -> list[dict[str, Any]]:
    total = scale.pick(6000, 100_000, 400_000)
    cells: list[dict[str, Any]] = [
        {"learner": name, "beta": beta, "queries": total, "seeds": scale.seeds} for name, beta in DIVERSE
    ]
    return cells + [
        {"learner": "iterative best-of-n", "factor": f, "rounds": scale.pick(30, 300, 1000)} for f in FACTORS
    ]


def cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    if "factor" in config:
        return _exact_diversity(config)
    found = learn(
        config["learner"],
        GENTLE[config["learner"]],
        "reward",
        rng,
        beta=config["beta"],
        queries=config["queries"],
        replicates=config["seeds"],
        records=30,
    )
    assert found is not None
    return [
        {
            "learner": config["learner"],
            "beta": config["beta"],
            "round": int(found.steps[i]),
            "queries": float(found.queries[i]),
            "entropy": float(np.median(found.mean("entropy")[i])),
            "effective_support": float(np.median(np.exp(found.trace["entropy"][i]).mean(axis=-1))),
            "top_mass": float(np.median(found.mean("top_mass")[i])),
        }
        for i in range(len(found.steps))
    ]


def _exact_diversity(config: dict[str, Any]) -> Rows:
    """Iterative best-of-4 in its exact form, no samples: where it collapses is the operator's doing."""
    here, n = world("reward"), 4
    mix = (n, config["factor"] / n, 0.0)
    assert here.weak is not None
    top = here.weak.top
    game = wg.LogWinRateGame.from_best_of_n(here.weak, here.game.ref, *mix)
    marks = set(np.unique(np.geomspace(1, config["rounds"] + 1, 30).round().astype(int) - 1))
    rows: Rows = []

    def note(step: int, log_policy: np.ndarray) -> None:
        if step not in marks:
            return
        entropy = -expectation(log_policy, np.where(log_policy > -inf, log_policy, 0.0))
        rows.append(
            {
                "learner": f"iterative best-of-n, {config['factor']:g}",
                "beta": float(game.beta),
                "round": step,
                "queries": nan,
                "entropy": float(entropy.mean()),
                "effective_support": float(np.exp(entropy).mean()),
                "top_mass": float(np.sum(np.exp(log_policy) * top, axis=-1).mean()),
            }
        )

    note(0, game.log_ref)
    wg.solve(game, wg.iterative_bon(*mix), tol=0, max_steps=config["rounds"], callback=note)
    return rows


def report(table: pd.DataFrame) -> None:
    last = table.groupby(["learner", "beta"], sort=False).tail(1)
    start = table.effective_support.iloc[0]
    fallen = last[last.top_mass > 0.95]
    kept = last[last.learner.str.startswith("WIND")]
    show(
        "Diversity at the end (20 responses)",
        last[["learner", "beta", "entropy", "effective_support", "top_mass"]],
        f"From an effective support of {start:.1f}. Collapsed onto the best response (mass above 0.95): "
        f"{', '.join(f'{r.learner} (beta {r.beta:g})' for r in fallen.itertuples()) or 'none'}. WIND keeps "
        f"{kept.effective_support.min():.2f} to {kept.effective_support.max():.2f} as beta goes from "
        f"{kept.beta.min():g} to {kept.beta.max():g}.",
    )


STUDY = Study(configs, cell, report, "How much diversity does each learner keep?", minutes=(0.1, 0.2))

"""Distance to the equilibrium after a fixed time of learning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from study import Rows, Scale, Study, show

from bandit_studies.learners import (
    LEARNERS,
    THRESHOLDS,
    best_steps,
    interval,
    learn,
)

RANKED = 1.0
"""Seconds from which on learners are put in order: before, some lead that do not stay ahead."""


def configs(scale: Scale) -> list[dict[str, Any]]:
    names = scale.pick(["WIND", "SPPO"], list(LEARNERS), list(LEARNERS))
    return [
        {
            "world": "reward",
            "learner": name,
            "step": x,
            "seconds": scale.pick(0.02, 0.5, RANKED),
            "seeds": scale.pick(2, 3, 5),
        }
        for name in names
        for x in LEARNERS[name][1][: scale.pick(1, 3, 3)]
    ]


def cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    learn(config["learner"], config["step"], config["world"], rng, rounds=3)  # warm up
    runs = [
        learn(config["learner"], config["step"], config["world"], child, seconds=config["seconds"], replicates=1)
        for child in rng.spawn(config["seeds"])
    ]
    at = np.geomspace(config["seconds"] / 30, config["seconds"], 12)
    distance = np.stack([np.interp(at, r.seconds, r.mean("kl_from_solution")[:, 0]) for r in runs if r], axis=-1)
    key = {k: config[k] for k in ("world", "learner", "step", "seeds")}
    rows = []
    for t, values in zip(at, distance, strict=True):
        middle, low, high = interval(values)
        rows.append(key | {"part": "curve", "seconds": float(t), "kl": middle, "kl_low": low, "kl_high": high})
    per_second = float(np.median([r.queries[-1] / r.seconds[-1] for r in runs if r]))
    rounds = float(np.median([r.steps[-1] / r.seconds[-1] for r in runs if r]))
    final = float(np.median(distance[-1]))
    reach = {"part": "reach", "threshold": THRESHOLDS[-1], "final_kl": final}
    return [*rows, key | reach | {"queries_per_second": per_second, "rounds_per_second": rounds}]


def report(table: pd.DataFrame) -> None:
    rows = best_steps(table, [])
    limit = table.seconds.max()
    ranked = limit >= RANKED * (1 - 1e-9)
    rows = rows[rows.part == "reach"]
    rows = rows.sort_values("final_kl") if ranked else rows
    own = rows[rows.learner == "WIND"].final_kl.iloc[0]
    statement = (
        f"Best: {rows.learner.iloc[0]} at {rows.final_kl.iloc[0]:.2g}; WIND on its own draws {own:.2g}. "
        f"Seconds differ between machines; the order is what to compare."
        if ranked
        else f"{limit:g} seconds are too short to rank: learners that lead now need not lead after {RANKED:g} (--full)."
    )
    show(
        f"KL(pi*||pi) after {limit:g} seconds of learning, one core, no replicates (the best of the steps tried)",
        rows[["learner", "step", "final_kl", "rounds_per_second", "queries_per_second"]],
        statement,
    )


STUDY = Study(configs, cell, report, "How near does each learner come in a fixed time?", minutes=(1.3, 4), one_job=True)

"""What sets the floor of WIND: one change at a time."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from study import Rows, show, write_table

import windgames as wg
from lm_studies.settings import Config, grid
from lm_studies.task import BETA, ETA, Task, layout, run
from windlm import Regression, wind
from windlm.objectives import Objective

FLOORS: dict[str, dict[str, Any]] = {
    "standard": {},
    "constant learning rate": {"schedule": "constant"},
    "a quarter of the learning rate": {"learning_rate": 5e-4},
    "a quarter of the draws": {"draws": 16},
    "four times the draws": {"draws": 256},
    "one epoch": {"epochs": 1},
    "twice the rounds": {"rounds": 2.0},
    "eta = 4 beta": {"eta": 4 * BETA},
    "eta = beta": {"eta": BETA},
    "eta falls to beta": {"eta": "falls"},
    "the transformer fitted to the equilibrium": {"exact": True},
}


def run_floor(cell: dict[str, Any], rng: np.random.Generator) -> Rows:
    torch.set_num_threads(1)
    task = Task("reward", cell["seed"], cell["smoke"])
    changes = dict(FLOORS[cell["change"]])
    rounds = int(cell["rounds"] * changes.pop("rounds", 1))
    if changes.pop("exact", False):
        start = task.measure(task.policy)["kl_from_solution"]
        steps, begun = 4 * rounds, time.perf_counter()
        task.enumeration.fit(task.prompts, task.solution.log_policy, steps=steps, learning_rate=2e-3)
        left = task.measure(task.policy)
        row = {"tokens": 0, "seconds": time.perf_counter() - begun, "fraction": left["kl_from_solution"] / start}
        return [{"change": cell["change"], "seed": cell["seed"]} | row | left]
    eta = changes.pop("eta", ETA["reward"])
    if eta == "falls":
        objective: Objective = Regression(lambda progress: wg.wind(ETA["reward"] * 16**-progress), BETA)
    else:
        objective = wind(BETA, eta)
    settings = layout("WIND", rounds) | changes | {"seed": cell["seed"]}
    rows = run(task, objective, 1, settings)
    fraction = rows[-1]["kl_from_solution"] / rows[0]["kl_from_solution"]
    return [{"change": cell["change"], "seed": cell["seed"]} | rows[-1] | {"fraction": fraction}]


def floor(config: Config, started: float) -> None:
    changes = list(FLOORS) if config.full else list(FLOORS)[:4]
    cells = [
        {"change": change, "seed": config.seed, "rounds": config.rounds, "smoke": config.smoke} for change in changes
    ]
    table = grid("lm_floor", cells, run_floor, config).drop(columns="round", errors="ignore")
    write_table(table, "lm_floor", config.folder, asdict(config), started)
    columns = ["change", "fraction", "kl_from_solution", "kl_to_solution", "gap", "tokens", "seconds"]
    worst = table.loc[table.fraction.idxmax()]
    show(
        "What sets WIND's floor (reward judge): one change at a time",
        table[columns],
        f"The standard run ends at {table.fraction.iloc[0]:.1%}; the worst is {worst.change}, {worst.fraction:.1%}.",
    )

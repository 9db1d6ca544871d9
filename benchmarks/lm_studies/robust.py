"""Wrong judges, three sizes of the transformer, price and step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from study import Rows, show, write_table

import windgames as wg
from lm_studies.methods import COMPARED
from lm_studies.settings import Config, grid
from lm_studies.task import BETA, INTERACTION, Task, layout, run, solved
from windgames._array import kl
from windlm import JBond, sppo, wind
from windlm.objectives import Objective

STANDARD = {"flips": 0.0, "bias": 0.0, "width": 64, "layers": 2, "beta": BETA, "step": 1.0}
WRONG: list[dict[str, float]] = [{"flips": 0.25}, {"bias": 0.1}]
MORE_WRONG: list[dict[str, float]] = [{"flips": 0.1}, {"flips": 0.4}, {"bias": 0.3}]
SIZES: list[dict[str, float]] = [{"width": 24, "layers": 1}, {"width": 128, "layers": 3}]
STEPS: list[dict[str, float]] = [
    {"beta": beta, "step": step} for beta in (0.05, BETA, 0.8) for step in (1 / 16, 1 / 4, 1.0, 4.0)
]
"""`step` is eta in units of the largest that theory 5.2 allows."""


def run_robust(cell: dict[str, Any], rng: np.random.Generator) -> Rows:
    torch.set_num_threads(1)
    step, beta = cell["step"], cell["beta"]
    judge = {k: cell[k] for k in ("flips", "bias", "width", "layers", "beta")}
    task = Task("reward", cell["seed"], cell["smoke"], **judge)
    largest = 4 * beta / INTERACTION["reward"] ** 2
    objective: dict[str, Callable[[], Objective]] = {
        "WIND": lambda: wind(beta, step * largest),
        "SPPO": lambda: sppo(step * largest),
        "J-BOND": JBond,
    }
    settings = layout(cell["method"], cell["rounds"]) | {"seed": cell["seed"]}
    rows = run(task, objective[cell["method"]](), 8, settings)
    keys = {k: cell[k] for k in ("method", "seed", *STANDARD)}
    keys["parameters"] = sum(p.numel() for p in task.policy.parameters())
    start = rows[0]["kl_from_solution"]
    where = aims(task, cell["flips"], start)
    return [keys | row | {"fraction": row["kl_from_solution"] / start} | where for row in rows]


def aims(task: Task, flips: float, start: float) -> dict[str, float]:
    """Return where judges of this kind have their equilibria, as fractions of the initial divergence.

    `aim` is this judge's own; `aim_on_average` is that of one who is wrong anew each time (theory 7.10).
    """
    average = task.aim
    if flips:
        average = solved(wg.WinRateGame(task.whole, task.game.ref, task.game.beta / (1 - 2 * flips)))
    both = {"aim": task.aim, "aim_on_average": average}
    star = task.solution.log_policy
    return {name: float(kl(star, solution.log_policy).mean()) / start for name, solution in both.items()}


def robust(config: Config, started: float) -> None:
    """Judges who are wrong, three sizes of the transformer, price and step; diversity along the way."""
    grid_of: list[tuple[str, dict[str, float]]]
    if config.full:
        grid_of = [(m, c) for c in ({}, *WRONG, *SIZES) for m in COMPARED]
        grid_of += [("WIND", c) for c in (*MORE_WRONG, *STEPS) if STANDARD | c != STANDARD]
    else:
        grid_of = [(m, c) for c in ({}, WRONG[0], SIZES[0]) for m in COMPARED[:2]] + [("WIND", STEPS[2])]
    common = {"seed": config.seed, "rounds": config.rounds // (2 if config.full else 1), "smoke": config.smoke}
    table = grid("lm_robust", [STANDARD | c | {"method": m} | common for m, c in grid_of], run_robust, config)
    write_table(table, "lm_robust", config.folder, asdict(config), started)
    keys = ["method", *STANDARD, "parameters"]
    last = table.groupby(keys, sort=False).tail(1)
    wrong = last[(last.method == "WIND") & (last.flips + last.bias > 0)]
    said = " ".join(
        f"With {f'{r.flips:.0%} of pairs' if r.flips else f'{r.bias:.0%} of responses'} misjudged WIND ends at "
        f"{r.fraction:.1%} of the initial divergence; that judge's own equilibrium is at {r.aim:.1%}."
        for r in wrong.itertuples()
    )
    columns = ["fraction", "aim", "aim_on_average", "gap", "kl_to_ref", "win_rate", "entropy"]
    show("Wrong judges, sizes, price and step (reward judge)", last[keys + columns], said)

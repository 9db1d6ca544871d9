"""Twenty values of beta in one call, against each alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from study import Rows, Scale, Study, show
from threadpoolctl import threadpool_limits

import windgames as wg
from solver_studies.games import KINDS, Instance
from solver_studies.measure import (
    shortest,
)


def configs(scale: Scale) -> list[dict[str, Any]]:
    sizes = scale.pick([4], [10, 100], [10, 100, 300])
    kinds, seeds = ["intransitive"] if scale.smoke else list(KINDS), scale.pick([0], [0], [0, 1])
    return [{"kind": kind, "m": m, "seed": seed} for kind in kinds for m in sizes for seed in seeds]


def measured(config: dict[str, Any], _rng: np.random.Generator) -> Rows:
    game, grid = Instance(config["kind"], config["m"], 1.0, seed=config["seed"]).make(), np.geomspace(10, 1e-3, 20)
    with threadpool_limits(1):
        together, found = shortest(lambda: wg.equilibrium_path(game, grid), 2)
        each: list[tuple[float, Any]] = [shortest(lambda: wg.equilibrium(game.replace(beta=b)), 2) for b in grid]  # noqa: B023
    systems = [int(solution.steps) for _, solution in each]
    row: dict[str, Any] = {
        "systems": int(np.sum(found.steps)),
        "systems_each": sum(systems),
        "systems_hardest": max(systems),
    }
    row |= {
        "seconds": together,
        "seconds_each": sum(took for took, _ in each),
        "residual": float(np.max(found.residual)),
    }
    return [config | row]


def report(table: pd.DataFrame) -> None:
    few = table[table.kind != "reward"]  # whose systems cost no more than a payoff: they are not saved
    hardest, each = few.systems / few.systems_hardest, few.systems / few.systems_each
    show(
        "Twenty values of beta from 10 to 0.001, one call against each alone",
        table,
        f"Systems of the call, but for rewards: {hardest.median():.2g} times those of the hardest beta alone, at "
        f"most {hardest.max():.2g}; {each.median():.2g} of those of all alone, at most {each.max():.2g}. Seconds: "
        f"{(table.seconds / table.seconds_each).median():.2g} of all alone.",
    )


STUDY = Study(
    configs,
    measured,
    report,
    "What do twenty values of beta cost, in one call and alone?",
    minutes=(0.1, 0.2),
    one_job=True,
)

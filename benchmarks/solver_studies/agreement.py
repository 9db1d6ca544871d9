"""Random games of every kind: distance to the equilibrium in sixty digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from study import Scale, Study, show

from solver_studies.games import RANDOM
from solver_studies.measure import (
    EXACT,
    cell,
    compare,
)


def configs(scale: Scale) -> list[dict[str, Any]]:
    most, lowest, budget = scale.pick((6, -0.5, 30.0), (EXACT, -2, 2.0), (EXACT, -2, 2.0))
    rng = np.random.default_rng(4)
    configs = []
    for i in range(scale.pick(1, 2, 4) * len(RANDOM)):
        m, beta = int(rng.integers(2, most)), float(10 ** rng.uniform(lowest, 1))
        configs.append(cell(RANDOM[i % len(RANDOM)], beta, "one", [(m, 0)], seed=i, budget=budget))
    return configs


def report(table: pd.DataFrame) -> None:
    solved = table[table.total_variation.notna()]
    shown = solved.groupby("solver", sort=False).agg(
        games=("seed", "size"),
        median=("total_variation", "median"),
        largest=("total_variation", "max"),
        residual=("residual", "max"),
    )
    shown["no_answer"] = table[table.status != "answered"].groupby("solver").size()
    ours = solved[solved.solver == "windgames"]
    sound = solved.total_variation <= solved.total_variation_proven + 1e-15
    show(
        "Total variation to the equilibrium in sixty digits, random games of every kind",
        shown.fillna({"no_answer": 0}).reset_index(),
        f"{len(ours)} games: windgames is at most {ours.total_variation.max():.1e} away. The certificate's bound holds "
        f"for {int(sound.sum())} of {len(sound)} answers, whoever gave them.",
    )


STUDY = Study(configs, compare, report, "Are answers right, measured in sixty digits?", minutes=(0.5, 2), one_job=True)

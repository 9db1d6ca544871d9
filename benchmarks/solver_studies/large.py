"""A million responses, against one sort of the same size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from study import Rows, Scale, Study, show

from solver_studies.measure import (
    cell,
    compare,
    shortest,
    worker,
)


def configs(scale: Scale) -> list[dict[str, Any]]:
    m = scale.pick(10**4, 10**6, 10**6)
    priced = scale.pick((0.1,), (10, 1, 0.1, 0.01, 0.001), (10, 1, 0.1, 0.01, 0.001))
    games = [("reward", beta) for beta in priced]
    games += [("log game, weak ties", beta) for beta in scale.pick((2,), (10, 2, 1.1), (10, 2, 1.1))]
    return [cell(kind, beta, "one", [(m, 0)], only=["windgames"], budget=120.0) for kind, beta in games]


def measured(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    """Our time, and that of one sort of as many numbers, shortest of three."""
    worker(config["threads"]).stop()  # its memory is to be this game's
    rows, numbers = compare(config, rng), rng.normal(size=config["sizes"][0][0])
    sort, _ = shortest(lambda: np.argsort(numbers))
    return [row | {"argsort_s": sort, "over_15_sorts_plus_1s": row["seconds"] / (15 * sort + 1)} for row in rows]


def report(table: pd.DataFrame) -> None:
    game = table[table.kind == "reward"]
    shown = table[["kind", "m", "beta", "residual", "seconds", "argsort_s", "over_15_sorts_plus_1s", "memory_GB"]]
    show(
        "A reward over many responses, against one sort of the same size",
        shown,
        f"win-rate game: at most {game.over_15_sorts_plus_1s.max():.2f} of the time of 15 sorts and a second, residual "
        f"at most {game.residual.max():.1e}, peak memory {table.memory_GB.max():.2f} GB.",
    )


STUDY = Study(
    configs, measured, report, "What does a million responses cost, against one sort?", minutes=(0.5, 0.5), one_job=True
)

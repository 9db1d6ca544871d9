"""Many contexts at once."""

from __future__ import annotations

from typing import Any

import pandas as pd
from study import Scale, Study, show

from solver_studies.measure import (
    GAME,
    best_peers,
    cell,
    compare,
    lost,
)
from solver_studies.peers import OURS


def configs(scale: Scale) -> list[dict[str, Any]]:
    m, counts = scale.pick(5, 50, 50), scale.pick([1, 5], [1, 10, 100, 1000], [1, 10, 100, 1000, 10_000])
    budget = scale.pick(30.0, 5.0, 4.0)
    return [
        cell(
            kind,
            beta,
            threads,
            [(m, count) for count in counts],
            budget=budget,
            only=list(OURS) if scale.smoke and threads == "default" else [],
        )
        for threads in ("one", "default")
        for kind in ("reward", "intransitive")
        for beta in scale.pick([0.5], [0.1], [0.1, 0.0])
    ]


def report(table: pd.DataFrame) -> None:
    told = best_peers(table, "tight")
    ours = table[table.solver.isin(OURS)].pivot_table(index=GAME, columns="solver", values="seconds", sort=False)
    loop = (ours["windgames, one by one"] / ours["windgames"]).rename("loop_ratio").reset_index()
    shown = told.merge(loop, on=GAME, how="left").drop(columns=["seed", "ours_s", "peer_s"])
    most = loop.loc[loop.loop_ratio.idxmax()]
    show(
        "Many contexts: the best peer's time over ours, and that of our own loop over contexts",
        shown,
        f"One call is up to {most.loop_ratio:.2g} times faster than a loop ({most.kind}, {most.contexts} contexts). "
        + lost(told),
    )


STUDY = Study(configs, compare, report, "What do many contexts in one call cost?", minutes=(3, 13), one_job=True)

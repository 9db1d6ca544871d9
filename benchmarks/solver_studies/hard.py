"""Hard cases: certified, or refused with a reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from study import Scale, Study, show

from solver_studies.games import HARD
from solver_studies.measure import (
    DIRECT,
    TIGHT,
    cell,
    certified,
    compare,
)
from solver_studies.peers import OURS


def configs(scale: Scale) -> list[dict[str, Any]]:
    m, many = scale.pick((5, 30), (100, 1000), (300, 2000))
    cases = [(kind, 1e-4, m) for kind in ("hard: reward", "hard: intransitive", "hard: tournament")]
    cases += [("hard: reference to 1e-300", beta, m) for beta in (1.0, 0.1, 0.01, 1e-3, 0.0)]
    cases += [("hard: all ties", beta, n) for n in (1, m) for beta in (0.1, 1e-4, 0.0)]
    cases += [("hard: duplicates", beta, many) for beta in (0.1, 1e-4, 0.0)]
    cases += [("hard: five rewards", beta, 100 * many) for beta in (0.1, 1e-4, 0.0)]
    odd = m + 1 - m % 2
    cases += [("hard: log game, cycle of 0 and 1", beta, odd) for beta in (2.0, 1.1, 0.5, 0.0)]
    cases += [("hard: log game, tournament", beta, m) for beta in (2.0, 1.1, 0.5)]
    cases += [("hard: log game, weak ties", beta, m) for beta in (2.0, 1.1, 0.5)]
    refused = ("log game, zero row", "not constant-sum", "reference with a zero")
    cases += [(f"hard: {what}", 0.1, 3) for what in refused] + [("hard: log game, not constant-sum", 0.0, 3)]
    assert {kind for kind, _, _ in cases} == set(HARD)
    only = ["windgames", "ECOS, tight"] if scale.smoke else DIRECT
    budget = scale.pick(30.0, 10.0, 5.0)
    return [cell(kind, beta, "one", [(n, 0)], budget=budget, only=only) for kind, beta, n in cases]


def report(table: pd.DataFrame) -> None:
    ours = table[table.solver == "windgames"].copy()
    ours["verdict"] = np.select(
        [ours.status != "answered", certified(ours), ours.residual <= 1e-10],
        [ours.status, "certified", "solved, not proven unique"],
        "not solved",
    )
    words = ours.reason.fillna("").astype(str).str[:60]
    shown = ours[["kind", "m", "beta", "verdict", "residual", "gap"]].assign(reason=words)
    others = table[~table.solver.isin(OURS)].groupby("solver", sort=False)
    tight = {solver: f"{int((rows.accuracy == 'tight').sum())} of {len(rows)}" for solver, rows in others}
    counts = ", ".join(f"{n} {verdict}" for verdict, n in ours.verdict.value_counts().items())
    show(
        "Hard cases",
        shown,
        f"windgames: {counts}. Log-probabilities to {TIGHT:.0e} by others: {tight}.",
    )


STUDY = Study(
    configs, compare, report, "Are hard cases certified, or refused with a reason?", minutes=(2, 5), one_job=True
)

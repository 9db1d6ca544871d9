"""Time and accuracy against the number of responses, kind by kind, beta from 10 to 0."""

from __future__ import annotations

from typing import Any

import pandas as pd
from study import Scale, Study, show

from solver_studies.games import KINDS
from solver_studies.measure import (
    LEVELS,
    TIMES,
    best_peers,
    cell,
    certified,
    compare,
    lost,
)


def configs(scale: Scale) -> list[dict[str, Any]]:
    dense = scale.pick([3, 10], [10, 100, 300], [10, 30, 100, 300, 1000])
    ordered = scale.pick([3, 100], [10, 100, 300, 10**4, 10**6], [10, 30, 100, 300, 1000, 10**4, 10**5, 10**6])
    embedded = dense + scale.pick([], [10**4], [10**4, 10**5])
    budget = scale.pick(30.0, 5.0, 4.0)
    betas = {
        "one": scale.pick([0.5, 0.0], [1.0, 0.01, 0.0], [10.0, 1.0, 0.1, 0.01, 0.001, 0.0]),
        "default": scale.pick([0.5], [0.01], [0.01, 0.0]),
    }
    kinds = scale.pick(["reward", "intransitive"], list(KINDS), list(KINDS))
    return [
        cell(
            kind,
            beta,
            threads,
            [(m, 0) for m in (ordered if kind == "reward" else embedded if kind == "low rank" and beta else dense)],
            budget=budget,
            only=["windgames"] if scale.smoke and threads == "default" else [],
        )
        for threads, several in betas.items()
        for beta in several
        for kind in (kinds if threads == "one" else ["reward", "intransitive"])
    ]


def report(table: pd.DataFrame) -> None:
    ours = table[table.solver == "windgames"]
    sure = certified(ours)
    statement = (
        f"{int(sure.sum())} of {len(ours)} games certified by windgames, residual at most {ours.residual.max():.1e}. "
    )
    told = {level: best_peers(table, level) for level in LEVELS}
    for level, words in LEVELS.items():
        show(f"The fastest peer at equal accuracy, {words}: its time over ours", pivot(told[level]), lost(told[level]))
    inside = best_peers(table.assign(seconds=table.seconds_inside.fillna(table.seconds)), "tight")
    print(f"=> Of cvxpy only the seconds inside the solvers, {LEVELS['tight']}: {lost(inside)}")
    late = table[table.status != "answered"].groupby(["solver", "status"], sort=False).size().reset_index(name="games")
    show("Who gave no answer", late, statement + f"Over time means more than {TIMES} times ours.")
    print("\n" + markdown(told["tight"]))


def pivot(told: pd.DataFrame) -> pd.DataFrame:
    return (
        told.pivot_table(index=["threads", "kind", "beta"], columns="m", values="ratio", sort=False)
        .sort_index(axis=1)
        .reset_index()
    )


def markdown(told: pd.DataFrame) -> str:
    """Return the README's table: in one thread, the best peer's time over ours, from the least to the largest kind."""
    told = told[told.threads == "one"]
    sizes = [m for m in (10, 100, 300, 1000) if m in set(told.m)]
    lines = ["| beta | " + " | ".join(f"m = {m:,}" for m in sizes) + " |", "| --- " * (1 + len(sizes)) + "|"]
    for beta, rows in told.groupby("beta", sort=False):
        lines.append(f"| {beta:g} | " + " | ".join(_range(rows[rows.m == m].ratio) for m in sizes) + " |")
    return "\n".join(lines)


def _range(ratios: pd.Series) -> str:
    known = ratios.dropna()
    if known.empty:
        return "nobody else"
    least, most = (f"{float(f'{x:.2g}'):,.10g}" for x in (known.min(), known.max()))
    said = f"{least} to {most}"
    return said if len(known) == len(ratios) else f"{said}; nobody else in {len(ratios) - len(known)}"


STUDY = Study(
    configs,
    compare,
    report,
    "How do time and accuracy grow with the number of responses, kind by kind?",
    minutes=(7, 43),
    one_job=True,
)

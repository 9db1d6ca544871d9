"""Our own ways to solve a dense game, each forced, against the way that is chosen; systems against one LU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Any

import numpy as np
import pandas as pd
from scipy.linalg.lapack import dgetrf
from study import Rows, Scale, Study, show
from threadpoolctl import threadpool_limits

import windgames as wg
from solver_studies.games import Instance
from solver_studies.measure import (
    shortest,
)
from windgames.equilibria import central_path, dense

WAYS: dict[str, tuple[float, float] | None] = {
    "as chosen": None,
    "path, factorised": (inf, 0.0),
    "path, products": (2, 0.0),
    "central path, factorised": (inf, inf),
    "central path, products": (2, inf),
}
"""From how many responses on products with the matrix are tried, and below which price the central path begins."""


@contextmanager
def forced(way: tuple[float, float] | None) -> Iterator[None]:
    """Make `equilibrium` take one of its ways."""
    before = dense.CG_FROM, central_path.CG_FROM, dense.CENTRAL_PATH_BELOW
    try:
        if way is not None:
            dense.CG_FROM = central_path.CG_FROM = way[0]  # type: ignore[assignment]
            dense.CENTRAL_PATH_BELOW = way[1]
        with threadpool_limits(1):
            yield
    finally:
        dense.CG_FROM, central_path.CG_FROM, dense.CENTRAL_PATH_BELOW = before


def configs(scale: Scale) -> list[dict[str, Any]]:
    sizes = scale.pick([5], [100, 200, 400], [50, 100, 200, 400, 800])
    betas = scale.pick([0.1], [1.0, 0.01, 0.001], [1.0, 0.1, 0.03, 0.01, 0.003, 0.001])
    kinds = ["intransitive", "tournament", "lopsided reference", "Bradley-Terry"]
    return [{"kind": kind, "beta": beta, "sizes": sizes} for kind in kinds for beta in betas]


def measured(config: dict[str, Any], _rng: np.random.Generator) -> Rows:
    rows = []
    for m in config["sizes"]:
        game = Instance(config["kind"], m, config["beta"]).make()
        matrix = np.array(game.preference.matrix())
        with threadpool_limits(1):
            lu = shortest(lambda: dgetrf(matrix), 5)[0]  # noqa: B023
        for way, limits in WAYS.items():
            with forced(limits):
                seconds, found = shortest(lambda: wg.equilibrium(game))  # noqa: B023
            one = {"kind": config["kind"], "m": m, "beta": config["beta"], "way": way, "seconds": seconds}
            one |= {"systems": int(found.steps), "residual": float(found.residual), "factorisation_s": lu}
            rows.append(one | {"system_in_factorisations": seconds / max(1, int(found.steps)) / lu})
    return rows


def report(table: pd.DataFrame) -> None:
    by_way = table.pivot_table(index=["kind", "m", "beta"], columns="way", values="seconds", sort=False)
    best = by_way.drop(columns="as chosen").min(axis=1)
    ratios = by_way.div(best, axis=0)
    ours, worst = table[table.way == "as chosen"], ratios["as chosen"].idxmax()
    shown = ratios.groupby(["m", "beta"]).agg(lambda x: float(np.exp(np.log(x).mean()))).reset_index()
    large = ours[ours.m >= ours.m.max()].system_in_factorisations
    show(
        "Time of each way over the quickest one's (geometric mean over four kinds of game), one thread",
        shown,
        f"The way that is chosen takes {np.exp(np.log(ratios['as chosen']).mean()):.2f} times the quickest way's time, "
        f"at most {ratios['as chosen'].max():.2g} ({worst[0]}, m = {worst[1]}, beta = {worst[2]:g}); "
        f"{int(ours.systems.max())} systems at most, median {ours.systems.median():g}; of {ours.m.max()} responses one "
        f"takes {large.min():.2g} to {large.max():.2g} times as long as a factorisation.",
    )


STUDY = Study(
    configs, measured, report, "Is the way to solve a dense game chosen well?", minutes=(0.3, 0.8), one_job=True
)

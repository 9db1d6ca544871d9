"""Distance to the equilibrium against queries: every learner, up to three step sizes each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from study import Rows, Scale, Study, show

from bandit_studies.learners import (
    BETA,
    LEARNERS,
    THRESHOLDS,
    WORLDS,
    curve_rows,
    learn,
    world,
)
from windgames import bounds
from windgames.bandits import Run


def configs(scale: Scale) -> list[dict[str, Any]]:
    worlds = scale.pick(("reward",), ("reward", "intransitive"), WORLDS)
    total = scale.pick(6000, 100_000, 400_000)
    names = scale.pick(["WIND", "WIND, all responses", "SPPO", "J-BOND"], list(LEARNERS), list(LEARNERS))
    return [
        {"world": w, "learner": name, "step": x, "queries": total, "seeds": scale.seeds}
        for w in worlds
        for name in names
        for x in LEARNERS[name][1][: scale.pick(2, 3, 3)]
    ]


def cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    found = learn(
        config["learner"],
        config["step"],
        config["world"],
        rng,
        queries=config["queries"],
        replicates=config["seeds"],
        records=60,
    )
    key = {k: config[k] for k in ("world", "learner", "step", "seeds")}
    if found is None:
        return []
    rows = curve_rows(found, key, "queries", every=3)
    if config["learner"] == "WIND, all responses":
        rows += _bound_rows(config, found)
    return rows


def _bound_rows(config: dict[str, Any], found: Run) -> Rows:
    """Return theory 7.7's bound along the run, where the step is inside the theorem."""
    game = world(config["world"]).game
    L = np.broadcast_to(game.preference.interaction, game.batch_shape)
    eta, eps = config["step"] * BETA, np.where(config["world"] in ("Bradley-Terry", "intransitive"), 1.0, L)
    if eta > np.min(bounds.wind_max_step(game.beta, game.interaction)):
        return []
    first = found.trace["kl_from_solution"][0, 0]
    rows = []
    for t, queries in list(zip(found.steps, found.queries, strict=True))[::3]:
        bound = bounds.linear_rate(BETA, eta) ** int(t) * first + bounds.noise_floor(BETA, eta, eps)
        key = {"world": config["world"], "learner": config["learner"], "step": config["step"], "part": "bound"}
        rows.append(key | {"queries": float(queries), "kl": float(bound.mean())})
    return rows


def cheapest(table: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Return, for each world and learner, the row of the step that stays below a threshold at least cost."""
    rows = table[(table.part == "reach") & (table.threshold == threshold)].copy()
    rows["order"] = rows.cost.fillna(np.inf)
    rows = rows.sort_values(["order", "final_kl"], kind="stable")
    return rows.groupby(["world", "learner"], sort=False).head(1)


def report(table: pd.DataFrame) -> None:
    for threshold in THRESHOLDS:
        rows = cheapest(table, threshold).copy()
        own = rows[rows.learner == "WIND"].set_index("world").cost
        rows["to_WIND"] = rows.cost / rows.world.map(own)
        rows["interval"] = [
            f"{a:.3g} to {b:.3g}"
            if np.isfinite(c)
            else ("passes, leaves" if p > 0.5 > s else "not all" if s else "never")
            for a, b, c, p, s in zip(rows.cost_low, rows.cost_high, rows.cost, rows.passed, rows.share, strict=True)
        ]
        first = table.world.iloc[0]
        shown = rows[rows.world == first][["learner", "step", "cost", "interval", "share", "to_WIND", "final_kl"]]
        reached = rows[rows.cost.notna()].groupby("world").learner.apply(lambda x: len(x)).to_dict()
        fastest = rows[rows.cost.notna()].sort_values("cost").groupby("world").learner.first().to_dict()
        show(
            f"Queries per seed until KL(pi*||pi) stays below {threshold:g} "
            f"(world: {first}; the best of the steps tried)",
            shown.rename(columns={"cost": "queries"}),
            f"Median of {int(table.seeds.max())} seeds with 95% intervals. Learners that reach it: {reached}; "
            f"first: {fastest}.",
        )
    gone = cheapest(table, 0.1)
    gone = gone[(gone.share < 0.5) & (gone.passed > 0.5)].groupby("learner").world.count()
    bound = table[table.part == "bound"]
    same = table[(table.part == "curve") & (table["round"] > 0)].merge(
        bound, on=["world", "learner", "step", "queries"], suffixes=("", "_bound")
    )
    print(
        f"=> Pass within 0.1 of the equilibrium and leave it again: {gone.to_dict() or 'none'}.\n"
        f"=> SPPO, J-BOND, best-of-n distillation, iterative BOND and REINFORCE on rewards aim elsewhere, and are "
        f"measured from here all the same.\n"
        f"=> After the first round the mean distance was at most {(same.kl_mean / same.kl_bound).max():.3f} of the "
        f"finite-time bound (theory 7.7) in {len(same)} records."
    )


STUDY = Study(
    configs, cell, report, "How many comparisons does each learner need to reach the equilibrium?", minutes=(2, 11)
)

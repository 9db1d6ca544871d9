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
    return [] if found is None else curve_rows(found, key, "queries", every=3)


COINS = ("Bradley-Terry", "intransitive")
"""Worlds whose judge tosses a coin of the preference; the others' answers are certain."""


def with_bounds(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with what is proven of its runs, in rows whose part is bound or lower.

    `bound`: theory 7.7 with the error of 7.11, of the learners that ask about every response, where their step is
    inside the theorem. `lower`: theory 7.12, what no learner undercuts on all games whose judge tosses coins.
    """
    table = table[~table.part.isin(["bound", "lower"])]
    rows: Rows = []
    for (name, learner, step), run in table[table.part == "curve"].groupby(["world", "learner", "step"], sort=False):
        if learner not in ("WIND, all responses", "WIND, decaying"):
            continue
        game = world(name).game
        L = np.broadcast_to(np.asarray(game.preference.interaction, dtype=float), game.batch_shape)
        known = None if name in COINS else L
        t, queries = run["round"].to_numpy(int), run.queries.to_numpy()
        first = run.kl_mean.iloc[0]
        key = {"world": name, "learner": learner, "step": step}
        falling = learner == "WIND, decaying"  # of which `step` is the interaction that it assumes
        eta = float(bounds.wind_decaying_step(0, BETA, step)) if falling else step * BETA
        if falling and step >= np.max(L):
            eps = bounds.comparison_error(1, BETA, eta, known)
            proven = [np.mean(bounds.decaying_bound(first, x, BETA, eps, step)) for x in t]
        elif not falling and eta <= np.min(bounds.wind_max_step(BETA, L)):
            floor = np.mean(bounds.noise_floor(BETA, eta, bounds.comparison_error(1, BETA, eta, known)))
            proven = list(bounds.linear_rate(BETA, eta) ** t * first + floor)
        else:
            continue
        rows += [
            key | {"part": "bound", "round": int(n), "queries": q, "kl": x}
            for n, q, x in zip(t, queries, proven, strict=True)
        ]
        if name in COINS and learner == "WIND, all responses":
            below = bounds.comparisons_lower_bound(BETA, queries[queries > 0] / L.size)
            rows += [
                key | {"part": "lower", "queries": q, "kl": x} for q, x in zip(queries[queries > 0], below, strict=True)
            ]
    return pd.concat([table, pd.DataFrame(rows)], ignore_index=True) if rows else table


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
        f"finite-time bound (theory 7.7, 7.11) in {len(same)} records."
    )


STUDY = Study(
    configs,
    cell,
    report,
    "How many comparisons does each learner need to reach the equilibrium?",
    minutes=(2, 11),
    derive=with_bounds,
)

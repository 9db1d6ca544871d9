"""Win rate against the reference, and what it costs in KL."""

from __future__ import annotations

from math import nan
from typing import Any

import numpy as np
import pandas as pd
from study import Rows, Scale, Study, show

import windgames as wg
from bandit_studies.learners import (
    BETA,
    GENTLE,
    learn,
    world,
)
from windgames._array import expectation, kl

FRONTIER_BETAS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
FRONTIER_WORLD = "two hundred atoms"
TRAJECTORIES = ("SPPO", "J-BOND", "best-of-n distillation")


def configs(scale: Scale) -> list[dict[str, Any]]:
    total = scale.pick(20_000, 100_000, 400_000)
    betas = FRONTIER_BETAS[::3] if scale.smoke else FRONTIER_BETAS
    cells = [{"part": "WIND", "beta": beta, "queries": total, "seeds": scale.seeds} for beta in betas]
    cells += [{"part": "REINFORCE", "beta": beta, "queries": total, "seeds": scale.seeds} for beta in betas]
    cells += [{"part": name, "beta": BETA, "queries": total, "seeds": scale.seeds} for name in TRAJECTORIES]
    return [*cells, {"part": "exact"}]


def cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    part = config["part"]
    if part == "exact":
        return _frontier_exact()
    settings: dict[str, Any] = {"queries": config["queries"], "replicates": config["seeds"], "beta": config["beta"]}
    if part == "WIND":
        found = learn("WIND, decaying", 0.5, FRONTIER_WORLD, rng, **settings)
    else:
        found = learn(part, GENTLE[part], FRONTIER_WORLD, rng, records=240, **settings)
    assert found is not None
    at = range(0, len(found.steps), 4) if part in TRAJECTORIES else [-1]
    return [
        {
            "part": part,
            "beta": config["beta"],
            "round": int(found.steps[i]),
            "kl_ref": float(np.median(found.mean("kl_ref")[i])),
            "win_rate": float(np.median(found.mean("win_rate")[i])),
        }
        for i in at
    ]


def _frontier_exact() -> Rows:
    """Return the exact points: both games' equilibria, best-of-n, and the closed forms without atoms."""
    here = world(FRONTIER_WORLD)
    game, rows = here.game, []

    def point(part: str, number: float, log_policy: np.ndarray) -> None:
        rate = expectation(log_policy, game.preference.win_rate(game.log_ref)).mean()
        rows.append(
            {
                "part": part,
                "beta": number,
                "kl_ref": float(kl(log_policy, game.log_ref).mean()),
                "win_rate": float(rate),
            }
        )

    for beta in np.geomspace(0.01, 3, 25):
        point("equilibrium", float(beta), wg.equilibrium(wg.WinRateGame(game.preference, game.ref, beta)).log_policy)
    for n in np.geomspace(1, 128, 36):  # any real n: between whole numbers the curve is no chord
        point("best-of-n", float(n), wg.best_of_n(game.preference, game.log_ref, float(n)))
    for d in np.geomspace(1e-3, 6, 30):
        rates = {
            "continuum, game": wg.continuum.WinRate.from_kl(d).win_rate(),
            "continuum, best-of-n": wg.continuum.BestOfN.from_kl(d).win_rate(),
        }
        rows += [{"part": k, "beta": nan, "kl_ref": float(d), "win_rate": float(rate)} for k, rate in rates.items()]
    return rows


def report(table: pd.DataFrame) -> None:
    exact = table[table.part == "equilibrium"].sort_values("kl_ref")
    best = table[table.part == "best-of-n"].sort_values("kl_ref")
    learned = table[table.part.isin(["WIND", "REINFORCE"])].copy()
    learned["equilibrium"] = np.interp(learned.kl_ref, exact.kl_ref, exact.win_rate)
    learned["best_of_n"] = np.interp(learned.kl_ref, best.kl_ref, best.win_rate)
    game, closed = table[table.part == "continuum, game"], exact
    inside = game[(game.kl_ref > closed.kl_ref.min()) & (game.kl_ref < 2.5)]
    off = np.abs(np.interp(inside.kl_ref, closed.kl_ref, closed.win_rate) - inside.win_rate).max()
    ends = table[table.part.isin(TRAJECTORIES)].groupby("part").tail(1)
    apart = (learned.win_rate - learned.equilibrium)[learned.part == "WIND"].abs().max()
    show(
        "Win rate against the reference at the KL it costs (200 atoms), and what exact policies have at the same KL",
        learned[["part", "beta", "kl_ref", "win_rate", "equilibrium", "best_of_n"]],
        f"WIND's points lie within {apart:.3f} of the "
        f"game's own frontier, which the closed form without atoms gives to {off:.3f}. "
        + "; ".join(f"{r.part} ends at KL {r.kl_ref:.2f}, win rate {r.win_rate:.3f}" for r in ends.itertuples())
        + f" (the largest KL possible here is {float(-np.log(world(FRONTIER_WORLD).game.ref.min())):.2f}).",
    )


STUDY = Study(configs, cell, report, "What does a win rate against the reference cost in KL?", minutes=(0.6, 2.5))

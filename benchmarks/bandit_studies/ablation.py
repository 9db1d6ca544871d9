"""beta by eta: speed and final distance, inside and outside the theorem's region."""

from __future__ import annotations

from math import nan
from typing import Any

import numpy as np
import pandas as pd
from environments import rock_paper_scissors
from study import Rows, Scale, Study, show

import windgames as wg
from bandit_studies.learners import (
    ALL,
    world,
)
from windgames import bounds
from windgames.bandits import Regression, run
from windgames.oracles import Oracle


def configs(scale: Scale) -> list[dict[str, Any]]:
    betas = np.geomspace(0.03, 1.0, scale.pick(3, 7, 11))
    worlds = ("reward", "rock-paper-scissors")
    return [
        {
            "world": w,
            "beta": round(float(b), 5),
            "points": scale.pick(4, 9, 15),
            "rounds": scale.pick(200, 1500, 2500),
            "seeds": scale.seeds,
        }
        for w in worlds
        for b in betas
    ]


def cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    """Run WIND, exact and sampled, for a range of steps at one beta."""
    beta = config["beta"]
    if config["world"] == "reward":
        game = world("reward", beta).game
    else:
        preference, ref = rock_paper_scissors()
        game = wg.WinRateGame(wg.MatrixPreference(preference.matrix()[None]), ref[None], beta)
    L = float(np.max(game.preference.interaction))
    star = wg.equilibrium(game, tol=1e-11)
    rows = []
    for ratio in np.geomspace(0.1, 1000, config["points"]):  # eta over beta
        eta = float(ratio) * beta
        exact = wg.solve(game, wg.wind(eta), tol=1e-6, max_steps=config["rounds"], reference_solution=star)
        assert exact.trace is not None
        assert exact.trace.kl_from_solution is not None
        learner: Any = Regression(wg.wind(eta), **ALL)
        sampled = run(
            learner,
            game,
            Oracle(game.preference),
            rng,
            rounds=config["rounds"] // 3,
            replicates=config["seeds"],
            solution=star,
            records=30,
        )
        far = exact.trace.kl_from_solution.mean(axis=-1)
        end = sampled.mean("kl_from_solution")[-1]
        rows.append(
            {
                "world": config["world"],
                "beta": beta,
                "ratio": round(float(ratio), 6),
                "eta": eta,
                "interaction": L,
                "largest": float(bounds.wind_max_step(beta, L)),
                "exact_steps": float(np.argmax(far <= 1e-6)) if (far <= 1e-6).any() else nan,
                "exact_kl": float(far[-1]),
                "sampled_kl": float(np.median(end)),
                "sampled_mean": float(np.mean(end)),
                "rounds": int(sampled.steps[-1]),
                "initial_kl": float(far[0]),
            }
        )
    return rows


def with_bounds(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with theory 7.7's bound on the sampled distance, the error of 7.11 with one certain answer."""
    inside = table.eta <= table.largest
    eps = bounds.comparison_error(1, table.beta, table.eta, table.interaction)
    bound = bounds.linear_rate(table.beta, table.eta) ** table.rounds * table.initial_kl
    return table.assign(bound=(bound + bounds.noise_floor(table.beta, table.eta, eps)).where(inside))


def report(table: pd.DataFrame) -> None:
    for name, rows in table.groupby("world", sort=False):
        shown = rows.pivot_table(index="beta", columns="ratio", values="sampled_kl")
        shown = shown.iloc[:: max(1, len(shown) // 6), :: max(1, shown.shape[1] // 7)]
        shown.columns = [f"{c:.3g} beta" for c in shown.columns]
        best = rows.loc[rows.groupby("beta").sampled_kl.idxmin()]
        lost = rows[rows.exact_steps.isna() & (rows.eta > rows.largest)]
        show(
            f"Final KL(pi*||pi) of sampled WIND, beta by eta ({name})",
            shown.reset_index(),
            f"The best eta is {best.ratio.min():.2g} to {best.ratio.max():.2g} times beta. Beyond the theorem's "
            f"{rows.largest.iloc[0] / rows.beta.iloc[0]:.3g} beta exact WIND failed to converge at {len(lost)} of "
            f"{int((rows.eta > rows.largest).sum())} points.",
        )
    known = table[table.bound.notna()]
    print(
        f"=> At the {len(known)} points inside the theorem the mean final distance was at most "
        f"{(known.sampled_mean / known.bound).max():.2f} of the finite-time bound (theory 7.7, 7.11)."
    )


STUDY = Study(
    configs, cell, report, "How do beta and eta set speed and final distance?", minutes=(1, 3.5), derive=with_bounds
)

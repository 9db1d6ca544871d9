"""Where iterative best-of-n ends: the exact and the power form against the log-win-rate equilibria."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from environments import atoms
from study import Rows, Scale, Study, show

import windgames as wg
from bandit_studies.games import ENVIRONMENTS, MIXES, total_variation

ATOM_BETA = 1.5


def configs(scale: Scale) -> list[dict[str, Any]]:
    smoke = scale.smoke
    names = ["synthetic, ties", "digits"] if smoke else list(ENVIRONMENTS)
    mixes = MIXES[1:5:3] if smoke else MIXES
    sizes = [5, 50] if smoke else [5, 10, 20, 50, 100, 200, 500, 1000, 2000]
    identity = [{"part": "limit", "environment": name, "mix": list(mix)} for name in names for mix in mixes]
    return identity + [{"part": "atoms", "n": n, "responses": m} for n in (2, 4, 8) for m in sizes]


def cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    """Run iterative best-of-n to its limit; return its distance to the equilibria that it might be."""
    if config["part"] == "atoms":
        bandit, n = atoms(config["responses"]), config["n"]
        mix = (n, 1 / (1 + ATOM_BETA * (n - 1)), 0.0)
    else:
        bandit, mix = ENVIRONMENTS[config["environment"]](), tuple(config["mix"])
    weak, half = (wg.RewardPreference(bandit.reward, ties=ties) for ties in ("weak", "half"))
    power = wg.LogWinRateGame.from_best_of_n(weak, bandit.ref, *mix)
    exact = wg.BestOfNGame.from_best_of_n(half, bandit.ref, *mix)
    to_weak = wg.equilibrium(power).log_policy
    to_half = wg.equilibrium(wg.LogWinRateGame(half, bandit.ref, power.beta)).log_policy
    rows = []
    for form, game in (("power", power), ("exact", exact)):
        run = wg.solve(game, wg.iterative_bon(*mix), tol=1e-12, max_steps=5000)
        rows.append(
            {
                "part": config["part"],
                "environment": bandit.name,
                "n": mix[0],
                "alpha1": mix[1],
                "alpha2": mix[2],
                "beta": power.beta,
                "form": form,
                "steps": int(run.steps.max()),
                "residual": float(run.residual.max()),
                "tv_weak": float(total_variation(run.log_policy, to_weak).max()),
                "tv_half": float(total_variation(run.log_policy, to_half).max()),
                "largest_atom": float(bandit.ref.max()),
                "largest_mass": float(run.policy.max()),
            }
        )
    return rows


def report(table: pd.DataFrame) -> None:
    limit, grain = table[table.part == "limit"], table[table.part == "atoms"]
    columns = {"tv_weak": "max", "tv_half": "max", "steps": "max"}
    shown = limit.groupby(["form", "n"], sort=True).agg(columns).reset_index()
    power, exact = limit[limit.form == "power"], limit[limit.form == "exact"]
    show(
        "Limit of iterative best-of-n: largest total variation to two log-win-rate equilibria",
        shown,
        f"The power form ends at the weak-ties equilibrium to {power.tv_weak.max():.0e}, the exact form with "
        f"n = 2 at the half-ties one to {exact[exact.n == 2].tv_half.max():.0e}; otherwise the exact form is "
        f"{exact.tv_weak.min():.2g} to {exact.tv_weak.max():.2g} away from the weak-ties one.",
    )
    grain = grain[grain.form == "exact"]
    shown = grain.pivot_table(index=["environment", "largest_atom"], columns="n", values="tv_weak", sort=False)
    shown.columns = [f"n = {n:g}" for n in shown.columns]
    ends = [g.sort_values("largest_atom").iloc[:2] for _, g in grain.groupby("n")]
    slopes = [np.diff(np.log(g.tv_weak))[0] / np.diff(np.log(g.largest_atom))[0] for g in ends]
    show(
        f"Exact form: gap to the weak-ties equilibrium, by n, as atoms shrink (beta = {ATOM_BETA:g})",
        shown.reset_index(),
        f"The gap vanishes; at the smallest atoms it falls as their size to the power "
        f"{min(slopes):.2f} to {max(slopes):.2f}.",
    )


STUDY = Study(configs, cell, report, "Where does iterative best-of-n end?", minutes=(0.3, 0.6))

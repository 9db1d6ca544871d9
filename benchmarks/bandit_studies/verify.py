"""Equilibria solved again by a convex solver."""

from __future__ import annotations

from math import nan
from typing import Any

import numpy as np
import pandas as pd
from environments import PREFERENCES, Bandit, preference
from study import Rows, Scale, Study, show

import windgames as wg
from bandit_studies.games import RATE_GAMES, rate_game
from windgames.verify import VerificationError

LOOSER = (1e-5, 1e-3, 1e-1)
"""Accuracies in total variation asked of the convex solver, one by one: at small beta it loses digits."""


def configs(scale: Scale) -> list[dict[str, Any]]:
    smoke = scale.smoke
    betas = [1.0, 0.1, 0.01]
    sizes = {3: 2} if smoke else {8: 4, 20: 4, 50: 3, 100: 2, 120: 2, 150: 2, 200: 1}
    cells = [
        {"kind": kind, "responses": m, "games": games, "beta": beta}
        for m, games in list(sizes.items())[::-1]
        for kind in PREFERENCES
        for beta in betas
    ]
    if not smoke:
        cells = [{"kind": kind, "responses": 300, "games": 1, "beta": 0.1} for kind in PREFERENCES] + cells
    names = RATE_GAMES[-1:] if smoke else RATE_GAMES
    return cells + [{"kind": name, "beta": beta} for name in names for beta in betas]


def cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    """Solve each game again as a convex program, to the tightest accuracy that the solver can prove."""
    if "responses" in config:
        m, games = config["responses"], config["games"]
        bandit = Bandit("random", rng.normal(size=(games, m)), rng.dirichlet(np.ones(m), size=games))
        prefer, ref = preference(bandit, config["kind"], noise=rng), bandit.ref
    else:
        prefer, ref = rate_game(config["kind"])
    matrices = np.broadcast_to(prefer.matrix(), (*ref.shape[:-1], *prefer.matrix().shape[-2:]))
    rows = []
    for index in np.ndindex(ref.shape[:-1]):
        game = wg.WinRateGame(wg.MatrixPreference(matrices[index]), ref[index], config["beta"])
        solution = wg.equilibrium(game)
        row = {
            "kind": config["kind"],
            "beta": config["beta"],
            "responses": ref.shape[-1],
            "residual": float(solution.residual),
            "kl_certificate": float(solution.kl_certificate),
            "asked": nan,
            "agrees": False,
        }
        for asked in LOOSER:
            try:
                verdict = wg.verify(game, solution, tv_tol=asked)
            except VerificationError:
                continue
            row |= {
                "asked": asked,
                "agrees": bool(verdict),
                "tv": float(verdict.distance),
                "solver_error": float(verdict.solver_error),
                "value_error": abs(float(verdict.value) - 0.5),
                "gain": float(verdict.gain),
                "solver": "".join(verdict.solver),
            }
            break
        rows.append(row)
    return rows


def report(table: pd.DataFrame) -> None:
    sharp = table[table.asked == LOOSER[0]]
    table = table.assign(size=np.where(table.responses <= 100, "<= 100", "> 100"))
    shown = table.groupby(["size", "beta"]).agg(
        games=("agrees", "size"),
        agree=("agrees", "sum"),
        asked_1e5=("asked", lambda x: int((x == LOOSER[0]).sum())),
        tv_median=("tv", "median"),
        tv=("tv", "max"),
        solver_error=("solver_error", "max"),
        residual=("residual", "max"),
    )
    show(
        "Equilibria against cvxpy: total variation to the policy of the convex solver",
        shown.reset_index(),
        f"{int(table.agrees.sum())} of {len(table)} games agree, {int((table.responses > 100).sum())} of "
        f"them with more than 100 responses. The largest total variation is {table.tv.max():.1e}. "
        f"In {len(sharp)} of them the solver proves its own error below {LOOSER[0]:g}; the largest "
        f"such bound is {table.solver_error.max():.1e}; {int(table.asked.isna().sum())} games no solver could solve.",
    )


STUDY = Study(configs, cell, report, "Does a convex solver find the same equilibria?", minutes=(0.3, 0.3))

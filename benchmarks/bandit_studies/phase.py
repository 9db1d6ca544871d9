"""Contraction below n alpha1 + alpha2 = 1, several equilibria and collapse beyond it."""

from __future__ import annotations

from math import nan
from typing import Any

import numpy as np
import pandas as pd
from study import Rows, Scale, Study, show

import windgames as wg
from bandit_studies.games import ENVIRONMENTS, MIXES, ROUNDING
from windgames import bounds

MAP_N = 8
"""Draws in the map of two responses. The equilibrium reached depends on beta only; large n is faster."""


def configs(scale: Scale) -> list[dict[str, Any]]:
    smoke = scale.smoke
    names = ["synthetic, ties", "two responses"] if smoke else list(ENVIRONMENTS)
    mixes = MIXES[:2] if smoke else MIXES
    betas = [0.3, 0.6, 1.2] if smoke else [round(b, 4) for b in np.linspace(0.04, 1.4, 35)]
    sizes = [10, 100] if smoke else [10, 30, 100, 300, 1000, 3000]
    cells: list[dict[str, Any]] = [
        {"part": "contraction", "environment": name, "mix": list(mix)} for name in names for mix in mixes
    ]
    cells += [{"part": "map", "beta": beta, "points": 6 if smoke else 40} for beta in betas]
    cells += [
        {"part": "example", "mix": list(mix)} for mix in [(2, 2 / 3, 0), (2, 0.4, 0.4), (8, 2 / 9, 0), (3, 0.4, 0.2)]
    ]
    return cells + [{"part": "atomless", "responses": m, "points": 6 if smoke else 24} for m in sizes]


def cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    run = {"contraction": _contraction, "map": _map, "example": _example, "atomless": _atomless}[config["part"]]
    return [{"part": config["part"], **row} for row in run(config, rng)]


def _contraction(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    """Measure the factor by which a step nears the fixed point, from rho and from elsewhere."""
    bandit, mix = ENVIRONMENTS[config["environment"]](), tuple(config["mix"])
    preference = wg.RewardPreference(bandit.reward, ties="weak")
    elsewhere = np.log(rng.dirichlet(np.full(bandit.ref.shape[-1], 0.3), size=len(bandit.ref)) + 1e-12)
    elsewhere -= np.log(np.sum(np.exp(elsewhere), axis=-1, keepdims=True))
    rows = []
    for form, kind in (("power", wg.LogWinRateGame), ("exact", wg.BestOfNGame)):
        game = kind.from_best_of_n(preference, bandit.ref, *mix)
        limit = wg.equilibrium(game, tol=1e-12)
        for start, policy in (("reference", None), ("elsewhere", elsewhere)):
            rule = wg.iterative_bon(*mix)
            run = wg.solve(game, rule, start=policy, tol=1e-6, max_steps=3000, reference_solution=limit)
            assert run.trace is not None
            h = run.trace.hilbert_to_solution
            assert h is not None
            factor = np.where(h[:-1] > 1e-5, h[1:] / np.maximum(h[:-1], 1e-300), 0.0)
            rows.append(
                {
                    "environment": bandit.name,
                    "form": form,
                    "n": mix[0],
                    "alpha1": mix[1],
                    "alpha2": mix[2],
                    "beta": game.beta,
                    "start": start,
                    "factor": float(factor.max()),
                    "factor_bound": bounds.best_of_n_contraction(*mix),
                    "steps": int(run.steps.max()),
                }
            )
    return rows


def _map(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    """Run iterative best-of-n on two responses, from rho and from near the better one, for a range of rho."""
    beta, points = config["beta"], config["points"]
    top = 1 / (1 + np.exp(-np.linspace(np.log(0.004 / 0.996), np.log(0.7 / 0.3), points)))
    ref = np.stack([1 - top, top], axis=-1)
    alpha1 = 1 / (1 + beta * (MAP_N - 1))
    game = wg.LogWinRateGame.from_best_of_n(wg.RewardPreference([0.0, 1.0], ties="weak"), ref, MAP_N, alpha1)
    near_top = np.broadcast_to(np.log([1e-6, 1 - 1e-6]), ref.shape)
    runs = [
        wg.solve(game, wg.iterative_bon(MAP_N, alpha1), start=start, tol=1e-9, max_steps=500).policy[:, 1]
        for start in (None, near_top)
    ]
    direct = wg.equilibrium(game).policy[:, 1]
    index = bounds.collapse_index(beta, top) if beta < 1 else np.full(points, nan)
    columns = {
        "top_ref": top,
        "top_from_ref": runs[0],
        "top_from_top": runs[1],
        "top_direct": direct,
        "collapse_index": index,
    }
    return [
        {"beta": beta, "n": MAP_N, "alpha1": alpha1, "alpha2": 0.0} | {k: float(v[i]) for k, v in columns.items()}
        for i in range(points)
    ]


def _example(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    """Two stable equilibria: rho = (.99, .01) at beta = 1/2 (theory 3.8), for several (n, alpha1, alpha2)."""
    mix = tuple(config["mix"])
    game = wg.LogWinRateGame.from_best_of_n(wg.RewardPreference([0.0, 1.0], ties="weak"), [0.99, 0.01], *mix)
    rows = []
    for start, policy in (("reference", None), ("elsewhere", np.log([0.001, 0.999]))):
        run = wg.solve(game, wg.iterative_bon(*mix), start=policy, tol=1e-12, max_steps=400)
        rows.append(
            {
                "n": mix[0],
                "alpha1": mix[1],
                "alpha2": mix[2],
                "beta": game.beta,
                "start": start,
                "top_ref": 0.01,
                "top_from_ref" if policy is None else "top_from_top": float(run.policy[1]),
                "steps": int(run.steps),
            }
        )
    return rows


def _atomless(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    """Return the mass of the best of m equal atoms at the limit from rho, on both sides of the threshold.

    An even number of points: at the threshold itself convergence is sublinear.
    """
    m, n = config["responses"], 4
    rows = []
    for index in np.linspace(0.7, 1.3, config["points"]):
        mix = (n, float(index) / n, 0.0)
        game = wg.LogWinRateGame.from_best_of_n(
            wg.RewardPreference(np.arange(m, dtype=float), ties="weak"), np.full(m, 1 / m), *mix
        )
        limit = wg.equilibrium(game)
        rows.append(
            {
                "responses": m,
                "n": n,
                "alpha1": mix[1],
                "alpha2": 0.0,
                "beta": game.beta,
                "index": float(index),
                "top_ref": 1 / m,
                "top_from_ref": float(limit.policy[-1]),
                "residual": float(limit.residual),
            }
        )
    return rows


def report(table: pd.DataFrame) -> None:
    part = {name: rows.dropna(axis=1, how="all") for name, rows in table.groupby("part")}
    c = part["contraction"]
    shown = c.groupby(["factor_bound", "n", "alpha1", "alpha2"]).agg(factor=("factor", "max"), steps=("steps", "max"))
    shown = shown.reset_index()[["n", "alpha1", "alpha2", "factor_bound", "factor", "steps"]]
    held = int((c.factor <= c.factor_bound * (1 + ROUNDING)).sum())
    show(
        "Contraction below the threshold: largest factor of a step in the Hilbert metric",
        shown,
        f"The bound n alpha1 + alpha2 held in {held} of {len(c)} runs; the nearest came to "
        f"{(c.factor / c.factor_bound).max():.4f} of it.",
    )
    p = part["map"]
    below = p[p.beta < 1]
    collapsed, predicted = below.top_from_ref > 0.999, below.collapse_index < 1
    clear = np.abs(np.log(below.collapse_index)) > 0.05
    shown = below.groupby("beta").agg(
        collapsed=("top_from_ref", lambda x: (x > 0.999).mean()),
        predicted=("collapse_index", lambda x: (x < 1).mean()),
    )
    shown = shown.reset_index().iloc[:: max(1, len(shown) // 8)]
    two = below[(below.top_from_ref < 0.999) & (below.top_from_top > 0.999)]
    show(
        "Two responses: share of references from which iterative best-of-n collapses",
        shown,
        f"The curve collapse_index = 1 is right at {(collapsed == predicted)[clear].mean():.1%} of the "
        f"{int(clear.sum())} points not on it ({(collapsed == predicted).mean():.1%} of all {len(below)}); "
        f"at {len(two)} points two stable equilibria coexist; for beta > 1 the two starts differ by at most "
        f"{(p[p.beta > 1].top_from_ref - p[p.beta > 1].top_from_top).abs().max():.0e}.",
    )
    e = part["example"]
    show(
        "rho = (.99, .01), beta = 1/2: where iterative best-of-n stops",
        e[["n", "alpha1", "alpha2", "beta", "start", "top_from_ref", "top_from_top", "steps"]],
        f"From rho it stops with {1 - e.top_from_ref.max():.4f} on the worse response for every "
        f"(n, alpha1, alpha2); from near the better one it goes to {e.top_from_top.min():.4f} on it.",
    )
    a = part["atomless"].copy()
    a["responses"] = a.responses.astype(int)
    shown = a.pivot_table(index="index", columns="responses", values="top_from_ref").reset_index()
    shown = shown.iloc[:: max(1, len(shown) // 8)]
    jump = a.groupby("responses").apply(lambda g: np.interp(0.5, np.maximum.accumulate(g.top_from_ref), g["index"]))
    show(
        "Equal atoms: mass of the best response at the limit, against n alpha1 + alpha2",
        shown,
        "The mass passes 1/2 at " + ", ".join(f"{v:.3f} (m = {k})" for k, v in jump.items()) + ".",
    )


STUDY = Study(
    configs, cell, report, "When does iterative best-of-n contract, and when does it collapse?", minutes=(0.4, 0.4)
)

"""WIND and extragradient against their bounds, up to 128 times the largest step."""

from __future__ import annotations

from math import nan
from typing import Any

import numpy as np
import pandas as pd
from study import Rows, Scale, Study, show

import windgames as wg
from bandit_studies.games import RATE_GAMES, ROUNDING, rate_game
from windgames import bounds

SMALL_KL = 1e-10


MULTIPLES = (2, 8, 32, 128)


def configs(scale: Scale) -> list[dict[str, Any]]:
    smoke = scale.smoke
    betas = [1.0, 0.3] if smoke else [1.0, 0.3, 0.1, 0.03]
    games = RATE_GAMES[1:] if smoke else RATE_GAMES
    limits = {"long": 300, "short": 60} if smoke else {"long": 8500, "short": 600}
    return [{"game": game, "beta": beta, **limits} for beta in betas[::-1] for game in games]


def cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    """Run both rules at several steps; return rates, worst ratios to the bound, and a few curves."""
    beta = config["beta"]
    game = wg.WinRateGame(*rate_game(config["game"]), beta)
    solution = wg.equilibrium(game, tol=1e-12)
    interaction = np.broadcast_to(game.preference.interaction, game.batch_shape)
    largest: dict[str, tuple[Any, Any]] = {
        "WIND": (wg.wind, bounds.wind_max_step(beta, interaction)),
        "extragradient": (wg.extragradient, bounds.extragradient_max_step(beta, interaction)),
    }
    runs = [("WIND", label, share * beta) for label, share in (("beta/4", 0.25), ("beta", 1.0), ("4 beta", 4.0))]
    runs += [(rule, "largest", None) for rule in largest]
    runs += [(rule, f"{k} x largest", k * largest[rule][1]) for rule in largest for k in MULTIPLES]
    # Theory 2.4 and 1.3: this residual proves KL(pi*||pi) <= SMALL_KL.
    tol = float(np.sqrt(8 * SMALL_KL) / np.max(bounds.hilbert_certificate_factor(beta, interaction)))
    rows = []
    for rule, label, eta in runs:
        make, limit = largest[rule]
        beyond = label.endswith("x largest")
        run = wg.solve(
            game,
            make(eta),
            tol=tol,
            max_steps=config["short" if beyond or label == "beta/4" else "long"],
            reference_solution=solution,
        )
        step = np.broadcast_to(limit if eta is None else eta, game.batch_shape)
        rows += _rate_rows(config, game, rule, label, step, beyond, run, float(interaction.max()))
    return rows


def _rate_rows(
    config: dict[str, Any],
    game: wg.Game,
    rule: str,
    label: str,
    eta: np.ndarray,
    beyond: bool,
    run: wg.Solution,
    interaction: float,
) -> Rows:
    trace = run.trace
    assert trace is not None
    assert trace.kl_from_solution is not None
    measured = trace.kl_from_solution.reshape(len(trace.steps), -1)
    factor = np.broadcast_to(bounds.linear_rate(game.beta, eta), game.batch_shape).reshape(-1)
    bound = bounds.geometric_bound(measured[0], factor, trace.steps).T
    # Below, the equilibrium's own rounding is what is measured.
    real = bound > 1e-13
    ratio = np.max(np.where(real, measured / np.where(real, bound, 1.0), 0.0)[1:], initial=0.0)
    worst = measured.max(axis=1)
    reached = np.flatnonzero(worst <= SMALL_KL)
    steps = float(reached[0]) if reached.size else nan
    last = reached[0] if reached.size else len(worst) - 1
    inside = trace.bound is not None
    if trace.bound is not None and not np.allclose(trace.bound.reshape(bound.shape), bound):
        raise AssertionError("The trace's bound is not that of theory 5.2 and 5.4.")
    key = {"game": config["game"], "beta": config["beta"], "rule": rule, "step": label}
    summary = key | {
        "part": "rate",
        "interaction": interaction,
        "eta": float(eta.max()),
        "in_theorem": inside,
        "steps": steps,
        "payoffs": steps * (2 if rule == "extragradient" else 1),
        "steps_bound": float(np.max(np.log(measured[0] / SMALL_KL) / -np.log(factor))),
        "factor": float((worst[last] / worst[0]) ** (1 / max(1, last))),
        "factor_bound": float(factor.max()),
        "worst_ratio": float(ratio),
        "converged": bool(reached.size),
        "final_kl": float(worst[-1]),
    }
    if beyond:
        return [summary]
    at = np.unique(np.geomspace(1, last + 1, 25).round().astype(int) - 1)
    curve = [
        key | {"part": "curve", "t": int(t), "kl": float(worst[t]), "kl_bound": float(bound[t].max())}
        for t in at
        if last
    ]
    return [summary, *(curve if config["game"] in CURVES and config["beta"] in CURVE_BETAS else [])]


CURVES = ("synthetic, reward", "synthetic, intransitive")
CURVE_BETAS = (0.1, 0.3)


def report(table: pd.DataFrame) -> None:
    rate = table[table.part == "rate"]
    inside, beyond = rate[rate.in_theorem.astype(bool)], rate[rate.step.str.endswith("x largest")]
    named = inside[inside.step.isin(["beta", "largest"])]
    shown = named.pivot_table(index=["game", "beta"], columns=["rule", "step"], values="steps", sort=False)
    shown.columns = [f"{rule}, eta = {step}" for rule, step in shown.columns]
    small = inside[(inside.step == "largest") & (inside.beta == inside.beta.min())]
    speed = [small[small.rule == rule].steps.max() for rule in ("WIND", "extragradient")]
    show(
        f"Steps until KL(pi*||pi_t) <= {SMALL_KL:g} in every context (empty: not within the limit)",
        shown.reset_index(),
        f"Inside the theorems measured/bound was at most {inside.worst_ratio.max():.6f} in {len(inside)} "
        f"runs; at beta = {small.beta.iloc[0]:g} with the largest steps WIND needs up to "
        f"{speed[0]:.0f} steps, extragradient {speed[1]:.0f} (two payoffs each).",
    )
    shown = beyond.groupby(["rule", "step"], sort=False).agg(
        runs=("converged", "size"),
        bound_broken=("worst_ratio", lambda x: int((x > 1 + ROUNDING).sum())),
        converged=("converged", "sum"),
    )
    broken, lost = beyond[beyond.worst_ratio > 1 + ROUNDING], beyond[~beyond.converged.astype(bool)]
    first = min((int(s.split()[0]) for s in broken.step), default=0)
    names = ", ".join(sorted(set(lost.game))) or "no game"
    show(
        "Beyond the largest proven step",
        shown.reset_index(),
        f"The bound broke in {len(broken)} of {len(beyond)} runs"
        + (f", first at {first} times the largest step" if first else "")
        + f"; {len(lost)} runs did not converge, on: {names}.",
    )


STUDY = Study(
    configs, cell, report, "Do WIND and the extragradient keep their rates, and up to which step?", minutes=(2, 2)
)

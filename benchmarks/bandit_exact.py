r"""The exact studies: what the theory says, measured where everything is known.

bon       the limit of iterative best-of-n, exact and power form, against the log-win-rate equilibrium
phase     contraction below n alpha1 + alpha2 = 1, several equilibria and collapse beyond it
distance  the equilibria of the log-win-rate and the win-rate game as beta -> 0
rates     WIND and extragradient against their bounds, up to 128 times the largest step
verify    equilibria solved again by a convex solver
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import nan
from typing import Any

import numpy as np
import pandas as pd
from _study import Rows, Scale, Study, show
from environments import PREFERENCES, Bandit, atoms, digits, preference, rock_paper_scissors, synthetic

import windgames as wg
from windgames import bounds
from windgames.verify import VerificationError

SMALL_KL = 1e-10
ROUNDING = 1e-9
"""Relative slack in comparisons with a bound: what float64 leaves of a ratio of two small distances."""


ENVIRONMENTS: dict[str, Callable[[], Bandit]] = {
    "synthetic, ties": partial(synthetic, 8, 20, ties=True),
    "synthetic, distinct": partial(synthetic, 8, 20, ties=False),
    "synthetic, wide": partial(synthetic, 4, 200, ties=False),
    "two responses": partial(synthetic, 8, 2, ties=False),
    "digits": digits,
}


def total_variation(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    return np.sum(np.abs(np.exp(log_p) - np.exp(log_q)), axis=-1) / 2


def total_variation_off_top(log_p: np.ndarray, log_q: np.ndarray, reward: np.ndarray) -> np.ndarray:
    """Return the total variation of two policies that are proportional to each other on the best responses.

    Their differences there have one sign and the sum of those elsewhere, so the others give it: accurate
    far below the rounding of masses near one.
    """
    below = reward < reward.max(axis=-1, keepdims=True)
    d = np.where(below, np.exp(log_p) - np.exp(log_q), 0.0)
    return (np.sum(np.abs(d), axis=-1) + np.abs(np.sum(d, axis=-1))) / 2


# -- bon: where iterative best-of-n ends ---------------------------------------------------------------------

MIXES = [
    (1.5, 0.5, 0.1),
    (2, 0.3, 0),
    (2, 0.2, 0.4),
    (2.5, 0.25, 0.2),
    (4, 0.2, 0),
    (4, 0.1, 0.4),
    (8, 0.1, 0),
]
MIXES += [(8, 0.05, 0.5)]
"""``(n, alpha1, alpha2)``, all with ``n alpha1 + alpha2 < 1``."""

ATOM_BETA = 1.5


def bon_configs(scale: Scale) -> list[dict[str, Any]]:
    smoke = scale.smoke
    names = ["synthetic, ties", "digits"] if smoke else list(ENVIRONMENTS)
    mixes = MIXES[1:5:3] if smoke else MIXES
    sizes = [5, 50] if smoke else [5, 10, 20, 50, 100, 200, 500, 1000, 2000]
    identity = [{"part": "limit", "environment": name, "mix": list(mix)} for name in names for mix in mixes]
    return identity + [{"part": "atoms", "n": n, "responses": m} for n in (2, 4, 8) for m in sizes]


def bon_cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
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


def bon_report(table: pd.DataFrame) -> None:
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


# -- phase: contraction below the threshold, collapse beyond it ----------------------------------------------

MAP_N = 8
"""Draws in the map of two responses. The equilibrium reached depends on beta only; large n is faster."""


def phase_configs(scale: Scale) -> list[dict[str, Any]]:
    smoke = scale.smoke
    names = ["synthetic, ties", "two responses"] if smoke else list(ENVIRONMENTS)
    mixes = MIXES[:2] if smoke else MIXES
    betas = [0.3, 0.6, 1.2] if smoke else [round(b, 4) for b in np.linspace(0.04, 1.4, 35)]
    sizes = [10, 100] if smoke else [10, 30, 100, 300, 1000, 3000]
    cells = [{"part": "contraction", "environment": name, "mix": list(mix)} for name in names for mix in mixes]
    cells += [{"part": "map", "beta": beta, "points": 6 if smoke else 40} for beta in betas]
    cells += [
        {"part": "example", "mix": list(mix)} for mix in [(2, 2 / 3, 0), (2, 0.4, 0.4), (8, 2 / 9, 0), (3, 0.4, 0.2)]
    ]
    return cells + [{"part": "atomless", "responses": m, "points": 6 if smoke else 24} for m in sizes]


def phase_cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
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
            h = run.trace.hilbert_to_solution
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


def phase_report(table: pd.DataFrame) -> None:
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


# -- distance: the two games at small beta -------------------------------------------------------------------


def distance_configs(scale: Scale) -> list[dict[str, Any]]:
    smoke = scale.smoke
    names = ["synthetic, ties", "digits"] if smoke else list(ENVIRONMENTS)
    return [{"environment": name, "points": 7 if smoke else 29} for name in names]


def distance_cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    """Return the total variation between the two equilibria and its bound, over a range of beta."""
    bandit = ENVIRONMENTS[config["environment"]]()
    weak, half = (wg.RewardPreference(bandit.reward, ties=ties) for ties in ("weak", "half"))
    rows = []
    for beta in np.geomspace(2.0, 0.002, config["points"]):
        log_win_rate = wg.equilibrium(wg.LogWinRateGame(weak, bandit.ref, beta))
        win_rate = wg.equilibrium(wg.WinRateGame(half, bandit.ref, beta))
        distance = total_variation_off_top(log_win_rate.log_policy, win_rate.log_policy, bandit.reward)
        plain = total_variation(log_win_rate.log_policy, win_rate.log_policy)
        bound = bounds.equilibria_distance_bound(beta, bandit.top_mass)
        index = bounds.collapse_index(min(beta, 1.0), bandit.top_mass)
        rows.append(
            {
                "environment": bandit.name,
                "beta": float(beta),
                "contexts": len(bandit.ref),
                "proven_to_collapse": float(np.mean((index < 1) & (beta < 1))),
                "distance_median": float(np.median(distance)),
                "distance": float(distance.max()),
                "bound_median": float(np.median(bound)),
                "bound": float(np.max(bound)),
                "violations": int(np.sum(distance > bound * (1 + ROUNDING) + 1e-300)),
                "plain_error": float(np.abs(plain - distance).max()),
                "residual": float(max(log_win_rate.residual.max(), win_rate.residual.max())),
            }
        )
    return rows


def distance_report(table: pd.DataFrame) -> None:
    betas = np.sort(table.beta.unique())[:: max(1, table.beta.nunique() // 4)]
    shown = table[table.beta.isin(betas)]
    small = table[table.beta == table.beta.min()]
    show(
        "Log-win-rate (weak ties) against win-rate (half ties) equilibrium: total variation, worst context",
        shown[
            [
                "environment",
                "beta",
                "proven_to_collapse",
                "distance_median",
                "distance",
                "bound_median",
                "bound",
            ]
        ],
        f"{table.violations.sum()} violations of the bound in {table.contexts.sum()} pairs of equilibria; "
        f"at beta = {small.beta.iloc[0]:.3g} the worst distance is {small.distance.max():.2g}, the median "
        f"at most {small.distance_median.max():.2g}.",
    )


# -- rates: WIND and extragradient ---------------------------------------------------------------------------

MULTIPLES = (2, 8, 32, 128)


def _rate_game(name: str) -> tuple[wg.Preference, np.ndarray]:
    if name == "rock-paper-scissors":
        return rock_paper_scissors()
    bandit = digits(20) if name.startswith("digits") else ENVIRONMENTS["synthetic, ties"]()
    return preference(bandit, name.split(", ")[1]), bandit.ref


RATE_GAMES = ["digits, reward", *(f"synthetic, {kind}" for kind in PREFERENCES), "rock-paper-scissors"]


def rates_configs(scale: Scale) -> list[dict[str, Any]]:
    smoke = scale.smoke
    betas = [1.0, 0.3] if smoke else [1.0, 0.3, 0.1, 0.03]
    games = RATE_GAMES[1:] if smoke else RATE_GAMES
    limits = {"long": 300, "short": 60} if smoke else {"long": 8500, "short": 600}
    return [{"game": game, "beta": beta, **limits} for beta in betas[::-1] for game in games]


def rates_cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    """Run both rules at several steps; return rates, worst ratios to the bound, and a few curves."""
    beta = config["beta"]
    game = wg.WinRateGame(*_rate_game(config["game"]), beta)
    solution = wg.equilibrium(game, tol=1e-12)
    interaction = np.broadcast_to(game.preference.interaction, game.batch_shape)
    largest = {
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
    if inside and not np.allclose(trace.bound.reshape(bound.shape), bound):
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


def rates_report(table: pd.DataFrame) -> None:
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


# -- verify: a convex solver's opinion -----------------------------------------------------------------------


LOOSER = (1e-5, 1e-3, 1e-1)
"""Accuracies in total variation asked of the convex solver, one by one: at small beta it loses digits."""


def verify_configs(scale: Scale) -> list[dict[str, Any]]:
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


def verify_cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    """Solve each game again as a convex program, to the tightest accuracy that the solver can prove."""
    if "responses" in config:
        m, games = config["responses"], config["games"]
        bandit = Bandit("random", rng.normal(size=(games, m)), rng.dirichlet(np.ones(m), size=games))
        prefer, ref = preference(bandit, config["kind"], noise=rng), bandit.ref
    else:
        prefer, ref = _rate_game(config["kind"])
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


def verify_report(table: pd.DataFrame) -> None:
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


# -- all of them ---------------------------------------------------------------------------------------------

STUDIES = {
    "bon": Study(bon_configs, bon_cell, bon_report),
    "phase": Study(phase_configs, phase_cell, phase_report),
    "distance": Study(distance_configs, distance_cell, distance_report),
    "rates": Study(rates_configs, rates_cell, rates_report),
    "verify": Study(verify_configs, verify_cell, verify_report),
}

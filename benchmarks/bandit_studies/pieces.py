"""What the finite-time guarantee is made of, measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from environments import featured
from study import Rows, Scale, Study, show

import windgames as wg
from bandit_studies.learners import (
    DRAWS,
)
from windgames import bounds
from windgames._array import expectation, kl
from windgames.bandits import LabelledSamples, LogLinear, sample
from windgames.objectives import centred, implied_payoff, win_rates
from windgames.oracles import Oracle
from windgames.updates import Stage


def configs(scale: Scale) -> list[dict[str, Any]]:
    dims = (16,) if scale.smoke else (8, 32, 128)
    cells: list[dict[str, Any]] = [
        {"part": "sum", "dimension": d, "rounds": scale.pick(10, 60, 150), "groups": scale.pick(2, 16, 16)}
        for d in dims
    ]
    sizes = (20, 40) if scale.smoke else (20, 40, 80, 160, 320)
    return cells + [{"part": "generalise", "contexts": n, "trials": scale.pick(4, 60, 60)} for n in sizes]


def cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    return _sum_of_errors(config, rng) if config["part"] == "sum" else _generalisation(config, rng)


PIECES_BETA = 0.3


def _sample(
    game: wg.WinRateGame, policy: LogLinear, theta: np.ndarray, groups: int, rng: np.random.Generator
) -> list[LabelledSamples]:
    """Return groups of draws of every context with their labels, as `Regression` makes them."""
    oracle, out = Oracle(game.preference), []
    for _ in range(groups):
        y = sample(policy.log_policy(theta), DRAWS, rng)
        outcomes = oracle.compare(np.repeat(y, DRAWS, -1), np.tile(y, DRAWS), rng).reshape(*y.shape, DRAWS)
        out.append(LabelledSamples(slice(None), y, win_rates(outcomes, "group"), None, "group"))
    return out


def _stack(groups: list[LabelledSamples]) -> LabelledSamples:
    """Return groups as so many more contexts: each is centred by itself (theory 7.2)."""
    contexts = np.tile(np.arange(len(groups[0].y)), len(groups))
    return LabelledSamples(
        contexts, np.concatenate([s.y for s in groups]), np.concatenate([s.label for s in groups]), None, "group"
    )


def _sum_of_errors(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    """Run WIND on a log-linear class, splitting each step's error, and add the pieces up to a bound on the final KL."""
    bandit, beta = featured(20, 20, config["dimension"]), PIECES_BETA
    game = wg.WinRateGame(wg.RewardPreference(bandit.reward), bandit.ref, beta)
    policy = LogLinear(np.log(bandit.ref), bandit.features)
    star, eta = wg.equilibrium(game).log_policy, 2 * beta
    stage, theta, rows = Stage(beta, eta), policy.start(), []
    distance = kl(star, policy.log_policy(theta))
    exact_bound, coverage_bound = distance.copy(), distance.copy()
    for t in range(config["rounds"]):
        log_policy = policy.log_policy(theta)
        weight = np.exp(log_policy)
        w = game.payoff(log_policy)
        every = np.broadcast_to(np.arange(w.shape[-1]), w.shape)
        population = LabelledSamples(slice(None), every, w, weight, "independent")
        ideal = policy.least_squares(theta, population, theta, stage)
        seen = _stack(_sample(game, policy, theta, config["groups"], rng))
        new = policy.least_squares(theta, seen, theta, stage)

        def error(x: np.ndarray, lp: np.ndarray = log_policy, u: np.ndarray = w) -> np.ndarray:
            """Return the payoff's error that this step amounts to, of mean zero under the policy."""
            s = implied_payoff(policy.log_policy(x), lp, game.log_ref, beta=beta, eta=eta) - u
            return s - expectation(lp, s)[..., None]

        e, real = error(new), error(ideal)
        after = policy.log_policy(new)
        cross = expectation(after, e) - expectation(np.broadcast_to(star, e.shape), e)
        rms = np.sqrt(expectation(log_policy, e**2))
        cover = np.maximum(*(np.sum(np.exp(2 * q - log_policy), axis=-1) for q in (star, after)))
        exact_bound = (exact_bound + eta * np.maximum(cross, 0)) / (1 + beta * eta)
        coverage_bound = (coverage_bound + 2 * eta * np.sqrt(cover) * rms) / (1 + beta * eta)
        theta = new
        distance = kl(star, policy.log_policy(theta))
        if t % max(1, config["rounds"] // 30) == 0 or t == config["rounds"] - 1:
            rows.append(
                {
                    "part": "sum",
                    "dimension": config["dimension"],
                    "round": t + 1,
                    "kl": float(distance.mean()),
                    "realisability": float(np.sqrt(expectation(log_policy, real**2)).mean()),
                    "estimation": float(np.sqrt(expectation(log_policy, (e - real) ** 2)).mean()),
                    "concentrability": float(np.median(cover)),
                    "bound_exact_cross": float(exact_bound.mean()),
                    "bound_coverage": float(coverage_bound.mean()),
                }
            )
    return rows


def _generalisation(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    """Measure the gap between a step's risk on fresh contexts and on its own, beside the bound of theory 7.9."""
    n, beta, d = config["contexts"], PIECES_BETA, 8
    gaps, curvatures, slopes = [], [], []
    whole = featured(4000, 20, d)
    eta = 2 * beta
    stage, scale = Stage(beta, eta), 1 / eta + beta
    for _ in range(config["trials"]):
        at = rng.choice(4000, size=2 * n, replace=False)
        mine, fresh = (whole.part(at[:n]), whole.part(at[n:]))
        theta = np.zeros(d)
        samples, designs = [], []
        for b in (mine, fresh):
            game = wg.WinRateGame(wg.RewardPreference(b.reward), b.ref, beta)
            policy = LogLinear(np.log(b.ref), b.features)
            seen = _sample(game, policy, theta, 1, rng)[0]
            samples.append((policy, game, seen))
            designs.append(policy.design(seen) * scale)
        found = samples[0][0].least_squares(theta, samples[0][2], theta, stage)

        def losses(k: int, x: np.ndarray, parts: list[Any] = samples) -> tuple[np.ndarray, np.ndarray]:
            policy, game, seen = parts[k]
            lp, start = policy.log_policy(x), policy.log_policy(np.zeros(d))
            raw = implied_payoff(lp, start, game.log_ref, beta=beta, eta=eta)
            r = centred(np.take_along_axis(raw, seen.y, -1), "group") - seen.label
            return np.mean(r**2, axis=-1) / 2, r

        own, residual = losses(0, found)
        other, fresh_residual = losses(1, found)
        gaps.append(other.mean() - own.mean())
        hessian = np.einsum("cki,ckj->ij", designs[0], designs[0]) / (n * DRAWS)
        eigen = np.linalg.eigvalsh(hessian)
        curvatures.append(eigen[eigen > 1e-9 * eigen[-1]][0])
        gradients = [
            np.einsum("cki,ck->ci", x, r) / DRAWS for x, r in zip(designs, (residual, fresh_residual), strict=True)
        ]
        slopes.append(max(np.linalg.norm(g, axis=-1).max() for g in gradients))
    mu, G = float(np.min(curvatures)), float(np.max(slopes))
    return [
        {
            "part": "generalise",
            "contexts": n,
            "gap": float(np.mean(gaps)),
            "gap_error": float(np.std(gaps) / np.sqrt(len(gaps))),
            "curvature": mu,
            "lipschitz": G,
            "bound": float(bounds.stability_bound(G, mu, n)),
        }
    ]


def report(table: pd.DataFrame) -> None:
    last = table[table.part == "sum"].groupby("dimension").tail(1)
    exact = last.bound_exact_cross / last.kl
    larger = int((last.realisability > last.estimation).sum())
    show(
        f"What a step's error is made of (root mean squares), and what the errors add up to (beta = {PIECES_BETA:g})",
        last[
            [
                "dimension",
                "round",
                "realisability",
                "estimation",
                "concentrability",
                "kl",
                "bound_exact_cross",
                "bound_coverage",
            ]
        ],
        f"Realisability is the larger part of the error in {larger} of {len(last)} classes. "
        f"With the errors as they were, theory 5.2 bounds the final KL by {exact.min():.2g} to {exact.max():.2g} times "
        f"its value; with coverage and root mean squares (theory 7.8) the bound is "
        f"{(last.bound_coverage / last.kl).min():.2g} to {(last.bound_coverage / last.kl).max():.2g} times too large.",
    )
    rows = table[table.part == "generalise"].sort_values("contexts")
    held = int((rows.gap - 3 * rows.gap_error <= rows.bound).sum())
    slope = np.polyfit(np.log(rows.contexts), np.log(np.maximum(rows.gap, 1e-12)), 1)[0]
    show(
        "Generalisation of one step: risk on fresh contexts minus own risk, beside the stability bound (theory 7.9)",
        rows[["contexts", "gap", "gap_error", "curvature", "lipschitz", "bound"]],
        f"The gap falls as n^{slope:.2f}; the bound holds in {held} of {len(rows)} sizes and is "
        f"{(rows.bound / rows.gap).min():.2g} times the gap or more.",
    )


STUDY = Study(configs, cell, report, "Which parts of the finite-time guarantee are sharp?", minutes=(0.4, 0.6))

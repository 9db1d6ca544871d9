"""Log-linear policies on contexts that were never drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from environments import Bandit, digits, featured
from study import Rows, Scale, Study, show

import windgames as wg
from bandit_studies.learners import (
    DRAWS,
    interval,
)
from windgames._array import expectation, kl
from windgames.bandits import LogLinear, Regression, run
from windgames.oracles import Oracle

UNSEEN_RISKS = ("squared", "kl", "nce", "constant")


def configs(scale: Scale) -> list[dict[str, Any]]:
    sizes = (10, 40) if scale.smoke else (10, 20, 40, 80, 160)
    worlds = scale.pick(("featured",), ("featured", "digits"), ("featured", "digits"))
    rounds = scale.pick(8, 40, 60)
    cells = [
        {"world": w, "contexts": n, "risk": "squared", "rounds": rounds, "seeds": scale.pick(2, 4, 10)}
        for w in worlds
        for n in sizes
    ]
    cells += [
        {"world": "featured", "contexts": 40, "risk": r, "rounds": rounds, "seeds": scale.pick(2, 4, 10)}
        for r in UNSEEN_RISKS[1:]
    ]
    return cells


def _split(name: str, n: int) -> tuple[Bandit, Bandit]:
    """Return contexts to learn on, and others."""
    if name == "digits":
        whole = digits(400)
        return whole.part(slice(0, n)), whole.part(slice(200, 400))
    whole = featured(400, 20, 32)
    return whole.part(slice(0, n)), whole.part(slice(200, 400))


def cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    beta = 0.2
    seen, other = _split(config["world"], config["contexts"])
    games = [wg.WinRateGame(wg.RewardPreference(b.reward), b.ref, beta) for b in (seen, other)]
    stars = [wg.equilibrium(game).log_policy for game in games]
    policies = [LogLinear(np.log(b.ref), b.features, ridge=1e-3) for b in (seen, other)]
    constant = config["risk"] == "constant"
    learner: Any = Regression(
        wg.wind(beta),
        draws=DRAWS,
        pairing="constant" if constant else "group",
        risk="squared" if constant else config["risk"],
    )
    found = run(
        learner,
        games[0],
        Oracle(games[0].preference),
        rng,
        rounds=config["rounds"],
        solution=stars[0],
        policy=policies[0],
        replicates=config["seeds"],
        records=20,
    )
    rows = []
    for part, game, policy, star in zip(("seen", "unseen"), games, policies, stars, strict=True):
        log_policy = policy.log_policy(found.theta)
        distance = kl(np.broadcast_to(star, log_policy.shape), log_policy).mean(axis=-1)
        rate = expectation(log_policy, np.broadcast_to(game.preference.win_rate(game.log_ref), log_policy.shape)).mean(
            axis=-1
        )
        middle, low, high = interval(distance)
        rows.append(
            {k: config[k] for k in ("world", "contexts", "risk", "rounds", "seeds")}
            | {
                "part": part,
                "kl": middle,
                "kl_low": low,
                "kl_high": high,
                "kl_start": float(kl(star, game.log_ref).mean()),
                "kl_best": float(kl(star, policy.log_policy(_nearest(policy, star))).mean()),
                "win_rate": float(np.median(rate)),
                "queries": float(found.queries[-1]),
            }
        )
    return rows


def _nearest(policy: LogLinear, star: np.ndarray) -> np.ndarray:
    """Return the parameters of the class that minimise the divergence from the equilibrium on its contexts."""
    from scipy.optimize import minimize

    n = len(star)

    def value(theta: np.ndarray) -> tuple[float, np.ndarray]:
        log_policy = policy.log_policy(theta)
        slope = np.einsum("cm,cmd->d", np.exp(log_policy) - np.exp(star), policy.features) / n
        return float(kl(star, log_policy).mean()) + 1e-6 * theta @ theta, slope + 2e-6 * theta

    return minimize(value, policy.start(), jac=True, method="L-BFGS-B", options={"maxiter": 2000}).x


def report(table: pd.DataFrame) -> None:
    rows = table[table.risk == "squared"]
    shown = rows.pivot_table(
        index=["world", "contexts"], columns="part", values=["kl", "kl_best", "win_rate"], sort=False
    )
    shown.columns = [f"{a}, {b}" for a, b in shown.columns]
    last = rows[(rows.contexts == rows.contexts.max()) & (rows.part == "unseen")]
    show(
        "Log-linear policies: KL(pi*||pi) on contexts drawn, and on 200 others (kl_best: the class at its best)",
        shown.reset_index(),
        "On contexts never drawn, with the most to learn from: "
        + "; ".join(f"{r.world} {r.kl_start:.3g} -> {r.kl:.3g}, win rate {r.win_rate:.3f}" for r in last.itertuples())
        + ".",
    )
    risks = table[(table.world == "featured") & (table.contexts == 40) & (table.part == "seen")]
    shown, centred_risks = risks[["risk", "rounds", "kl", "kl_best", "win_rate"]], risks[risks.risk != "constant"]
    show(
        "The three risks, and the constant normaliser, on the same class (40 contexts)",
        shown,
        f"Squared, KL and NCE end within {np.ptp(centred_risks.kl):.2g} of each other; "
        f"the constant normaliser at {risks[risks.risk == 'constant'].kl.iloc[0]:.3g}.",
    )


STUDY = Study(configs, cell, report, "Does what is learned carry over to contexts never drawn?", minutes=(0.5, 1.2))

"""When does self-play matter? RLHF on the reference's win rates, policy gradients and WIND, from rewards to a circle.

Everything is exact: REINFORCE's mean step is ascent of the logits on the win rates of the policy itself, minus beta
times the log-ratio to the reference.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from study import Rows, Scale, Study, show

import windgames as wg
from windgames import bounds

BETA = 0.05
REFERENCE = np.array([0.7, 0.2, 0.1])
REWARD = np.array([-0.25, 0.25, 0.0])
CIRCLE = np.array([[0.0, -0.5, 0.5], [0.5, 0.0, -0.5], [-0.5, 0.5, 0.0]])
"""Rock-paper-scissors, less one half."""
RATES = (1.0, 3.0, 10.0, 30.0)
"""Step sizes of REINFORCE; 30 is the best of them on differences of rewards."""
REACHED = 1e-3


def configs(scale: Scale) -> list[dict[str, Any]]:
    shares = np.linspace(0, 1, scale.pick(3, 5, 11))
    return [{"share": round(float(s), 4), "rounds": scale.pick(300, 1000, 2000)} for s in shares]


def cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    """Return distances to the equilibrium where this share of the preference is a circle, the rest a reward's."""
    share, rounds = config["share"], config["rounds"]
    P = np.clip(0.5 + (1 - share) * (REWARD[:, None] - REWARD) + share * CIRCLE, 0, 1)
    game = wg.WinRateGame(wg.MatrixPreference(P), REFERENCE, BETA)
    star, L = wg.equilibrium(game), float(game.interaction)
    one = game.best_response(game.log_ref)
    ends = {"share": share, "interaction": L, "part": "end"}
    # theory 2.9, with 1.3
    bound = bounds.one_step_bound(wg.kl(game.log_ref, one), BETA, L)
    rows = [
        ends
        | {
            "method": "RLHF",
            "kl": float(wg.kl(star.log_policy, one)),
            "gap": float(game.gap(one)),
            "bound": float(bounds.kl_from_hilbert(bound)),
        }
    ]
    eta = float(min(bounds.wind_max_step(BETA, L), 100.0))
    runs = [("WIND", eta, _wind(game, eta, rounds))]
    runs += [("REINFORCE", rate, _ascent(game, rate, rounds)) for rate in RATES]
    for method, step, policies in runs:
        kl = wg.kl(np.broadcast_to(star.log_policy, policies.shape), policies)
        below = np.flatnonzero(kl > REACHED)
        first = int(below[-1]) + 1 if len(below) else 0
        rows.append(
            ends
            | {"method": method, "step": step, "kl": float(kl[-1]), "gap": float(game.gap(policies[-1]))}
            | {"rounds": float(first) if first < len(kl) else np.nan}
        )
        if share in (0.0, 1.0):
            at = np.unique(np.append(0, np.geomspace(1, rounds, 120).astype(int)))
            rows += [
                {"share": share, "interaction": L, "part": "curve", "method": method, "step": step}
                | {"round": int(t), "kl": max(float(kl[t]), 1e-12)}
                for t in at
            ]
    return rows


def _wind(game: wg.WinRateGame, eta: float, rounds: int) -> np.ndarray:
    trace = wg.solve(game, wg.wind(eta), tol=0, max_steps=rounds, record_policies=True).trace
    assert trace is not None
    assert trace.log_policies is not None
    return trace.log_policies


def _ascent(game: wg.WinRateGame, rate: float, rounds: int) -> np.ndarray:
    P, logits, trail = np.asarray(game.preference.matrix()), game.log_ref, []
    for _ in range(rounds + 1):
        trail.append(wg.log_normalize(logits))
        policy = np.exp(trail[-1])
        advantage = P @ policy - BETA * (trail[-1] - game.log_ref)
        logits = logits + rate * policy * (advantage - policy @ advantage)
    return np.array(trail)


def report(table: pd.DataFrame) -> None:
    ends = table[table.part == "end"]
    shown = ends[ends.share.isin([0.0, 1.0])][["share", "interaction", "method", "step", "rounds", "kl", "gap"]]
    rlhf = ends[ends.method == "RLHF"]
    show(
        f"Rounds until KL(pi*||pi) stays below {REACHED:g}, and where each method ends",
        shown,
        f"RLHF on the reference's win rates ends within {rlhf[rlhf.share == 0].kl.max():.1g} of the equilibrium of a "
        f"reward and at {rlhf[rlhf.share == 1].kl.max():.2f} from that of the circle; largest share of its bound: "
        f"{(rlhf.kl / rlhf.bound.clip(1e-12))[rlhf.bound > 1e-9].max():.2f} (theory 2.9).",
    )


STUDY = Study(configs, cell, report, "When does self-play matter?", minutes=(0.2, 0.6))

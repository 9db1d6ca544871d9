"""True win rate under label flips and under a judge with systematic errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from study import Rows, Scale, Study, show

import windgames as wg
from bandit_studies.learners import (
    BETA,
    GENTLE,
    LEARNERS,
    equilibrium,
    interval,
    world,
)
from windgames._array import expectation
from windgames.bandits import run
from windgames.oracles import Oracle, biased_reward, flipped

FLIPS = (0.0, 0.1, 0.2, 0.3, 0.4)
BIASES = (0.0, 0.1, 0.25, 0.5)
CORRECTED = "WIND, beta (1 - 2q)"
"""WIND on all responses with the price that makes up for flips of known probability (theory 7.10)."""
ROBUST = (
    "WIND",
    "WIND, all responses",
    CORRECTED,
    "Nash-MD",
    "SPPO",
    "J-BOND",
    "best-of-n distillation",
    "REINFORCE, self-play",
)


def configs(scale: Scale) -> list[dict[str, Any]]:
    total = scale.pick(20_000, 300_000, 1_000_000)  # forty contexts
    names = ROBUST[::3] if scale.smoke else ROBUST
    worlds = scale.pick(("forty contexts",), ("forty contexts",), ("forty contexts", "digits"))
    kinds = [("flip", x) for x in (FLIPS[::2] if scale.smoke else FLIPS)]
    kinds += [("bias", x) for x in (BIASES[::3] if scale.smoke else BIASES)]
    return [
        {"world": w, "learner": name, "kind": kind, "level": x, "queries": total, "seeds": scale.seeds}
        for w in worlds
        for name in names
        for kind, x in kinds
        if not (name == CORRECTED and kind == "bias")
    ]


def cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    here = world(config["world"])
    assert here.weak is not None
    reward = here.weak.reward
    if config["kind"] == "flip":
        asked: wg.Preference = flipped(here.game.preference, config["level"])
        if config["level"] == 0:
            asked = here.game.preference
    else:  # every learner and seed meets the same systematic errors, other ones in each context
        size = 2 * float(np.std(reward))
        asked = wg.RewardPreference(biased_reward(reward, config["level"], size, np.random.default_rng(7)))
    name, beta = config["learner"], BETA
    if name == CORRECTED:
        name, beta = "WIND, all responses", BETA * (1 - 2 * config["level"])
    learner, game = (
        LEARNERS[name][0](beta, GENTLE[name] * (BETA / beta)),
        wg.WinRateGame(here.game.preference, here.game.ref, beta),
    )
    found = run(
        learner,
        game,
        Oracle(asked),
        rng,
        evaluation_game=here.game,
        solution=equilibrium(config["world"]),
        queries=config["queries"],
        replicates=config["seeds"],
        records=10,
    )
    target = wg.equilibrium(wg.WinRateGame(asked, here.game.ref, BETA)).log_policy
    against_ref = here.game.preference.win_rate(here.game.log_ref)
    middle, low, high = interval(found.mean("win_rate")[-1])
    return [
        {k: config[k] for k in ("world", "learner", "kind", "level", "seeds")}
        | {
            "win_rate": middle,
            "low": low,
            "high": high,
            "kl_ref": float(np.median(found.mean("kl_ref")[-1])),
            "kl_true": float(np.median(found.mean("kl_from_solution")[-1])),
            "judge_equilibrium": float(expectation(target, against_ref).mean()),
            "true_equilibrium": float(expectation(equilibrium(config["world"]).log_policy, against_ref).mean()),
        }
    ]


def report(table: pd.DataFrame) -> None:
    for kind, words in (("flip", "probability of a flipped answer"), ("bias", "share of responses judged too well")):
        rows = table[(table.kind == kind) & (table.world == table.world.iloc[0])]
        shown = rows.pivot_table(index="learner", columns="level", values="win_rate", sort=False)
        shown.columns = [f"{c:g}" for c in shown.columns]
        worst = rows[rows.level == rows.level.max()].sort_values("win_rate")
        low, high = worst.iloc[0], worst.iloc[-1]
        judge = rows.groupby("level").judge_equilibrium.first()
        show(
            f"True win rate against the reference, by {words} (world: {table.world.iloc[0]})",
            shown.reset_index(),
            f"At {rows.level.max():g} it is {low.win_rate:.3f} ({low.learner}) to {high.win_rate:.3f} "
            f"({high.learner}); the judge's own equilibrium has {judge.iloc[-1]:.3f}, the true one "
            f"{rows.true_equilibrium.iloc[0]:.3f}.",
        )


STUDY = Study(configs, cell, report, "What is left of the true win rate when answers are wrong?", minutes=(0.5, 3.5))

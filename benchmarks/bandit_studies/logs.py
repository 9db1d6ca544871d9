"""The log of an estimated win rate (iterative BOND) against the win rate itself (WIND)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from study import Rows, Scale, Study, show

import windgames as wg
from bandit_studies.learners import (
    interval,
    world,
)
from windgames import bounds
from windgames.bandits import Regression, run
from windgames.objectives import win_rates

LOG_RATES = (0.02, 0.1, 0.5, 0.9)
LOG_BETA = 1.5


def configs(scale: Scale) -> list[dict[str, Any]]:
    counts = (2, 16) if scale.smoke else (1, 2, 4, 8, 16, 32, 64, 128)
    cells: list[dict[str, Any]] = [
        {"part": "estimate", "opponents": k, "trials": scale.pick(2000, 20_000, 100_000)} for k in counts
    ]
    return cells + [
        {
            "part": "equilibrium",
            "learner": name,
            "opponents": k,
            "rounds": scale.pick(300, 2000, 8000),
            "seeds": scale.seeds,
        }
        for name in ("WIND", "iterative BOND")
        for k in counts
    ]


def cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    k = config["opponents"]
    if config["part"] == "estimate":
        rows = []
        for w in LOG_RATES:  # what the learners make of k answers of mean w
            answers = (rng.random((config["trials"], 1, k)) < w).astype(float)
            rate = win_rates(answers, "independent")[:, 0]
            logs = np.log((rate * k + 1) / (k + 1))
            bias, deviation = bounds.log_win_rate_error(w, k)
            rows.append(
                {
                    "part": "estimate",
                    "opponents": k,
                    "rate": w,
                    "bias": float(rate.mean() - w),
                    "deviation": float(rate.std()),
                    "log_bias": float(logs.mean() - np.log(w)),
                    "log_deviation": float(logs.std()),
                    "log_bias_exact": float(bias),
                    "log_deviation_exact": float(deviation),
                }
            )
        return rows
    # the same beta, each learner towards the equilibrium of its own game
    here = world("reward", LOG_BETA)
    if config["learner"] == "WIND":
        game: wg.Game = here.game
        rule: Any = wg.wind(0.05)
    else:
        assert here.weak is not None
        n = 1.1  # eta = (n - 1): small steps average the noise out, and leave the bias
        mix = (n, 1 / (1 + LOG_BETA * (n - 1)))
        game, rule = wg.LogWinRateGame.from_best_of_n(here.weak, here.game.ref, *mix), wg.iterative_bon(*mix)
    learner: Any = Regression(rule, sampler="all", opponents=k)
    found = run(learner, game, here.oracle(), rng, rounds=config["rounds"], replicates=config["seeds"], records=60)
    middle, low, high = interval(found.mean("kl_from_solution")[-8:].mean(axis=0))
    start = float(found.mean("kl_from_solution")[0].mean())
    return [
        {
            "part": "equilibrium",
            "learner": config["learner"],
            "opponents": k,
            "kl": middle,
            "kl_low": low,
            "kl_high": high,
            "kl_start": start,
        }
    ]


def report(table: pd.DataFrame) -> None:
    rows = table[table.part == "estimate"]
    shown = rows[rows.rate.isin(LOG_RATES[::2])][
        ["opponents", "rate", "bias", "log_bias", "log_bias_exact", "log_deviation"]
    ]
    end = table[table.part == "equilibrium"].pivot_table(index="opponents", columns="learner", values="kl", sort=False)
    bond, wind = end["iterative BOND"], end["WIND"]
    show(
        "A win rate estimated from K comparisons, and its logarithm: bias",
        shown.rename(columns={"opponents": "K"}),
        f"The log's bias is largest at K = {int(rows.opponents.min())}: {rows.log_bias.max():.2f} at a win rate of "
        f"{rows.loc[rows.log_bias.idxmax(), 'rate']:g}; the exact sum (theory 7.6) differs from the measured one by at "
        f"most {(rows.log_bias - rows.log_bias_exact).abs().max():.3f}. The win rate's own bias is at most "
        f"{rows.bias.abs().max():.3f}.",
    )
    show(
        f"KL from the learner's own equilibrium after learning with K opponents (beta = {LOG_BETA:g})",
        end.reset_index().rename(columns={"opponents": "K"}),
        f"From {int(end.index.min())} to {int(end.index.max())} opponents iterative BOND's distance falls from "
        f"{bond.iloc[0]:.2g} to {bond.iloc[-1]:.2g}: a bias, which more rounds do not mend; WIND's from "
        f"{wind.iloc[0]:.2g} to {wind.iloc[-1]:.2g}: noise.",
    )


STUDY = Study(configs, cell, report, "What does it cost to estimate a logarithm of a win rate?", minutes=(0.6, 3.5))

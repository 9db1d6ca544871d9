"""Every method with the standard settings, slower ones, and a summary of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch
from study import Rows, show, write_table

import windgames as wg
from lm_studies.settings import Config, grid
from lm_studies.task import BETA, ETA, INTERACTION, JUDGES, Task, layout, run
from windlm import BestOfN, JBond, Regression, bond, sppo, wind
from windlm.objectives import Objective

COMPARED = ("WIND", "SPPO", "J-BOND")
"""The methods of the paper's claim."""
VARIANTS: dict[str, list[dict[str, float]]] = {
    "SPPO": [{"learning_rate": 2e-4}, {"learning_rate": 2e-4, "share": 0.25}],
    "J-BOND": [{"learning_rate": 2e-4}],
    "iterative BOND": [{"learning_rate": 2e-4}],
    "best-of-n, likelihood": [{"learning_rate": 2e-4}],
}
"""Other settings: methods that pass the equilibrium by come nearer when they are slower. No other method is tuned."""
LEVELS = (0.5, 0.2, 0.1, 0.05)

METHODS: dict[str, Callable[..., Objective]] = {
    "WIND": lambda judge: wind(BETA, ETA[judge]),
    "WIND, KL risk": lambda judge: wind(BETA, ETA[judge], risk="kl"),
    "WIND, NCE risk": lambda judge: wind(BETA, ETA[judge], risk="nce"),
    "extragradient": lambda judge: Regression(wg.extragradient(), BETA, interaction=INTERACTION[judge]),
    "SPPO": lambda judge, share=1.0: sppo(share * ETA[judge]),
    "J-BOND": lambda judge: JBond(),
    "iterative BOND": lambda judge: bond(2),
    "best-of-n, likelihood": lambda judge: BestOfN(2),
}


def run_method(cell: dict[str, Any], rng: np.random.Generator) -> Rows:
    torch.set_num_threads(1)
    task = Task(cell["judge"], cell["seed"], cell["smoke"])
    changes = dict(cell["changes"])
    objective = METHODS[cell["method"]](cell["judge"], **{k: changes.pop(k) for k in ("share",) if k in changes})
    settings = layout(cell["method"], cell["rounds"]) | changes | {"seed": cell["seed"]}
    rows = run(task, objective, 20, settings)
    variant = ", ".join(f"{k} {v:g}" for k, v in cell["changes"].items()) or "standard"
    keys = {k: cell[k] for k in ("judge", "method", "seed")} | {"variant": variant}
    return [keys | row | {"fraction": row["kl_from_solution"] / rows[0]["kl_from_solution"]} for row in rows]


def tokens_to(rows: pd.DataFrame, fraction: float) -> float:
    """Return the tokens after which the divergence first was at most this fraction of the initial one."""
    reached = rows[rows.fraction <= fraction]
    return float(reached.tokens.iloc[0]) if len(reached) else np.nan


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per judge and method: where it ends, how near it ever comes, and what WIND needs to come as near.

    A method with variants ends as the variant that ends best, comes as near as the one that comes nearest, and reaches
    a level as the quickest that does on all its seeds; WIND's tokens to a level are compared on the same seeds.
    """
    out = []
    for (judge, method), rows in table.groupby(["judge", "method"], sort=False):
        variants = {
            name: [run for _, run in part.groupby("seed")] for name, part in rows.groupby("variant", sort=False)
        }
        ends = {name: np.array([run.fraction.iloc[-1] for run in runs]) for name, runs in variants.items()}
        nearest = {name: np.array([run.fraction.min() for run in runs]) for name, runs in variants.items()}
        final, near = min(ends, key=lambda v: ends[v].mean()), min(nearest, key=lambda v: nearest[v].mean())
        last = pd.concat([run.iloc[[-1]] for run in variants[final]])
        best = [run.loc[run.fraction.idxmin()] for run in variants[near]]
        wind_runs = table[(table.judge == judge) & (table.method == "WIND")]
        ratios = [
            tokens_to(wind_runs[wind_runs.seed == top.seed], top.fraction) / top.tokens if top.tokens else np.nan
            for top in best
        ]
        levels: dict[str, Any] = {}
        for level in LEVELS:
            taken = {name: np.mean([tokens_to(run, level) for run in runs]) for name, runs in variants.items()}
            quick = min(taken, key=lambda v: (np.isnan(taken[v]), taken[v]))
            same = wind_runs[wind_runs.seed.isin([run.seed.iloc[0] for run in variants[quick]])]
            needed = np.mean([tokens_to(run, level) for _, run in same.groupby("seed")])
            levels |= {f"tokens_to_{level:g}": taken[quick], f"wind_ratio_to_{level:g}": needed / taken[quick]}
        out.append(
            {
                "judge": judge,
                "method": method,
                "seeds": len(ends[final]),
                "final_variant": final,
                "initial_kl": np.mean([run.kl_from_solution.iloc[0] for run in variants[final]]),
                "final_kl": last.kl_from_solution.mean(),
                "final_fraction": ends[final].mean(),
                "final_lowest": ends[final].min(),
                "final_highest": ends[final].max(),
                "nearest_variant": near,
                "nearest": nearest[near].mean(),
                "nearest_lowest": nearest[near].min(),
                "nearest_highest": nearest[near].max(),
                "nearest_tokens": np.mean([top.tokens for top in best]),
                "wind_tokens_ratio": np.mean(ratios),
                "final_gap": last.gap.mean(),
                "kl_to_ref": last.kl_to_ref.mean(),
                "tokens": last.tokens.mean(),
                "seconds": last.seconds.mean(),
            }
            | levels
        )
    return pd.DataFrame(out)


def cells(
    config: Config, seeds: Mapping[str, int], variants: Mapping[str, list[dict[str, float]]]
) -> list[dict[str, Any]]:
    """Return the grid: seeds first, so that a run that is stopped has some of everything."""
    judges = JUDGES[::2] if config.smoke else JUDGES
    return [
        {"judge": judge, "method": method, "changes": changes, "seed": config.seed + seed}
        | {"rounds": config.rounds, "smoke": config.smoke}
        for seed in range(max(seeds.values()))
        for judge in judges
        for method in METHODS
        for changes in variants.get(method, [])
        if seed < seeds[method]
    ]


def ordered(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values(["judge", "method"], key=lambda c: c.map([*JUDGES, *METHODS].index), kind="stable")


def methods(config: Config, started: float) -> None:
    """Every method with the standard settings."""
    seeds = {method: 1 if not config.full else 3 if method in COMPARED else 2 for method in METHODS}
    grid_of = cells(config, seeds, {method: [{}] for method in METHODS})
    table = ordered(grid("lm_methods", grid_of, run_method, config))
    write_table(table, "lm_methods", config.folder, asdict(config), started)


def slower(config: Config, started: float) -> None:
    """Other settings, one seed."""
    chosen = VARIANTS if config.full else {"SPPO": VARIANTS["SPPO"][:1]}
    table = ordered(grid("lm_slower", cells(config, dict.fromkeys(METHODS, 1), chosen), run_method, config))
    write_table(table, "lm_slower", config.folder, asdict(config), started)


def summary(config: Config, started: float) -> None:
    """Say what the two tables show together."""
    parts = [pd.read_csv(config.folder / f"lm_{name}.csv") for name in ("methods", "slower")]
    parts[0]["variant"] = "standard"
    found = summarise(ordered(pd.concat(parts)))
    write_table(found, "lm_summary", config.folder, asdict(config), started)
    columns = ["judge", "method", "final_fraction", "final_lowest", "final_highest", "nearest", "nearest_tokens"]
    columns += ["wind_tokens_ratio", "tokens_to_0.5", "wind_ratio_to_0.5", "tokens_to_0.05", "kl_to_ref"]
    ours, others = found[found.method == "WIND"], found[found.method.isin(["SPPO", "J-BOND"])]
    said = ", ".join(
        f"{r.wind_tokens_ratio:.2f} ({r.method}, {r.judge}, to {r.nearest:.0%})" for r in others.itertuples()
    )
    show(
        "KL(pi*||pi) of trained transformers, as a fraction of the initial one",
        found[columns],
        f"WIND ends at {ours.final_fraction.min():.1%} to {ours.final_fraction.max():.1%} of the initial divergence. "
        f"To come as near as the others ever do it takes, of their tokens: {said}.",
    )

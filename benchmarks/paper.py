"""The paper's language-model experiment at the size of two CPU cores, on real data.

    python benchmarks/paper.py --data FOLDER            half an hour: small judges, two methods, few questions
    python benchmarks/paper.py --data FOLDER --full     the committed tables: hours, resumable
    python benchmarks/paper.py --data FOLDER --parts train grade --runs WIND SPPO --seeds 1 2 --full

SmolLM2-135M-Instruct answers questions of HH-RLHF and UltraFeedback. A *gold* and a *proxy* reward model are fitted to
disjoint halves of the labelled pairs; the proxy judges the training, and the gold one grades what comes of it. FOLDER
holds local copies of the data sets: hh_rlhf/helpful-base/test.jsonl.gz and so on, ultrafeedback_binarized/, gsm8k/,
hellaswag/, mmlu/, pandalm/, llmbar/, hhh_alignment/; what is not there is left out, and said so. Every part keeps what
it has done in the work folder and goes on from there.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads are erratic on small machines
os.environ.setdefault("KMP_BLOCKTIME", "0")

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import pandas as pd
import tyro
from align import SMOLLM, weights
from paper_studies import benchmarks, corpus, grading, judges, training
from study import QUICK, RESULTS, show, write_table

from windlm.allocator import keep_freed_memory

Part = Literal["judges", "train", "grade", "benchmarks"]
PARTS: tuple[Part, ...] = ("judges", "train", "grade", "benchmarks")


@dataclass(frozen=True)
class Config:
    """What to run."""

    data: Path
    """Folder of the data sets."""
    work: Path | None = None
    """Folder of models, runs and draws; None for benchmarks/quick/paper, with --full paper-full."""
    parts: tuple[Part, ...] = PARTS
    """Parts to do, in this order."""
    runs: tuple[str, ...] = ("WIND", "SPPO")
    """Names of the training runs."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the runs."""
    tasks: tuple[Literal["hellaswag", "mmlu", "gsm8k"], ...] = ("hellaswag",)
    """Benchmarks: hellaswag, mmlu, gsm8k."""
    model: str | None = None
    """Folder of the model; None for that of the installed package."""
    smoke: bool = False
    """The smallest size, for tests."""
    full: bool = False
    """The size of the committed tables."""
    results: Path | None = None
    """Output folder of the tables; None for benchmarks/quick, with --full the committed ones."""

    def __post_init__(self) -> None:
        for name in self.runs:
            if name not in training.RUNS:
                raise SystemExit(f"There is no run {name!r}; there are {', '.join(map(repr, training.RUNS))}.")


def size_of(config: Config) -> training.Size:
    """Return how large the runs are."""
    size = training.Size()
    if config.full:
        return size
    if config.smoke:
        return training.Size(2, 2, 4, 4, 1, held_out=2, held_draws=2, every=1, learning_rate=1e-2, longest_prompt=200)
    return replace(size, rounds=4, held_out=24, every=4)


def main(config: Config) -> None:
    keep_freed_memory()
    results = config.results or (RESULTS if config.full else QUICK)
    work = config.work or QUICK / ("paper-full" if config.full else "paper")
    work.mkdir(parents=True, exist_ok=True)
    results.mkdir(parents=True, exist_ok=True)
    model, size, smoke = config.model or str(weights(SMOLLM)), size_of(config), config.smoke
    told = asdict(replace(config, data=Path("data"), work=None, model=None, results=None)) | {"size": asdict(size)}
    counts = corpus.write(config.data, work)
    print("Pairs and prompts: " + ", ".join(f"{count} {name}" for name, count in counts.items()), flush=True)

    def save(rows: list[dict[str, object]], name: str, begun: float) -> pd.DataFrame:
        return pd.read_csv(write_table(pd.DataFrame(rows), f"paper_{name}", results, told, begun))

    begun = time.perf_counter()
    if "judges" in config.parts:
        limit, most = (24, 8) if smoke else (None, 100) if config.full else (160, 30)
        table = save(judges.judges(config.data, work, model, limit, most, smoke), "judges", begun)
        show("Judges", table, "Share of the pairs in which a judge prefers what people prefer.")
    if "train" in config.parts:
        training.reference(model, work, size, smoke)
        for seed in config.seeds:
            for name in config.runs:
                training.run(name, seed, model, work, size, smoke)
    if "grade" in config.parts:
        table = save(grading.grade(work), "runs", begun)
        columns = ["run", "seed", "round", "gold_win_rate", "gold_win_rate_low", "gold_win_rate_high"]
        show("Trained policies", table[[*columns, "proxy_win_rate", "kl", "length"]], "Win rates on held-out prompts.")
    if "benchmarks" in config.parts:
        trained = {p.parent.name: p for p in sorted((work / "runs").glob("*-*/model"))}
        questions = {"hellaswag": (40, 200), "mmlu": (1, 4), "gsm8k": (4, 40)}  # of MMLU for each of 57 subjects
        limits: dict[str, int] = {task: questions[task][config.full] for task in config.tasks}
        table = save(benchmarks.benchmarks(config.data, work, model, trained, limits, size), "benchmarks", begun)
        show("Benchmarks", table, "Differences are paired: the same questions.")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))

"""How a round's time, memory and disk grow with prompts, responses per prompt, length and vocabulary.

    python benchmarks/scaling.py                    in a minute, into benchmarks/quick
    python benchmarks/scaling.py --full             up to 20,000 prompts x 5 responses, into the committed tables: an
                                                    hour beside other work; goes on where it was stopped
    python benchmarks/scaling.py --smoke            in seconds, for tests

A random transformer of two layers runs one round of WIND in a process of its own, on one thread; one size is varied at
a time. Memory is the process's own (anonymous) memory beside the mapped files, over time for the largest round.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import tyro
from study import QUICK, RESULTS, ROOT, show, write_table

BASE = {"prompts": 250, "draws": 5, "new_tokens": 32, "vocabulary": 1000}
"""The round that the others differ from in one size."""
VARIED = {
    "prompts": (100, 250, 1000, 20000),
    "draws": (2, 5, 16),
    "new_tokens": (8, 32, 128),
    "vocabulary": (1000, 10000, 50000),
}
"""The sizes that are tried; with --full all of them."""
SAMPLE_SECONDS = 0.5
"""Interval between readings of the memory."""


@dataclass(frozen=True)
class Config:
    """What to run."""

    smoke: bool = False
    """A round of 20 and one of 40 prompts, for tests."""
    full: bool = False
    """All sizes, into the committed tables."""
    results: Path | None = None
    """Folder of the tables. By default benchmarks/quick; with --full the committed one."""


def cells(config: Config) -> list[dict[str, Any]]:
    """Return the sizes of each round, and which of them is varied."""
    if config.smoke:
        return [BASE | {"varied": "prompts", "prompts": n, "new_tokens": 4} for n in (20, 40)]
    out = []
    for name, values in VARIED.items():
        for value in values if config.full else values[:2]:
            out.append({"varied": name, **BASE, name: value})
    return out


def make_policy(vocabulary: int, new_tokens: int) -> Any:
    """Return a random transformer over words w0, w1, ... as a policy."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from windlm import LanguagePolicy

    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(vocabulary)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1", pad_token="w1")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        eos_token_id=1,
        bos_token_id=None,
        pad_token_id=1,
    )
    return LanguagePolicy(LlamaForCausalLM(config), tokenizer, max_new_tokens=new_tokens)


class MemoryMeter(threading.Thread):
    """Reads the process's memory at intervals, in MiB, and what the policy reports to be doing."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.begun, self.activity = time.perf_counter(), ""
        self.rows: list[list[Any]] = []

    def run(self) -> None:
        while True:
            self.read()
            time.sleep(SAMPLE_SECONDS)

    def read(self) -> None:
        lines = Path("/proc/self/status").read_text().splitlines()
        kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}
        own, mapped = kib["RssAnon"] / 1024, kib["RssFile"] / 1024
        self.rows.append([time.perf_counter() - self.begun, own, mapped, self.activity])


def worker(cell: dict[str, Any], out: Path) -> None:
    """Run one round and write its measures."""
    import numpy as np
    import torch

    from windlm import RewardJudge, wind
    from windlm.train import Config as Training
    from windlm.train import progress, train

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 33, cell["prompts"])
    prompts = [" ".join(f"w{i}" for i in rng.integers(2, cell["vocabulary"], n)) for n in lengths]
    policy = make_policy(cell["vocabulary"], cell["new_tokens"])
    judge = RewardJudge(lambda prompts, responses: [float(r.count("3")) for r in responses])
    meter = MemoryMeter()
    add = progress.Progress.add

    def watched(self: Any, activity: str, responses: int, tokens: int) -> None:
        meter.activity = activity
        add(self, activity, responses, tokens)

    progress.Progress.add = watched  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        config = Training(
            Path(folder),
            rounds=1,
            draws=cell["draws"],
            measure_final=False,
            report=False,
            progress=False,
            cpu=True,
        )
        meter.read()
        meter.start()
        begun = time.perf_counter()
        row = train(policy, prompts, judge, wind(0.05, 0.5), config)[-1]
        seconds = time.perf_counter() - begun
        meter.read()
        files = [p for p in (Path(folder) / "rollouts").rglob("*") if p.is_file()]
        disk = sum(p.stat().st_size for p in files) / 2**20
    own = [r[1] for r in meter.rows]
    measures = {"seconds": seconds}
    measures |= {f"seconds_{n}": row[f"seconds_{n}"] for n in ("sampling", "judging", "scoring", "training")}
    measures |= {"tokens": row["tokens"], "tokens_per_second": row["tokens"] / seconds}
    measures |= {"mib_at_start": own[0], "mib_at_peak": max(own), "mib_on_disk": disk}
    out.write_text(json.dumps({"row": measures, "memory": meter.rows}))


def measured(cell: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the measures of one round, in a process of its own; a round that was measured before is not run again."""
    sizes = {name: cell[name] for name in BASE}
    out = folder / ("-".join(map(str, sizes.values())) + ".json")
    if not out.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(ROOT / "benchmarks" / "scaling.py"), "--worker", json.dumps(sizes), str(out)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return json.loads(out.read_text())


def main(config: Config) -> None:
    begun = time.perf_counter()
    results = config.results or (RESULTS if config.full else QUICK)
    results.mkdir(parents=True, exist_ok=True)
    rows, curves = [], []
    for cell in cells(config):
        found = measured(cell, results / ".cells" / "scaling")
        rows.append({**cell, **found["row"]})
        if cell["varied"] == "prompts":
            curves += [[cell["prompts"], cell["draws"], *reading] for reading in found["memory"]]
        print(f"{cell}: {rows[-1]['seconds']:.0f} s, {rows[-1]['mib_at_peak']:.0f} MiB", flush=True)
    table = pd.DataFrame(rows)
    memory = pd.DataFrame(curves, columns=["prompts", "draws", "seconds", "mib_own", "mib_mapped", "activity"])
    said = asdict(replace(config, results=None))
    write_table(table, "scaling", results, said, begun)
    write_table(memory, "scaling_memory", results, said, begun)
    some = table[table.varied == "prompts"].sort_values("prompts")
    first, last = some.iloc[0], some.iloc[-1]
    grown = last.mib_at_peak - last.mib_at_start - (first.mib_at_peak - first.mib_at_start)
    show(
        "A round's time and memory",
        table.drop(columns="tokens"),
        f"From {first.prompts} to {last.prompts} prompts, a round's memory grows by {grown:.0f} MiB, its files by "
        f"{last.mib_on_disk - first.mib_on_disk:.0f} MiB.",
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(json.loads(sys.argv[2]), Path(sys.argv[3]))
    else:
        main(tyro.cli(Config, description=__doc__))

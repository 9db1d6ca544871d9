"""Peak memory: stored log-probabilities against models that are kept."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

import pandas as pd
from study import ROOT, show, write_table

from lm_studies.settings import Config

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
    given = {"checkpoint_every": 0, "measure_final": False, "progress": False}
    config = Config(Path(folder), rounds=2, draws=8, batch_prompts=2, **given)
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
    write_table(table, "lm_memory", config.folder, asdict(config), started)
    saved, weights = table.saved_mib.iloc[0], table.weights_mib.iloc[0]
    show(
        "Peak memory of training, libraries included",
        table,
        f"Stored log-probabilities save {saved:.0f} MiB, {saved / weights:.1f} times the weights, against keeping "
        f"reference and previous policy as models.",
    )

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

import time
from dataclasses import replace

import tyro
from lm_studies import floor, memory, methods, robust
from lm_studies.settings import Config
from study import QUICK, RESULTS, draw

STUDIES = {
    "methods": methods.methods,
    "slower": methods.slower,
    "summary": methods.summary,
    "floor": floor.floor,
    "robust": robust.robust,
    "memory": memory.memory,
}


def main(config: Config) -> None:
    config = replace(config, results=config.results or (RESULTS if config.full else QUICK))
    config.folder.mkdir(parents=True, exist_ok=True)
    for name, study in STUDIES.items():
        if config.study in ("all", name):
            study(config, time.perf_counter())
    if config.pictures and config.study in ("all", "methods"):
        draw(config.folder, ["lm"])
    if config.pictures and config.study in ("all", "robust"):
        draw(config.folder, ["lm_robust"])


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))

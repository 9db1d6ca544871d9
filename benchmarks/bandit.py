r"""The contextual bandit study: the exact part, where everything is known, and what samples make of it.

    python benchmarks/bandit.py                      # every study at reduced size, tables and pictures
    python benchmarks/bandit.py --study queries      # one of them
    python benchmarks/bandit.py --full               # the size of the committed tables
    python benchmarks/bandit.py --smoke              # small grids, in seconds
    python benchmarks/bandit.py --dask local         # the same sweep on a dask cluster
    python benchmarks/bandit.py --full --derive      # bounds of the committed tables anew, where the theory has changed

Exact:    bon, phase, distance, rates, verify, selfplay
Sampled:  queries, seconds, frontier, ablation, robust, diversity, logs, unseen, pieces

Each is a file in benchmarks/bandit_studies and writes ``bandit_<study>.csv`` with a JSON sidecar. Finished cells are
kept: run again to go on. On a dask cluster the workers must see the results folder and find this one: start them with
``PYTHONPATH=benchmarks`` in the repository, and pass the scheduler's address, ``--dask tcp://host:8786``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import joblib
import tyro
from bandit_studies import (
    ablation,
    bon,
    distance,
    diversity,
    frontier,
    logs,
    phase,
    pieces,
    queries,
    rates,
    robust,
    seconds,
    selfplay,
    unseen,
    verify,
)
from study import HERE, QUICK, RESULTS, ROOT, Scale, announce, derive_again, draw, pictures_of, run_study

EXACT = {
    "bon": bon.STUDY,
    "phase": phase.STUDY,
    "distance": distance.STUDY,
    "rates": rates.STUDY,
    "verify": verify.STUDY,
    "selfplay": selfplay.STUDY,
}
SAMPLED = {
    "queries": queries.STUDY,
    "seconds": seconds.STUDY,
    "frontier": frontier.STUDY,
    "ablation": ablation.STUDY,
    "robust": robust.STUDY,
    "diversity": diversity.STUDY,
    "logs": logs.STUDY,
    "unseen": unseen.STUDY,
    "pieces": pieces.STUDY,
}
STUDIES = EXACT | SAMPLED


@dataclass
class Config:
    """Studies on contextual bandits."""

    study: Literal["all", "exact", "sampled"] | Literal[*STUDIES] = "all"  # type: ignore[valid-type]
    """Study to run; exact, sampled or all for several."""
    smoke: bool = False
    """Whether to run the smallest grids, for tests."""
    full: bool = False
    """Whether to run the grids of the committed tables."""
    seeds: int | None = None
    """Repetitions of every sampled learner; None for 8, or 4 with --smoke, 20 with --full."""
    jobs: int = 2
    """Number of processes."""
    seed: int = 0
    """Seed of the grid, from which the seed of every cell is spawned."""
    fresh: bool = False
    """Whether to compute cells anew that are saved."""
    derive: bool = False
    """Whether to run nothing, and only compute the bounds in saved tables anew."""
    dask: str = ""
    """Address of a dask scheduler, or local to start one; empty for processes on this machine."""
    results: Path | None = None
    """Output folder of tables and pictures; None for benchmarks/quick or, with --full, for benchmarks/results and
    figures."""
    pictures: bool = True
    """Whether to draw the figures at the end."""


@contextmanager
def cluster(address: str) -> Iterator[None]:
    """Hand joblib's work to dask, if there is an address."""
    if not address:
        yield
        return
    from dask.distributed import Client

    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH", "")]))
    with (
        Client(None if address == "local" else address) as client,
        joblib.parallel_config(backend="dask", wait_for_workers_timeout=60),
    ):
        print(f"dask: {client}", flush=True)
        yield


def main(config: Config) -> None:
    if config.smoke and config.full:
        raise SystemExit("--smoke and --full exclude each other.")
    seeds = config.seeds or (4 if config.smoke else 20 if config.full else 8)
    scale = Scale(config.smoke, config.full, seeds)
    groups = {"all": STUDIES, "exact": EXACT, "sampled": SAMPLED}
    names = list(groups.get(config.study, [config.study]))
    results = config.results or (RESULTS if config.full else QUICK)
    results.mkdir(parents=True, exist_ok=True)
    if config.derive:
        changed = [name for name in names if derive_again(STUDIES[name], f"bandit_{name}", results)]
        print(f"Bounds computed anew in {os.path.relpath(results)}: {', '.join(changed) or 'no table has changed'}.")
        return
    announce({name: STUDIES[name] for name in names}, scale, results, "bandit", config.pictures)
    with cluster(config.dask):
        for name in names:
            run_study(
                STUDIES[name],
                name,
                f"bandit_{name}",
                scale,
                results,
                asdict(config) | {"seeds": scale.seeds, "results": results},
                seed=config.seed,
                jobs=config.jobs,
                fresh=config.fresh,
            )
    if config.pictures:
        drawn = [f"bandit_{name}" for name in names if (ROOT / "figures" / f"plot_bandit_{name}.py").exists()]
        draw(results, drawn)
        print(f"\nPictures: {os.path.relpath(pictures_of(results))}/ ({', '.join(f'{name}.png' for name in drawn)})")
    print(f"Tables:   {os.path.relpath(results)}/ ({', '.join(f'bandit_{name}.csv' for name in names)})")


if __name__ == "__main__":
    main(tyro.cli(Config))

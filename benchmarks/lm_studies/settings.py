"""What to run, and the grid that runs it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from study import QUICK, RESULTS, Rows, fingerprint, run_grid, sources


@dataclass(frozen=True)
class Config:
    """What to run."""

    study: Literal["all", "methods", "slower", "summary", "floor", "robust", "memory"] = "all"
    """Study to run."""
    full: bool = False
    """Whether to take more seeds and longer runs, as in the committed tables."""
    smoke: bool = False
    """Whether to take a small task, for tests."""
    seed: int = 0
    """Seed of the grid, from which the seed of every cell is spawned."""
    jobs: int = 2
    """Number of processes; 1 on a GPU."""
    fresh: bool = False
    """Whether to compute cells anew that are saved."""
    results: Path | None = None
    """Output folder of tables and pictures; None for benchmarks/quick or, with --full, for benchmarks/results and
    figures."""
    pictures: bool = True
    """Whether to draw the figures at the end."""

    @property
    def folder(self) -> Path:
        """Folder of tables and pictures."""
        return self.results or (RESULTS if self.full else QUICK)

    @property
    def rounds(self) -> int:
        return 6 if self.smoke else 100 if self.full else 20


def grid(study: str, cells: list[dict[str, Any]], run_one: Callable[..., Rows], config: Config) -> pd.DataFrame:
    jobs = 1 if torch.cuda.is_available() else config.jobs
    version = fingerprint(*sources(Path(inspect.getfile(run_one))))
    return run_grid(
        study, cells, run_one, results=config.folder, seed=config.seed, jobs=jobs, fresh=config.fresh, version=version
    )

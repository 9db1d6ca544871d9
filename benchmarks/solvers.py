"""`windgames.equilibrium` and `windgames.solve` against the alternatives, on the same games in the same run.

    python benchmarks/solvers.py                  # every study at reduced size, into benchmarks/quick
    python benchmarks/solvers.py --study grid     # one of them
    python benchmarks/solvers.py --full           # the committed tables: an hour and a half
    python benchmarks/solvers.py --smoke          # small games, for tests

    agreement  random games of every kind: distance to the equilibrium in sixty digits
    grid       time and accuracy against the number of responses, kind by kind, beta from 10 to 0
    batch      many contexts at once
    large      a million responses, against one sort of the same size
    hard       hard cases: certified, or refused with a reason
    choice     our own ways to solve a dense game, each forced, against the way that is chosen; systems against one LU
    path       twenty values of beta in one call, against each alone

Each writes ``solvers_<study>.csv`` with a JSON sidecar; finished cells are kept. Every answer is graded here by the
game, as it is and after one best response, and the better counts. A cell times all solvers side by side, in a process
that is killed when a solver's seconds are over: those of the cell, or five times ours. Peers that are not installed are
left out by name (extra ``peers``). Times are of this machine; the ratios are what to compare.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import tyro
from solver_studies import agreement, batch, choice, grid, hard, large, path
from solver_studies.peers import SOLVERS
from study import QUICK, RESULTS, Scale, announce, draw, run_study

STUDIES = {
    "agreement": agreement.STUDY,
    "grid": grid.STUDY,
    "batch": batch.STUDY,
    "large": large.STUDY,
    "hard": hard.STUDY,
    "choice": choice.STUDY,
    "path": path.STUDY,
}


@dataclass
class Config:
    """What to measure."""

    study: Literal["all"] | Literal[*STUDIES] = "all"  # type: ignore[valid-type]
    """Study to run."""
    smoke: bool = False
    """Whether to take small games, for tests."""
    full: bool = False
    """Whether to take the games of the committed tables."""
    fresh: bool = False
    """Whether to compute cells anew that are saved, as for times of another machine."""
    results: Path | None = None
    """Output folder of tables and pictures; None for benchmarks/quick or, with --full, for benchmarks/results and
    figures."""
    pictures: bool = True
    """Whether to draw the figure at the end."""


def main(config: Config) -> None:
    if config.smoke and config.full:
        raise SystemExit("--smoke and --full exclude each other.")
    results = config.results or (RESULTS if config.full else QUICK)
    results.mkdir(parents=True, exist_ok=True)
    skipped = {solver.name: solver.missing for solver in SOLVERS if solver.missing}
    names = list(STUDIES) if config.study == "all" else [config.study]
    scale = Scale(config.smoke, config.full)
    announce({name: STUDIES[name] for name in names}, scale, results, "solvers", pictures=False)
    for name, packages in skipped.items():
        print(f"Skipped: {name} ({', '.join(packages)} not installed)")
    versions = " ".join(solver.version for solver in SOLVERS if not solver.missing)
    for name in names:
        run_study(
            STUDIES[name],
            f"solvers_{name}",
            f"solvers_{name}",
            scale,
            results,
            asdict(config) | {"results": results, "skipped": sorted(skipped)},
            versions,
            fresh=config.fresh,
        )
    if config.pictures and config.study in ("all", "grid"):
        draw(results, ["solvers"])


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))

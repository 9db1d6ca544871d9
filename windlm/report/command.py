"""The command report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from .curves import complete, write_csv, write_png
from .page import unique_names, write


@dataclass(frozen=True)
class ReportConfig:
    """Write the report of runs, finished or running: one HTML file with curves and responses."""

    runs: Positional[tuple[Path, ...]] = ()
    """Folders of runs (--train.out)."""
    out: Path | None = None
    """Output file; None for report.html in the folder of a single run, else in the current folder."""
    csv: bool = False
    """Whether to write the metrics of all rounds as a table, too."""
    png: bool = False
    """Whether to draw the curves as a picture, too."""
    prompts: int = 20
    """Maximum number of prompts per round whose responses are shown."""
    rounds: int = 40
    """Maximum number of rounds whose responses are shown, evenly spaced."""


def report(config: ReportConfig) -> list[Path]:
    """Write the report, and return the files written."""
    out, runs = write(config.runs, config.out, prompts=config.prompts, rounds=config.rounds)
    files = [out]
    runs = [run | {"metrics": complete(run["metrics"])} for run in unique_names(runs)]
    for wanted, suffix, draw in ((config.csv, ".csv", write_csv), (config.png, ".png", write_png)):
        if wanted:
            files.append(out.with_suffix(suffix))
            draw(runs, files[-1])
    return files

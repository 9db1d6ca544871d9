"""The page: the data of runs as JSON in one HTML file, with the style and the program that shows them."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from ..files import write_text
from .curves import TITLES, complete, frontier, names, pair_of
from .runs import Json, clean, read_run


def page(runs: Sequence[Json]) -> str:
    """Return the HTML of runs, as `read_run` returns them."""
    runs = [run | {"metrics": complete(run["metrics"])} for run in runs]
    data = clean(
        {
            "runs": unique_names(runs),
            "curves": [{"name": name, "title": TITLES.get(name, name)} for name in names(runs)],
            "frontier": frontier(runs),
            "pair": pair_of(runs),
            "written": time.strftime("%Y-%m-%d %H:%M"),
        }
    )
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))  # ASCII: any text survives any encoding
    parts = {name: (files(__package__) / f"page.{name}").read_text() for name in ("html", "css", "js")}
    html = parts["html"].replace("/*css*/", parts["css"]).replace("/*js*/", parts["js"])
    # in JSON "<" occurs only inside strings, where its escape means the same and cannot end the script element
    return html.replace("/*data*/", text.replace("<", "\\u003c"))


def unique_names(runs: Sequence[Json]) -> list[Json]:
    """Return runs whose names differ: those of the same name are shown with their folder."""
    count = [run["name"] for run in runs]
    return [run | {"name": run["folder"]} if count.count(run["name"]) > 1 else run for run in runs]


def write(
    folders: Sequence[Path | str], out: Path | str | None = None, *, prompts: int = 20, rounds: int = 40
) -> tuple[Path, list[Json]]:
    """Write the report of runs.

    Parameters
    ----------
    folders : sequence of paths
        Folders of runs; they may be running.
    out : Path, optional
        The file; None for report.html in the folder of a single run, else in the current folder.
    prompts, rounds : int
        Maximum number of prompts per round, and of rounds, whose responses are shown.

    Returns
    -------
    out : Path
    runs : list of dict
        What the folders say.

    Raises
    ------
    ValueError
        If there is no run, or a folder is none of a run.
    """
    if not folders:
        raise ValueError("There is no run to report: give the folders of --train.out.")
    runs = [read_run(Path(folder), prompts, rounds) for folder in folders]
    out = Path(out or (Path(folders[0]) / "report.html" if len(folders) == 1 else "report.html"))
    write_text(out, page(runs))
    return out, runs

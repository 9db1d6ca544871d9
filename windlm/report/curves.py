"""The curves of runs as one table (CSV) and as one picture (PNG)."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from windgames.continuum import largest_win_rate

from .runs import Json

TITLES = {
    "reward": "Reward",
    "eval_reward": "Held out: reward",
    "win_rate_reference": "Win rate against the reference",
    "win_rate_previous": "Win rate against the previous round",
    "eval_win_rate": "Held out: win rate against the reference",
    "kl": "KL to the reference, nats",
    "eval_kl": "Held out: KL to the reference, nats",
    "entropy": "Entropy, nats",
    "length": "Length, tokens",
    "eval_length": "Held out: length, tokens",
    "cut": "Share of responses cut at the longest length",
    "loss": "Loss",
    "gradient_norm": "Gradient norm",
    "learning_rate": "Learning rate",
    "seconds": "Seconds per round",
    "tokens_per_second": "Tokens per second",
}
"""Titles of the curves, in the order shown; other metrics follow under their own names."""
HIDDEN = ("round", "tokens", "judge_calls", "seen_tokens", "seen_seconds")
"""Metrics that have no curve of their own."""


def complete(metrics: Sequence[Json]) -> list[Json]:
    """Return the rows of metrics with the totals that curves are drawn against, and tokens per second."""
    rows, tokens, seconds = [], 0.0, 0.0
    for row in metrics:
        spent = [v for k, v in row.items() if k.startswith("seconds_") and isinstance(v, int | float)]
        extra: Json = {"seconds": sum(spent)} if spent else {}
        seconds += extra.get("seconds", 0.0)
        tokens += row.get("tokens") or 0.0
        if extra.get("seconds") and row.get("tokens") and "tokens_per_second" not in row:
            extra["tokens_per_second"] = row["tokens"] / extra["seconds"]
        rows.append(row | extra | {"seen_tokens": tokens, "seen_seconds": seconds})
    return rows


def names(runs: Sequence[Json]) -> list[str]:
    """Return the names of the metrics that have a curve: numbers in some round, those with a title first."""
    found = {
        name
        for run in runs
        for row in run["metrics"]
        for name, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    found -= {name for name in found if name.startswith("seconds_") or name in HIDDEN}
    found -= {f"{name}_{end}" for name in found for end in ("error", "low", "high")}
    return [name for name in TITLES if name in found] + sorted(found - set(TITLES))


def frontier(runs: Sequence[Json], points: int = 60) -> list[list[float]]:
    """Return points (KL, largest win rate of any policy at this KL) up to the largest KL of the runs (theory 3.12)."""
    rows = [row for run in runs for row in run["metrics"]]
    seen = [row[name] for row in rows for name in ("kl", "eval_kl") if isinstance(row.get(name), int | float)]
    top = max([*seen, 0.1]) * 1.05
    xs = [top * (i / points) ** 2 for i in range(points + 1)]  # the curve is steep at 0
    return [[x, round(float(y), 5)] for x, y in zip(xs, largest_win_rate(xs), strict=True)]


def write_csv(runs: Sequence[Json], path: Path) -> None:
    """Write the metrics of all runs as one table, a row per run and round."""
    columns = dict.fromkeys(name for run in runs for row in run["metrics"] for name in row)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["run", *columns])
        writer.writeheader()
        writer.writerows({"run": run["name"]} | row for run in runs for row in run["metrics"])


def write_png(runs: Sequence[Json], path: Path) -> None:
    """Draw all curves as one picture.

    Raises
    ------
    ValueError
        If matplotlib is not installed, or no round has ended.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("A picture needs matplotlib: pip install matplotlib, or leave out --png.") from None
    shown = names(runs)
    if not shown:
        raise ValueError("There is nothing to draw: no round has ended yet.")
    pair = pair_of(runs)
    both = any(has(row, *pair) for run in runs for row in run["metrics"])
    count = len(shown) + both
    columns = min(3, count)
    fig = Figure(figsize=(4 * columns, 2.8 * -(-count // columns)), layout="constrained")
    axes: list[Any] = list(fig.subplots(-(-count // columns), columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.remove()
    if both:
        axes[0].plot(*zip(*frontier(runs), strict=True), "--", color="0.4", label="most of any policy at this KL")
        for i, run in enumerate(runs):
            points = [tuple(row[name] for name in pair) for row in run["metrics"] if has(row, *pair)]
            if points:
                axes[0].plot(*zip(*points, strict=True), "o-", color=f"C{i}", markersize=3)
        axes[0].set(title="Win rate against the reference", xlabel="KL to the reference, nats")
        axes[0].legend(frameon=False, fontsize=8)
    for axis, name in zip(axes[both:], shown, strict=False):
        for i, run in enumerate(runs):
            rows = [row for row in run["metrics"] if isinstance(row.get(name), int | float)]
            xs, ys = [row["round"] for row in rows], [row[name] for row in rows]
            axis.plot(xs, ys, color=f"C{i}", label=run["name"], marker="o" if len(xs) < 3 else None)
            banded = [(row["round"], span) for row in rows if (span := band(row, name)) is not None]
            if banded:
                where, low, high = [x for x, _ in banded], [s[0] for _, s in banded], [s[1] for _, s in banded]
                axis.fill_between(where, low, high, color=f"C{i}", alpha=0.2, linewidth=0)
        axis.set(title=TITLES.get(name, name), xlabel="round")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    if len(runs) > 1:
        axes[both].legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=130)


def has(row: Json, *wanted: str) -> bool:
    """Return whether a round has numbers of these names."""
    return all(isinstance(row.get(name), int | float) for name in wanted)


def pair_of(runs: Sequence[Json]) -> tuple[str, str]:
    """Return the names of the KL and the win rate to draw against each other: those on held-out prompts, if any."""
    held_out = ("eval_kl", "eval_win_rate")
    found = any(has(row, *held_out) for run in runs for row in run["metrics"])
    return held_out if found else ("kl", "win_rate_reference")


def band(row: Json, name: str) -> tuple[float, float] | None:
    """Return the 95% interval of a metric in a round, if it has one."""
    if has(row, name, f"{name}_error"):
        half = 1.96 * row[f"{name}_error"]
        return row[name] - half, row[name] + half
    return (row[f"{name}_low"], row[f"{name}_high"]) if has(row, f"{name}_low", f"{name}_high") else None

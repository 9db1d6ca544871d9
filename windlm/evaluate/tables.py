"""The table of `windlm evaluate`: one row per measure and model, as text and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_text
from .statistics import Interval

Row = dict[str, Any]
"""One measure of one model: measure, of, mean, low, high, n; against another model difference, difference_low,
difference_high, compared."""


def row(measure: str, who: str, value: Interval, n: int, values: Mapping[str, float] | None = None) -> Row:
    """Return a row of the table; `values` are those that the mean is of, by question, from which differences come."""
    return {"measure": measure, "of": who, **value._asdict(), "n": n} | ({"values": dict(values)} if values else {})


def paired_difference(ours: Mapping[str, float], theirs: Mapping[str, float]) -> tuple[Interval, int]:
    r"""Return the mean difference on the questions that both have, with its 95% interval, and their number.

    The interval is :math:`\bar d \pm 1.96\,s_d/\sqrt n`, which is narrower than that of two separate means as far as
    both models answer the same questions right. Where scores in [0, 1] are equal on all `n` questions it is
    :math:`\pm 3/n` (the rule of three), since that no difference was seen does not mean that there is none.
    """
    shared = [name for name in ours if name in theirs]
    d = np.array([ours[name] - theirs[name] for name in shared])
    if len(d) < 2:
        return Interval(float(d.mean()) if len(d) else math.nan, math.nan, math.nan), len(d)
    mean, half = float(d.mean()), 1.96 * float(d.std(ddof=1)) / math.sqrt(len(d))
    if not d.any() and all(0 <= ours[name] <= 1 for name in shared):
        half = min(1.0, 3 / len(d))
    return Interval(mean, mean - half, mean + half), len(d)


def with_differences(rows: Sequence[Row], against: str) -> list[Row]:
    """Return the rows with each model's paired difference from one of them, wherever both have values by question."""
    other = {r["measure"]: r["values"] for r in rows if r["of"] == against and "values" in r}
    out = []
    for r in rows:
        extra: Row = {}
        if r["of"] != against and "values" in r and r["measure"] in other:
            gap, n = paired_difference(r["values"], other[r["measure"]])
            extra = {"difference": gap.mean, "difference_low": gap.low, "difference_high": gap.high, "compared": n}
        out.append({k: v for k, v in r.items() if k != "values"} | extra)
    return out


def table(rows: Sequence[Row], against: str = "the reference") -> str:
    """Format the table as text; the rows of a group's parts are left out."""
    shown = [r for r in rows if not r.get("part")]
    compared = any("difference" in r for r in shown)
    wide = max([7, *(len(r["measure"]) for r in shown)]), max([5, *(len(str(r["of"])) for r in shown)])
    head = f"{'measure':<{wide[0]}}  {'of':<{wide[1]}}  {'mean':>8}  {'95% interval':<16}  {'n':>5}"
    lines = [head + (f"  difference from {against}, on the same questions" if compared else "")]
    for r in shown:
        line = f"{r['measure']:<{wide[0]}}  {r['of']:<{wide[1]}}  {r['mean']:>8.3f}  {_span(r, ''):<16}  {r['n']:>5}"
        if "difference" in r:
            line += f"  {r['difference']:+.3f} ({_span(r, 'difference_')})"
        lines.append(line.rstrip())
    if any(r["measure"].startswith("KL") and r["mean"] < 0 for r in shown):
        lines.append("(The estimate of a small KL divergence may be negative; the divergence is not.)")
    if hidden := len(rows) - len(shown):
        lines.append(f"({hidden} rows of single parts are in the file only.)")
    return "\n".join(lines)


def _span(r: Row, prefix: str) -> str:
    low, high = r[f"{prefix}low"], r[f"{prefix}high"]
    return "" if math.isnan(low) else f"{low:.3f} to {high:.3f}"


def write(rows: Sequence[Row], config: dict[str, Any], path: Path) -> None:
    """Write rows and configuration as JSON; nan becomes null."""
    clean = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in r.items()} for r in rows]
    text = json.dumps({"config": config, "rows": clean}, indent=2) + "\n"
    write_text(path, text)

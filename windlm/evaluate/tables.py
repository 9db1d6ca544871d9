"""The table of `windlm evaluate`: one row per measure, as text and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .statistics import Interval

Row = dict[str, Any]
"""One measure of one model: measure, of, mean, low, high, n."""


def row(measure: str, who: str, value: Interval, n: int) -> Row:
    """Return a row of the table."""
    return {"measure": measure, "of": who, **value._asdict(), "n": n}


def table(rows: Sequence[Row]) -> str:
    """Format the table as text."""
    lines = [f"{'measure':<36} {'of':<10} {'value':>8}  {'95% interval':<18} {'n':>5}"]
    for r in rows:
        span = "" if math.isnan(r["low"]) else f"{r['low']:.3f} to {r['high']:.3f}"
        lines.append(f"{r['measure']:<36} {r['of']:<10} {r['mean']:>8.3f}  {span:<18} {r['n']:>5}")
    return "\n".join(lines)


def write(rows: Sequence[Row], config: dict[str, Any], path: Path) -> None:
    """Write rows and configuration as JSON; nan becomes null."""
    clean = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in r.items()} for r in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"config": config, "rows": clean}, indent=2) + "\n")

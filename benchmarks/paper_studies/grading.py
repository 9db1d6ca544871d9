"""What the gold and the proxy judge say of the responses that paper.py's runs kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from windgames.continuum import largest_win_rate
from windlm.evaluate.statistics import Interval, interval
from windlm.files import write_text
from windlm.judges import RewardJudge
from windlm.models import JudgeSettings, load_judge

from .training import RUNS, slug

JUDGES = ("gold", "proxy")


def grade(work: Path) -> list[dict[str, Any]]:
    """Return a row for every look of every run: win rates against the reference by both judges, KL and the rest."""
    looks = sorted((work / "runs").glob("*/look-*.json"))
    judged = {judge: rewards(work, judge, looks) for judge in JUDGES}
    baseline = work / "runs" / "reference-0" / "look-000.json"
    names = {slug(name): name for name in RUNS}
    rows = []
    for look in looks:
        if look == baseline:
            continue
        kept = json.loads(look.read_text())
        name, _, seed = look.parent.name.rpartition("-")
        row: dict[str, Any] = {"run": names.get(name, name), "seed": int(seed), "round": kept["round"]}
        for judge in JUDGES:
            ours, theirs = judged[judge][look], judged[judge][baseline]
            won = (ours[:, :, None] > theirs[:, None]) + 0.5 * (ours[:, :, None] == theirs[:, None])
            row |= flat(f"{judge}_win_rate", interval(won.mean((1, 2))))
            row[f"{judge}_reward"] = float(ours.mean())
        kl = interval(np.mean(kept["log_ratio"], -1))
        row |= flat("kl", kl) | {"possible_win_rate": float(largest_win_rate(max(kl.mean, 0.0)))}
        row |= {"length": float(np.mean(kept["length"])), "cut": float(np.mean(kept["cut"]))}
        rows.append(row | kept["diversity"] | seconds(look.parent, kept["round"]))
    return rows


def seconds(run: Path, number: int) -> dict[str, float]:
    """Return the seconds an iteration that each part of a run took, if a look is its last one."""
    last = max(int(look.stem.removeprefix("look-")) for look in run.glob("look-*.json"))
    if number < last or not (run / "metrics.jsonl").exists():
        return {}
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    parts = {name: 0.0 for row in rows for name in row if name.startswith("seconds_")}
    return {name: sum(row.get(name, 0.0) for row in rows) / last for name in parts}


def flat(name: str, value: Interval) -> dict[str, float]:
    """Return a mean with the ends of its interval as columns."""
    return {name + end: x for end, x in zip(("", "_low", "_high"), value, strict=True)}


def rewards(work: Path, judge: str, looks: list[Path]) -> dict[Path, np.ndarray]:
    """Return a judge's rewards of all looks, each computed once and kept beside its look."""
    kept = {look: look.with_name(f"{judge}-{look.name}") for look in looks}
    model: RewardJudge | None = None
    for look, file in kept.items():
        if file.exists():
            continue
        if model is None:
            settings = JudgeSettings("reward-model", str(work / judge), precision="bfloat16", batch_size=32)
            model = load_judge(settings)  # type: ignore[assignment]
        assert model is not None
        said = json.loads(look.read_text())
        write_text(file, json.dumps(model.rewards(said["prompts"], said["responses"]).tolist()) + "\n")
    return {look: np.array(json.loads(file.read_text())) for look, file in kept.items()}

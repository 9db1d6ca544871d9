"""The gold and the proxy judge of paper.py: fitted, and measured on human labels that neither has seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from windlm.data import Data, Pair, load_pairs
from windlm.evaluate.statistics import wilson
from windlm.judges import RewardJudge
from windlm.judges.base import key
from windlm.judges.fitting import RewardModelConfig, fit, split
from windlm.models import JudgeSettings, LoraSettings, load_judge

from .grading import JUDGES, flat

TRANSFER = {
    "PandaLM": "pandalm/testset-v1.jsonl.gz",
    "LLMBar": "llmbar/llmbar.jsonl.gz",
    "HHH": "hhh_alignment/hhh_alignment.jsonl.gz",
}
"""Pairs that people have labelled, of other data sets than those that the judges are fitted to."""
HELD_OUT = 0.25
LONGEST = 1500
"""The most characters of a pair that is judged for the transfer; longer ones are left out."""


def settings(name: str, model: str, work: Path, limit: int | None, smoke: bool) -> RewardModelConfig:
    """Return how a judge is fitted."""
    return RewardModelConfig(
        model,
        Data(str(work / f"{name}.jsonl"), limit=limit),
        work / name,
        held_out=HELD_OUT,
        evaluations=1,
        lora=LoraSettings(rank=2 if smoke else 16),
        precision="float32" if smoke else "bfloat16",
    )


def judges(
    data: Path, work: Path, model: str, limit: int | None, most: int | None, smoke: bool
) -> list[dict[str, Any]]:
    """Fit both judges; return a row for each judge and data set: accuracy, beside that of the longer answer.

    Parameters
    ----------
    limit : int, optional
        Pairs to fit to; None for all.
    most : int, optional
        Pairs of each other data set; None for all.
    """
    rows: list[dict[str, Any]] = []
    gaps: dict[str, np.ndarray] = {}
    sets: dict[str, list[Pair]] = {}
    for name in JUDGES:
        config = settings(name, model, work, limit, smoke)
        found = fit(config)
        _, unknown = split(load_pairs(config.data), HELD_OUT, config.seed)
        about = {"data": f"held out from {name}", "pairs": len(unknown), "prompts": found.prompts}
        rows.append({"judge": name, **about, **flat("accuracy", found.accuracy), "fitted_to": found.pairs})
        rows.append({"judge": "the longer answer", "data": about["data"], **share(unknown, longer(unknown))})
    for name, file in TRANSFER.items():
        if (data / file).exists():
            pairs = load_pairs(Data(str(data / file), chat=True))
            distinct = {repr(pair): pair for pair in pairs}  # PandaLM has some twice
            short = [pair for text, pair in distinct.items() if len(text) <= LONGEST]
            some = np.random.default_rng(0).permutation(len(short))[:most]
            sets[name] = [short[i] for i in sorted(some)]
    for data_set, pairs in sets.items():
        for name in JUDGES:
            gaps[name] = margins(work / name, pairs, smoke)
            rows.append({"judge": name, "data": data_set, **share(pairs, gaps[name])})
        rows.append({"judge": "the longer answer", "data": data_set, **share(pairs, longer(pairs))})
        same = np.sign(gaps["gold"]) * np.sign(gaps["proxy"])
        rows.append({"judge": "gold and proxy agree", "data": data_set, **share(pairs, same)})
    return rows


def longer(pairs: list[Pair]) -> np.ndarray:
    """Return by how many letters the chosen answer of each pair is longer."""
    return np.array([len(p.chosen) - len(p.rejected) for p in pairs], float)


def margins(folder: Path, pairs: list[Pair], smoke: bool) -> np.ndarray:
    """Return by how much a judge prefers the chosen answer of each pair."""
    precision = "float32" if smoke else "bfloat16"
    judge = load_judge(JudgeSettings("reward-model", str(folder), precision=precision, batch_size=16, truncate=True))
    assert isinstance(judge, RewardJudge)
    rewards = judge.rewards([p.prompt for p in pairs], [[p.chosen, p.rejected] for p in pairs])
    return np.asarray(rewards[:, 0] - rewards[:, 1])


def share(pairs: list[Pair], gaps: np.ndarray) -> dict[str, Any]:
    """Return the share of positive gaps, averaged over prompts, with Wilson's interval; a tie counts 1/2."""
    right: dict[str, list[float]] = {}
    for pair, gap in zip(pairs, gaps, strict=True):
        right.setdefault(key(pair.prompt), []).append(float(gap > 0) + 0.5 * float(gap == 0))
    means = [sum(row) / len(row) for row in right.values()]
    return {"pairs": len(pairs), "prompts": len(means), **flat("accuracy", wilson(sum(means) / len(means), len(means)))}

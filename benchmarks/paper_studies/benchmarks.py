"""The benchmarks of the paper on the untrained model and on trained ones, by lm-eval's own tasks on local data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from windlm.evaluate.command import EvaluateConfig, EvaluatedModel, evaluate

from .training import Size

PUBLISHED = {"hellaswag: acc_norm": 0.4299, "gsm8k: exact_match (flexible-extract)": 0.0038}
"""Results of others for SmolLM2-135M-Instruct, without examples, on all questions and unquantised weights."""
FOLDERS = {"hellaswag": "hellaswag", "mmlu": "mmlu", "gsm8k": "gsm8k"}


def benchmarks(
    data: Path, work: Path, model: str, runs: dict[str, Path], limits: dict[str, int], size: Size
) -> list[dict[str, Any]]:
    """Return the rows of `windlm evaluate` for the reference and each trained model that there is.

    Parameters
    ----------
    runs : mapping of name to folder of a trained model
    limits : mapping of task to the number of its questions, the first ones; of MMLU for each of its 57 subjects
    """
    rows = []
    trained = [str(folder) for folder in runs.values()]
    names = {short: name for name, short in zip(runs, map(_short, trained), strict=True)}
    for task, limit in limits.items():
        if not (data / FOLDERS[task]).is_dir():
            continue
        config = EvaluateConfig(
            EvaluatedModel(trained[0] if trained else model, precision="bfloat16", max_new_tokens=size.new_tokens),
            reference=model,
            others=tuple(trained[1:]),
            out=work / f"{task}.json",
            tasks=(task,),
            benchmark_data=data,
            cache=work / "answers",
            limit=limit,
        )
        for row in evaluate(config):
            if row.get("part"):
                continue
            who = next(iter(runs)) if row["of"] == "model" else names.get(row["of"], row["of"])
            published = {"published": PUBLISHED[row["measure"]]} if row["measure"] in PUBLISHED else {}
            rows.append(row | {"of": who} | published)
    return rows


def _short(folder: str) -> str:
    return "/".join(Path(folder).parts[-2:])

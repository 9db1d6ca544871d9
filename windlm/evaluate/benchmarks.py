"""Benchmarks, run by lm-eval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ..policy import LanguagePolicy
from .statistics import Interval
from .tables import Row, row


def benchmarks(
    policy: LanguagePolicy,
    who: str,
    tasks: Sequence[str],
    *,
    folder: Path | None = None,
    shots: int | None = None,
    limit: int | None = None,
    chat_template: bool = False,
    seed: int = 0,
) -> list[Row]:
    """Return the rows of lm-eval's results, with 95% intervals from its standard errors.

    Parameters
    ----------
    policy : LanguagePolicy
    who : str
        Name of the model in the table.
    tasks : sequence of str
        Task names of lm-eval.
    folder : Path, optional
        Folder of task files; only these tasks are then known.
    shots, limit : int, optional
        Examples in the prompt, and questions per task; None for lm-eval's own.
    chat_template : bool
        Whether to apply the model's chat template.
    seed : int
        Seed of lm-eval.

    Raises
    ------
    ValueError
        If lm-eval is not installed.
    """
    try:
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise ValueError(
            f"Benchmarks ({', '.join(tasks)}) need lm-eval: install windgames[eval], in a checkout "
            f"by pip install '.[eval]', or give prompts or questions and leave out --tasks."
        ) from None
    results = lm_eval.simple_evaluate(
        model=HFLM(pretrained=policy.model, tokenizer=policy.tokenizer, batch_size=8, device=str(policy.device)),
        tasks=list(tasks),
        task_manager=TaskManager(include_path=folder and str(folder), include_defaults=folder is None),
        num_fewshot=shots,
        limit=limit,
        apply_chat_template=chat_template,
        random_seed=seed,
    )
    rows = []
    for task in results["results"]:
        measures, n = results["results"][task], results.get("n-samples", {}).get(task, {}).get("effective", 0)
        for name, value in measures.items():
            metric, comma, how = name.partition(",")
            if not comma or metric.endswith("_stderr"):
                continue
            error = measures.get(f"{metric}_stderr,{how}")
            half = 1.96 * error if isinstance(error, float) else math.nan
            label = f"{task}: {metric}" + ("" if how == "none" else f" ({how})")
            rows.append(row(label, who, Interval(value, value - half, value + half), n))
    return rows

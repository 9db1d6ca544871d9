"""Benchmarks, run by lm-eval with its own task files."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ..policy import LanguagePolicy
from .benchmark_data import check_tasks, local_data
from .statistics import Interval, wilson
from .tables import Row, row


def benchmarks(
    policy: LanguagePolicy,
    who: str,
    tasks: Sequence[str],
    *,
    folder: Path | None = None,
    data: Path | None = None,
    cache: Path | None = None,
    batch_size: int = 8,
    shots: int | None = None,
    limit: int | None = None,
    chat_template: bool = False,
    seed: int = 0,
) -> list[Row]:
    """Return the rows of lm-eval's results with 95% intervals: of shares Wilson's, of others from its standard errors.

    Parameters
    ----------
    policy : LanguagePolicy
    who : str
        Name of the model in the table.
    tasks : sequence of str
        Task names of lm-eval.
    folder : Path, optional
        Folder of task files; only these tasks are then known.
    data : Path, optional
        Folder of local copies of the tasks' data sets, see `local_data`; None loads them from the hub.
    cache : Path, optional
        Folder in which the model's answers are kept, each as it is given, so that an evaluation that was stopped goes
        on, and one that asks for more questions repeats none.
    batch_size : int
        Questions per forward pass.
    shots, limit : int, optional
        Examples in the prompt, and questions per task; None for lm-eval's own.
    chat_template : bool
        Whether to apply the model's chat template.
    seed : int
        Seed of lm-eval.

    Raises
    ------
    ValueError
        If lm-eval is not installed, does not know a task, or its data are not in the folder.
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
    manager = TaskManager(include_path=folder and str(folder), include_defaults=folder is None)
    known = set(manager.all_tasks)
    if unknown := [task for task in tasks if task not in known]:
        among = f"; {folder} has {', '.join(sorted(known))}" if folder else ": see lm-eval ls tasks"
        raise ValueError(f"lm-eval knows no task {', '.join(map(repr, unknown))}{among}.")
    if data is not None and not data.is_dir():
        raise ValueError(f"There is no folder {str(data)!r} of benchmark data.")
    with local_data(data) if data else nullcontext():
        if data:
            check_tasks([*manager.load(list(tasks))["tasks"].values()], shots, data)
        results = lm_eval.simple_evaluate(
            model=HFLM(
                pretrained=policy.model, tokenizer=policy.tokenizer, batch_size=batch_size, device=str(policy.device)
            ),
            tasks=list(tasks),
            task_manager=manager,
            num_fewshot=shots,
            limit=limit,
            apply_chat_template=chat_template,
            random_seed=seed,
            use_cache=str(cache / fingerprint(policy)) if cache else None,
        )
    return rows_of(results, who, tasks)


def fingerprint(policy: LanguagePolicy) -> str:
    """Return a name of a model's weights, vocabulary and sizes: the hash of up to 4,096 numbers of each tensor."""
    total = hashlib.sha256(repr(policy.tokenizer.vocab_size).encode())
    for name, p in policy.model.named_parameters():
        flat = p.detach().reshape(-1)
        some = flat[:: max(1, len(flat) // 4096)].cpu().double().numpy()
        total.update(repr((name, tuple(p.shape), p.dtype)).encode() + some.tobytes())
    return total.hexdigest()[:16]


def rows_of(results: Mapping[str, Any], who: str, tasks: Sequence[str]) -> list[Row]:
    """Return the rows of lm-eval's results, each with its value on every question where lm-eval tells them."""
    groups, samples = results.get("group_subtasks", {}), results.get("samples") or {}

    def members(task: str) -> list[str]:
        """The tasks that a group consists of, and a task itself."""
        return [leaf for part in groups[task] for leaf in members(part)] if groups.get(task) else [task]

    rows = []
    for task in results["results"]:
        measures = results["results"][task]
        counts = [results.get("n-samples", {}).get(leaf, {}).get("effective", 0) for leaf in members(task)]
        for name, value in measures.items():
            metric, comma, how = name.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = measures.get(f"{metric}_stderr,{how}")
            half = 1.96 * error if isinstance(error, float) else math.nan
            label = f"{task}: {metric}" + ("" if how == "none" else f" ({how})")
            values = {
                f"{leaf}/{sample['doc_id']}": float(sample[metric])
                for leaf in members(task)
                for sample in samples.get(leaf, ())
                if sample.get("filter", "none") == how and isinstance(sample.get(metric), bool | int | float)
            }
            span = Interval(value, value - half, value + half)
            if values and {*values.values()} <= {0.0, 1.0} and math.isclose(value, sum(values.values()) / len(values)):
                span = wilson(value, len(values))  # a standard error of 0 of 8 would be 0
            found = row(label, who, span, sum(counts), values)
            rows.append(found | {"part": task not in tasks and all(task not in groups.get(t, ()) for t in tasks)})
    return rows

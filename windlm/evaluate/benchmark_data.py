"""Local copies of the data sets that lm-eval's own task files name, so that official scoring needs no hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..data import SUFFIXES, read

SUBSETS = ("subject", "subset", "config")
"""Columns that may hold the name of a configuration, where one file has the rows of all."""


@contextmanager
def local_data(folder: Path) -> Iterator[None]:
    """Let `datasets.load_dataset` find data sets of the hub in a folder, and nowhere else.

    The splits of ``owner/name`` are files such as ``name/test.jsonl`` in the folder, of the hub's columns; those of a
    configuration are in ``name/configuration/``, or are the rows with its name in a column subject, subset or config.
    """
    import datasets

    original, known = datasets.load_dataset, {}

    def load_dataset(path: str, name: str | None = None, *rest: Any, split: str | None = None, **settings: Any) -> Any:
        if "/" not in path or Path(path).exists():  # a format such as json, with files of its own
            return original(path, name, *rest, split=split, **settings)
        if (path, name) not in known:
            known[path, name] = local_splits(folder, path, name)
        return known[path, name] if split is None else known[path, name][split]

    datasets.load_dataset = load_dataset
    try:
        yield
    finally:
        datasets.load_dataset = original


def local_splits(folder: Path, path: str, name: str | None) -> Any:
    """Return the splits of a data set in a folder; a split that is not there is empty.

    Raises
    ------
    ValueError
        If there is no such data set, or no row of this configuration.
    """
    import datasets

    class Splits(datasets.DatasetDict):
        """Splits, of which those that no task uses may be missing; `check_tasks` looks at those that one does."""

        def __missing__(self, split: str) -> datasets.Dataset:
            return next(iter(self.values())).select([])

    homes = [folder / path, folder / path.rpartition("/")[2]]
    homes = [home for parent in homes for home in ([parent / name] if name else []) + [parent]]
    home, files = next(((h, found) for h in homes if (found := split_files(h))), (None, {}))
    if home is None:
        names = " or ".join(f"{home.relative_to(folder)}/test{{{','.join(SUFFIXES[:3])}}}" for home in homes)
        raise ValueError(f"{folder} has no copy of the data set {path!r}: put its splits there as {names} (or .gz).")
    splits = {}
    for split, parts in files.items():
        rows = [row for part in parts for row in read(str(part))]
        if name and home.name.lower() != name.lower():
            column = next((c for c in SUBSETS if rows and c in rows[0]), None)
            rows = rows if column is None else [row for row in rows if row[column] == name]
        splits[split] = datasets.Dataset.from_list(rows)
    if not any(len(rows) for rows in splits.values()):
        raise ValueError(f"{home} has no rows of {name!r}, a configuration of {path!r}.")
    return Splits(splits)


def split_files(home: Path) -> dict[str, list[Path]]:
    """Return the files of each split in a folder: test.jsonl, or test-00000-of-00002.parquet and the like."""
    files: dict[str, list[Path]] = {}
    for path in sorted(home.iterdir()) if home.is_dir() else ():
        stem = path.name.removesuffix(".gz")
        if path.is_file() and stem.endswith(SUFFIXES[:3]):
            files.setdefault(re.sub(r"(-\d+-of-\d+)?\.\w+$", "", stem), []).append(path)
    return files


def check_tasks(tasks: Sequence[Any], shots: int | None, folder: Path) -> None:
    """Raise ValueError if a task has no questions, or too few examples for its prompts."""
    for task in tasks:
        config = task.config
        needed = config.num_fewshot if shots is None else shots
        where = f"The benchmark {config.task} takes %s of the data set {config.dataset_path!r}, but {folder} has %s."
        if not len(task.eval_docs):
            split = config.test_split or config.validation_split
            raise ValueError(where % (f"its questions from the split {split!r}", "none of them"))
        if needed and len(found := list(task.fewshot_docs())) < needed:
            split = (config.fewshot_config or {}).get("split") if isinstance(config.fewshot_config, dict) else None
            split = split or config.fewshot_split or config.training_split or config.validation_split
            raise ValueError(where % (f"{needed} examples from the split {split!r}", f"{len(found)}"))

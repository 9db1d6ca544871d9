"""A round's rollouts on disk, in shards of prompts.

While a shard is sampled, judged and scored, each result goes into its journal, so that a run that was killed repeats
none of them. A finished shard is an Arrow file that training maps into memory, and that people read with
``datasets.load_dataset("arrow", data_files=...)`` or pandas.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from ..files import write_atomically, write_text
from ..judges.columns import endings
from ..policy import LanguagePolicy, Prompt, Samples, padded, unpadded
from ..rollout import RolloutBatch
from ..sharding import share


class Journal:
    """Results of one shard by name, each written when it is there.

    Parameters
    ----------
    folder : Path
    agree : callable
        Maps whether this process has a result to whether all have it, where processes must compute together.
    """

    def __init__(self, folder: Path, agree: Callable[[bool], bool] = lambda flag: flag) -> None:
        self.folder, self.agree = folder, agree

    def __str__(self) -> str:
        return str(self.folder)

    def has(self, name: str, together: bool = False) -> bool:
        """Return whether the result of this name is on disk (of all processes, if `together`)."""
        there = self._path(name).exists()
        return self.agree(there) if together else there

    def read(self, name: str) -> Any:
        """Return a result."""
        return torch.load(self._path(name), weights_only=False)

    def write(self, name: str, result: Any) -> None:
        """Keep a result."""

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:  # of a file that it opens itself, torch would say RuntimeError
                torch.save(result, file)

        write_atomically(self._path(name), write)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.pt"


def write_shard(
    path: Path, indices: Sequence[int], prompts: Sequence[Prompt], batch: RolloutBatch, policy: LanguagePolicy
) -> None:
    """Write the rollouts of some prompts as an Arrow file, one row a prompt.

    Columns: ``prompt_index``, ``prompt`` (text, or the messages as JSON), ``prompt_ids``, ``responses`` (text without
    special tokens), ``token_ids``, how each response ``ended`` ("end token", "stop text" or "cut" at the longest
    length), and what the stage fixed about the responses, such as ``label`` and the log-probabilities ``start`` and
    ``ref``.
    """
    samples = batch.samples
    token_ids = unpadded(samples.tokens, samples.mask)
    columns: dict[str, Any] = {
        "prompt_index": pa.array(indices, pa.int64()),
        "prompt": [p if isinstance(p, str) else json.dumps(list(p), ensure_ascii=False) for p in prompts],
        "prompt_ids": pa.array(samples.prompts, pa.list_(pa.int32())),
        "responses": pa.array(samples.text, pa.list_(pa.string())),
        "token_ids": pa.array(token_ids, pa.list_(pa.list_(pa.int32()))),
        "ended": endings(samples, policy),
    }
    types = {torch.float32: pa.float32(), torch.float64: pa.float64()}
    for name, values in batch.fixed.items():
        kind: Any = types[values.dtype]
        for _ in values.shape[1:]:
            kind = pa.list_(kind)
        columns[name] = pa.array(values.tolist(), kind)
    about = {
        "on_policy": batch.on_policy,
        "length": samples.tokens.shape[-1],
        "pad_id": policy.pad_id,
        "fixed": [*batch.fixed],
    }
    table = pa.table(columns).replace_schema_metadata({"windlm": json.dumps(about)})

    def write(temporary: Path) -> None:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)

    write_atomically(path, write)


class ShardedRollouts:
    """The rollouts of a stage, mapped from the Arrow files of a folder; indexed by position in the round."""

    def __init__(self, folder: Path) -> None:
        tables = []
        for path in sorted(folder.glob("*.arrow")):
            with pa.memory_map(str(path)) as source:
                tables.append(pa.ipc.open_file(source).read_all())
        self.about, self.schema = json.loads(tables[0].schema.metadata[b"windlm"]), tables[0].schema
        self.tables, self.ends = tables, np.cumsum([len(table) for table in tables])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: Iterable[int]) -> RolloutBatch:
        places = [int(i) for i in index]
        shards = np.searchsorted(self.ends, places, side="right")
        # row by row, since `take` of a table of many shards copies them all
        parts = [
            self.tables[s].slice(i - int(self.ends[s]) + len(self.tables[s]), 1)
            for i, s in zip(places, shards, strict=True)
        ]
        rows = pa.concat_tables(parts).to_pydict()
        tokens, mask = padded(rows["token_ids"], self.about["length"], self.about["pad_id"])
        types = {pa.float32(): torch.float32, pa.float64(): torch.float64}
        fixed = {}
        for name in self.about["fixed"]:
            kind = self.schema.field(name).type
            while pa.types.is_list(kind):
                kind = kind.value_type
            fixed[name] = torch.tensor(rows[name], dtype=types[kind])
        return RolloutBatch(
            Samples(rows["prompt_ids"], tokens, mask, rows["responses"]), fixed, self.about["on_policy"]
        )


def open_round(folder: Path, identity: dict[str, Any], policy: LanguagePolicy, keep: bool = False) -> None:
    """Begin a round's folder; what another run or other weights left there is deleted.

    Raises
    ------
    ValueError
        If something else is there and is to be kept.
    """
    sums = [f"{float(share(p.detach()).double().abs().sum()):.6g}" for p in policy.model.parameters()]
    about = identity | {"weights at the start": sha256(json.dumps(sums).encode()).hexdigest()[:16]}
    path = folder / "identity.json"
    before = json.loads(path.read_text()) if path.exists() else about
    if path.exists() and before == about:
        return
    if keep and (changed := [name for name, value in about.items() if before.get(name) != value]):
        raise ValueError(
            f"The responses in {folder} were sampled with other {', '.join(changed)}: delete it, or change that back."
        )
    shutil.rmtree(folder, ignore_errors=True)
    write_text(path, json.dumps(about, indent=2) + "\n")


def drop_old_rounds(folder: Path, keep: int | None) -> None:
    """Delete the journals of finished rounds, and all but the last `keep` rounds; None keeps all."""
    rounds = sorted(folder.glob("round-*"))
    for old in rounds[: max(0, len(rounds) - keep)] if keep is not None else []:
        shutil.rmtree(old)
    for journal in folder.glob("round-*/*/*.journal"):
        shutil.rmtree(journal)

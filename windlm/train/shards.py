"""A round's rollouts on disk, in shards of prompts.

While a shard is sampled, judged and scored, each result goes into its journal, so that a run that was killed repeats
none of them. A finished shard is an Arrow file that training maps into memory, and that people read with
``datasets.load_dataset("arrow", data_files=...)`` or pandas.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..files import write_atomically, write_text
from ..judges.columns import endings
from ..policy import LanguagePolicy, Prompt, Samples, padded, unpadded
from ..rollout import Record, RolloutBatch
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
        tensors = load_file(self._path(name))
        return unpacked(json.loads(tensors.pop("json").numpy().tobytes()), tensors)

    def write(self, name: str, result: Any) -> None:
        """Keep a result."""
        tensors: dict[str, Tensor] = {}
        text = json.dumps(packed(result, tensors))
        tensors["json"] = torch.frombuffer(bytearray(text, "ascii"), dtype=torch.uint8)
        write_atomically(self._path(name), lambda temporary: save_file(tensors, temporary))

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


PACKED = {kind.__name__: kind for kind in (Samples, Record)}
"""The dataclasses that a journal holds."""


def packed(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return a value as JSON, with its tensors and arrays by name in `tensors`; nothing is pickled.

    Raises
    ------
    TypeError
        If a part of it is of another type than a journal holds.
    """
    match value:
        case Tensor() | np.ndarray():
            name = str(len(tensors))
            tensors[name] = torch.as_tensor(value).clone(memory_format=torch.contiguous_format)
            return {"tensor" if isinstance(value, Tensor) else "array": name}
        case Samples() | Record():
            return {type(value).__name__: [packed(getattr(value, f.name), tensors) for f in fields(value)]}
        case tuple():
            return {"tuple": [packed(x, tensors) for x in value]}
        case list():
            return [packed(x, tensors) for x in value]
        case Mapping():
            return {"mapping": [[packed(k, tensors), packed(x, tensors)] for k, x in value.items()]}
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"A journal cannot hold a {type(value).__name__}.")


def unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return what `packed` was given."""
    if isinstance(value, list):
        return [unpacked(x, tensors) for x in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind in ("tensor", "array"):
        return tensors[content] if kind == "tensor" else tensors[content].numpy()
    parts = unpacked(content, tensors)
    return dict(parts) if kind == "mapping" else tuple(parts) if kind == "tuple" else PACKED[kind](*parts)


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

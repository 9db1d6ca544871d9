"""Weights on disk: shards in safetensors files, and snapshots of a policy's trainable weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from . import sharding
from .files import write_atomically
from .policy import LanguagePolicy

# -- shards --------------------------------------------------------------------------------------------------


def write_shards(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write this process's shard of some tensors, with the row of the whole tensor that each begins at."""
    shares = {name: sharding.share(x.detach()).cpu().contiguous() for name, x in tensors.items()}
    begin = {name: sharding.first_row(x) for name, x in tensors.items()}
    about = {"first_row": json.dumps(begin)}
    write_atomically(path, lambda temporary: save_file({k: x.clone() for k, x in shares.items()}, temporary, about))


def read_shards(paths: Sequence[Path], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return this process's shard of tensors that are distributed like others, from files of any number of processes.

    Raises
    ------
    ValueError
        If a tensor is absent, incomplete, or of another shape.
    """
    found = {name: torch.empty_like(sharding.share(x.detach()), device="cpu") for name, x in like.items()}
    missing = {name: torch.ones(x.shape[0] if x.dim() else 1, dtype=torch.bool) for name, x in found.items()}
    for path in paths:
        with safe_open(path, "pt") as file:
            begin, names = json.loads(file.metadata()["first_row"]), set(file.keys())
            for name in like.keys() & names:
                rows, x = file.get_slice(name), found[name]
                shape = rows.get_shape()
                if list(shape[1:]) != list(x.shape[1:]):
                    raise ValueError(f"{name} has rows of shape {shape[1:]} in {path}, but {[*x.shape[1:]]} here.")
                if not x.dim():
                    x.copy_(file.get_tensor(name))
                    missing[name][:] = False
                    continue
                offset = begin[name] - sharding.first_row(like[name])
                low, high = max(0, offset), min(len(x), offset + shape[0])
                if low < high:
                    x[low:high] = rows[low - offset : high - offset]
                    missing[name][low:high] = False
    absent = [name for name, rows in missing.items() if rows.any()]
    if absent:
        raise ValueError(f"{', '.join(map(str, paths)) or 'No file'} does not hold all of {', '.join(absent[:3])}.")
    return found


# -- snapshots -----------------------------------------------------------------------------------------------


class WeightSnapshots:
    """Snapshots of a policy's trainable weights on disk, one per slot of a rule (ref, previous, half, mixture, anchor).

    Only one model is in memory at any time. For a policy with an adapter and no snapshot ``"ref"``, that slot is the
    base model with the adapter off.

    Parameters
    ----------
    policy : LanguagePolicy
    folder : Path
    rank, world : int
        Index of this process, and the number of processes; each has files of its own.
    """

    def __init__(self, policy: LanguagePolicy, folder: Path, rank: int = 0, world: int = 1) -> None:
        self.policy, self.folder, self.file = policy, folder, f"{rank}-of-{world}.safetensors"

    def weights(self) -> dict[str, Tensor]:
        """Return the model's trainable weights."""
        sharding.settle(self.policy)
        return {name: p for name, p in self.policy.model.named_parameters() if p.requires_grad}

    def path(self, name: str) -> Path:
        """Return this process's file of a slot."""
        return self.folder / name / self.file

    def save(self, name: str) -> None:
        """Save the model's weights under a name."""
        write_shards(self.path(name), self.weights())

    def read(self, name: str) -> dict[str, Tensor]:
        """Return this process's shard of a slot, which may have been saved by another number of processes."""
        own = self.path(name)
        return read_shards([own] if own.exists() else sorted(self.folder.glob(f"{name}/*.safetensors")), self.weights())

    def load(self, name: str) -> None:
        """Load the weights of a slot into the model."""
        self.put(self.read(name))

    @torch.no_grad()
    def put(self, kept: Mapping[str, Tensor]) -> None:
        """Copy this process's shard of these weights into the model."""
        for key, p in self.weights().items():
            sharding.share(p).copy_(kept[key])

    def has(self, name: str) -> bool:
        """Return whether a slot has been saved."""
        return any(self.folder.glob(f"{name}/*.safetensors"))

    def copy(self, name: str, other: str) -> None:
        """Copy a slot to another one."""
        self.path(other).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.path(name), self.path(other))

    @contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Temporarily load the weights of a slot."""
        if name == "ref" and self.policy.has_adapter and not self.has("ref"):
            weights = self.weights().values()
            with self.policy.model.disable_adapter():
                for p in weights:  # PEFT freezes them meanwhile, and FSDP would keep that state
                    p.requires_grad_(True)
                yield
            return
        self.save("aside")
        self.load(name)
        try:
            yield
        finally:
            self.load("aside")
            self.path("aside").unlink()

    def blend(self, name: str, share: float) -> None:
        """Move a slot towards the model's weights: ``slot = (1 - share) * slot + share * current``."""
        current = self.weights()
        kept = {k: (w, sharding.share(current[k].detach()).cpu()) for k, w in self.read(name).items()}
        blended = {k: w.lerp(now.to(w.dtype), share) for k, (w, now) in kept.items()}
        write_shards(self.path(name), {k: sharding.like(w, current[k]) for k, w in blended.items()})

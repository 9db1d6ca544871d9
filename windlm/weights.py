"""Snapshots of a policy's trainable weights on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from . import sharding
from .policy import LanguagePolicy


class WeightSnapshots:
    """Snapshots of a policy's trainable weights on disk, one per slot of a rule (ref, previous, half, mixture, anchor).

    Only one model is in memory at any time. For a policy with an adapter, the slot ``"ref"`` is the base model with
    the adapter off, and needs no file.
    """

    def __init__(self, policy: LanguagePolicy, folder: Path) -> None:
        self.policy, self.folder = policy, folder
        folder.mkdir(parents=True, exist_ok=True)

    def weights(self) -> dict[str, Tensor]:
        """Return the model's trainable weights."""
        sharding.settle(self.policy)
        return {name: p for name, p in self.policy.model.named_parameters() if p.requires_grad}

    def plain(self) -> dict[str, Tensor]:
        """Return this process's shard of the trainable weights, on the CPU and without gradients."""
        return {name: sharding.share(p.detach()).cpu() for name, p in self.weights().items()}

    def path(self, name: str) -> Path:
        """Return the file of a slot."""
        return self.folder / f"{name}.pt"

    def save(self, name: str) -> None:
        """Save the model's weights under a name."""
        torch.save(self.plain(), self.path(name))

    def load(self, name: str) -> None:
        """Load the weights of a slot into the model."""
        self.put(torch.load(self.path(name), map_location="cpu", mmap=True))

    @torch.no_grad()
    def put(self, kept: Mapping[str, Tensor]) -> None:
        """Copy these weights into the model.

        Raises
        ------
        ValueError
            If a shape differs: the weights were saved by another number of processes.
        """
        for key, p in self.weights().items():
            here = sharding.share(p)
            if here.shape != kept[key].shape:
                raise ValueError(
                    f"{key} has shape {tuple(kept[key].shape)} in the snapshot, but {tuple(here.shape)} in the model: "
                    f"it was saved by another number of processes, or without sharding."
                )
            here.copy_(kept[key])

    @contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Temporarily load the weights of a slot."""
        if name == "ref" and self.policy.has_adapter:
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

    def blend(self, name: str, share: float) -> None:
        """Move a slot towards the model's weights: ``slot = (1 - share) * slot + share * current``."""
        kept = torch.load(self.path(name), map_location="cpu")
        current = self.plain()
        torch.save({k: w.lerp(current[k].to(w.dtype), share) for k, w in kept.items()}, self.path(name))

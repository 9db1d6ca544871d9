"""Copies of a policy's weights that are set aside on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from . import sharding
from .policy import LanguagePolicy


class WeightSnapshots:
    """Copies of a policy's trainable weights by name, kept on disk: the slots of a rule's stages.

    One model is in memory at any time. The slot ``"ref"`` of a policy with an adapter is the base model with the
    adapter off, and takes no file.
    """

    def __init__(self, policy: LanguagePolicy, folder: Path) -> None:
        self.policy, self.folder = policy, folder
        folder.mkdir(parents=True, exist_ok=True)

    def weights(self) -> dict[str, Tensor]:
        """Return the trainable weights that are in the model now."""
        sharding.settle(self.policy)
        return {name: p for name, p in self.policy.model.named_parameters() if p.requires_grad}

    def plain(self) -> dict[str, Tensor]:
        """Return this process's share of them on the CPU and without gradients, for a file."""
        return {name: sharding.share(p.detach()).cpu() for name, p in self.weights().items()}

    def path(self, name: str) -> Path:
        """Return where a slot lies."""
        return self.folder / f"{name}.pt"

    def save(self, name: str) -> None:
        """Set the weights of now aside."""
        torch.save(self.plain(), self.path(name))

    def load(self, name: str) -> None:
        """Put the weights of a slot into the model."""
        self.put(torch.load(self.path(name), map_location="cpu", mmap=True))

    @torch.no_grad()
    def put(self, kept: Mapping[str, Tensor]) -> None:
        """Put these weights into the model."""
        for key, p in self.weights().items():
            here = sharding.share(p)
            if here.shape != kept[key].shape:
                raise ValueError(f"The share of {key} was set aside by another number of processes, or not sharded.")
            here.copy_(kept[key])

    @contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Let the policy be that of a slot for a while."""
        if name == "ref" and self.policy.has_adapter:
            weights = self.weights().values()
            with self.policy.model.disable_adapter():
                for p in weights:  # which PEFT freezes meanwhile, and FSDP would remember
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
        """Move a slot towards the weights of now: ``slot = (1 - share) slot + share now``."""
        kept = torch.load(self.path(name), map_location="cpu")
        now = self.plain()
        torch.save({k: w.lerp(now[k].to(w.dtype), share) for k, w in kept.items()}, self.path(name))

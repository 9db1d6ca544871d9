"""Checkpoints, written atomically, and the identity of a run that a checkpoint belongs to."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ..data import Prompts
from ..judges import key
from ..objectives import Objective
from ..policy import LanguagePolicy
from ..weights import WeightSnapshots
from .config import Config

MAY_CHANGE = (
    *("out", "progress", "checkpoint_every", "keep_rollouts", "trackers", "processes", "cpu"),
    *("show_every", "completions", "stop_when", "report", "on_judge_error", "judge_retries"),
)
"""Training settings that may change when a run is resumed."""


def describe(config: Config, objective: Objective, policy: LanguagePolicy, prompts: Prompts) -> dict[str, Any]:
    """Return the identity of a run: the settings, prompts and shapes that must not change when it is resumed.

    The judge is code and is not part of it.
    """
    settings = {k: v for k, v in asdict(config).items() if k not in MAY_CHANGE}
    draws = {name: getattr(policy, name) for name in ("max_new_tokens", "temperature", "top_p", "stop")}
    name = re.sub(r" at 0x[0-9a-f]+", "", repr(objective))
    shapes = [[n, *p.shape] for n, p in policy.model.named_parameters() if p.requires_grad]
    digests = {
        k: sha256(json.dumps(x, default=repr).encode()).hexdigest()[:16]
        for k, x in (("prompts", [*map(key, prompts), *prompts.columns.items()]), ("weights", shapes))
    }
    return json.loads(json.dumps(settings | draws | digests | {"objective": name}))


def save_checkpoint(
    folder: Path, accelerator: Accelerator, number: int, state: dict[str, Any], snapshots: WeightSnapshots
) -> None:
    """Write a checkpoint to a temporary folder, rename it atomically, then delete the older ones."""
    temporary, final = folder / f"writing-{number:06d}", folder / f"round-{number:06d}"
    if accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    accelerator.wait_for_everyone()
    path = temporary / f"rank-{accelerator.process_index}.pt"
    torch.save(state | {"weights": snapshots.plain()}, path)
    sync(path)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        sync(temporary)
        os.replace(temporary, final)
        sync(folder)
        for old in sorted(folder.glob("round-*"))[:-1]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def load_checkpoint(folder: Path, rank: int) -> dict[str, Any] | None:
    """Return this process's part of the newest checkpoint, or None if there is no checkpoint.

    Raises
    ------
    ValueError
        If the checkpoint was saved by another number of processes.
    """
    saved = sorted(folder.glob("round-*"))
    if not saved:
        return None
    path = saved[-1] / f"rank-{rank}.pt"
    if not path.exists():
        raise ValueError(
            f"{saved[-1]} has no part for process {rank}: resume with the number of processes that saved it."
        )
    return torch.load(path, map_location="cpu", weights_only=False)


def sync(path: Path) -> None:
    """Flush a file or folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Schedules of learning rates."""

from __future__ import annotations

import math


def rate(schedule: str, warmup: int, step: int, total: int) -> float:
    """Return the learning rate at an optimizer step, as a fraction of its peak: `warmup` steps up, then `schedule`."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}[schedule]

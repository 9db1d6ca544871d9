"""Training: one function, `train`, its settings, `Config`, and `judge_round` for a judge on a machine of its own."""

from .config import Config
from .loop import train
from .stages import judge_round

__all__ = ["Config", "judge_round", "train"]

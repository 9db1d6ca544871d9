"""Training: `train`, its settings, `Config`, `HeldOut` prompts, and `judge_round` for a judge on another machine."""

from .config import Config
from .loop import train
from .metrics import HeldOut
from .stages import judge_round

__all__ = ["Config", "HeldOut", "judge_round", "train"]

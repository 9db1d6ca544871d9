"""Training: one function, `train`, and its settings, `Config`."""

from .config import Config
from .loop import train

__all__ = ["Config", "train"]

"""Training: `train` and its `Config`."""

from .config import Config
from .loop import train

__all__ = ["Config", "train"]

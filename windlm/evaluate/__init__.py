"""Evaluation of a model: win rates with intervals, diversity, chat judges, benchmarks."""

from .chat import ChatJudge, Endpoint, LocalChat
from .statistics import Interval, diversity, interval, win_rates

__all__ = ["ChatJudge", "Endpoint", "Interval", "LocalChat", "diversity", "interval", "win_rates"]

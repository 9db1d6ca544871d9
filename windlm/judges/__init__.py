"""Judges: preferences over the responses to a prompt, from functions, reward models, preference models, chat models."""

from .base import Judge, JudgeError, PairwiseJudge, RewardJudge, key
from .chat import ChatComparison, Endpoint, LocalChat
from .pairrm import PairRM
from .reward_model import EmbeddingJudge, EmbeddingModel, PairwiseModel, RewardModel

__all__ = [
    "ChatComparison",
    "EmbeddingJudge",
    "EmbeddingModel",
    "Endpoint",
    "Judge",
    "JudgeError",
    "LocalChat",
    "PairRM",
    "PairwiseJudge",
    "PairwiseModel",
    "RewardJudge",
    "RewardModel",
    "key",
]

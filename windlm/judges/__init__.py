"""Judges: preferences over the responses to a prompt, from a reward, a pairwise function or a reward model."""

from .base import Judge, JudgeError, PairwiseJudge, RewardJudge, key
from .reward_model import RewardModel

__all__ = ["Judge", "JudgeError", "PairwiseJudge", "RewardJudge", "RewardModel", "key"]

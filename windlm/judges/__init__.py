"""Judges: who wins among the responses of a prompt, as a windgames preference."""

from .base import Judge, PairwiseJudge, RewardJudge, key
from .reward_model import RewardModel

__all__ = ["Judge", "PairwiseJudge", "RewardJudge", "RewardModel", "key"]

r"""Preferences: how likely each response is to beat each other, and the win rates of policies.

A preference over ``m`` responses is a matrix :math:`P \in [0,1]^{m\times m}`, one per context:
``P[..., i, j]`` is the probability that response ``i`` beats response ``j``. A game only uses the win
rates :math:`(P\pi)_i` of a policy, or their logarithms; a preference that comes from a reward answers with
one sort and one cumulative sum and never builds the matrix (theory 1.2).
"""

from .base import Preference
from .comparisons import Comparisons
from .counts import from_counts
from .low_rank import LowRankPreference
from .matrix import BradleyTerryPreference, MatrixPreference
from .reward import RewardPreference

__all__ = [
    "BradleyTerryPreference",
    "Comparisons",
    "LowRankPreference",
    "MatrixPreference",
    "Preference",
    "RewardPreference",
    "from_counts",
]

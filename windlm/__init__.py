"""windlm: the update rules of windgames on language models.

A causal language model becomes a policy whose log-probabilities are exact, a reward or a pairwise judge becomes a
windgames preference over the responses it drew, and any rule of windgames becomes a regression onto its target. Small
models can be enumerated, so a trained transformer can be compared with the equilibrium itself.
"""

from . import data, evaluate, judges, objectives, policy, tabular, train
from .implicit import equilibrium_policy
from .judges import Judge, PairwiseJudge, RewardJudge, RewardModel
from .objectives import BestOfN, JBond, Objective, Regression, bond, sppo, wind
from .policy import LanguagePolicy, Samples
from .tabular import Enumeration
from .train import Config

__all__ = [
    "BestOfN",
    "Config",
    "Enumeration",
    "JBond",
    "Judge",
    "LanguagePolicy",
    "Objective",
    "PairwiseJudge",
    "Regression",
    "RewardJudge",
    "RewardModel",
    "Samples",
    "bond",
    "data",
    "equilibrium_policy",
    "evaluate",
    "judges",
    "objectives",
    "policy",
    "sppo",
    "tabular",
    "train",
    "wind",
]

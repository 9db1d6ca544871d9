"""windlm: the update rules of windgames on language models.

A causal language model becomes a policy whose log-probabilities are exact, a reward or a pairwise judge becomes a
windgames preference over the sampled responses, and any rule of windgames becomes a regression onto its target. Small
models can be enumerated, so a trained transformer can be compared with the equilibrium itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import data, evaluate, judges, models, objectives, policy, tabular, train
    from .implicit import equilibrium_policy
    from .judges import Judge, PairwiseJudge, RewardJudge, RewardModel
    from .objectives import GRPO, RLOO, BestOfN, JBond, Objective, Pairs, Regression, bond, sppo, wind
    from .policy import LanguagePolicy, Samples
    from .tabular import Enumeration
    from .train import Config

__all__ = [
    "GRPO",
    "RLOO",
    "BestOfN",
    "Config",
    "Enumeration",
    "JBond",
    "Judge",
    "LanguagePolicy",
    "Objective",
    "Pairs",
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
    "models",
    "objectives",
    "policy",
    "sppo",
    "tabular",
    "train",
    "wind",
]

_MODULES = ("data", "evaluate", "judges", "models", "objectives", "policy", "tabular", "train")
_HOMES = {
    "implicit": ("equilibrium_policy",),
    "judges": ("Judge", "PairwiseJudge", "RewardJudge", "RewardModel"),
    "objectives": ("GRPO", "RLOO", "BestOfN", "JBond", "Objective", "Pairs", "Regression", "bond", "sppo", "wind"),
    "policy": ("LanguagePolicy", "Samples"),
    "tabular": ("Enumeration",),
    "train": ("Config",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``windlm --help`` does not wait for torch."""
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

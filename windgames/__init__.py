"""windgames: preference games, their equilibria, and update rules.

Implements and extends *Faster WIND: Accelerating Iterative Best-of-N Distillation for LLM Alignment*
(arXiv 2410.20727). The mathematics is in ``theory.md`` beside this file; docstrings cite its numbers.
"""

from typing import Any

from . import bandits, bounds, continuum, interop, objectives, oracles, rules
from .describe import Description, describe
from .divergences import hilbert, kl, log_normalize
from .equilibria import Sensitivity, equilibrium, equilibrium_path, sensitivity
from .games import BestOfNGame, Game, LogWinRateGame, WinRateGame
from .operators import best_of_n, geometric_mixture, tournament
from .preferences import (
    BradleyTerryPreference,
    Comparisons,
    LowRankPreference,
    MatrixPreference,
    Preference,
    RewardPreference,
    from_counts,
)
from .proximal import proximal_point
from .rules import extragradient, inpo, iterative_bon, moving_reference, nash_md, omwu, optimistic, sppo, wind
from .solution import Solution, Trace
from .solve import solve
from .updates import GameConstants, Guarantee, Plan, Rule, Stage, target
from .verify import Verification, verify
from .zero_sum import ZeroSumEmbedding, embed_zero_sum

__version__ = "0.1.0"

__all__ = [
    "BestOfNGame",
    "BradleyTerryPreference",
    "Comparisons",
    "Description",
    "Game",
    "GameConstants",
    "Guarantee",
    "LogWinRateGame",
    "LowRankPreference",
    "MatrixPreference",
    "Plan",
    "Preference",
    "RewardPreference",
    "Rule",
    "Sensitivity",
    "Solution",
    "Stage",
    "Trace",
    "Verification",
    "WinRateGame",
    "ZeroSumEmbedding",
    "bandits",
    "best_of_n",
    "bounds",
    "continuum",
    "describe",
    "embed_zero_sum",
    "equilibrium",
    "equilibrium_path",
    "extragradient",
    "from_counts",
    "geometric_mixture",
    "hilbert",
    "inpo",
    "interop",
    "iterative_bon",
    "kl",
    "log_normalize",
    "moving_reference",
    "nash_md",
    "objectives",
    "omwu",
    "optimistic",
    "oracles",
    "proximal_point",
    "rules",
    "sensitivity",
    "solve",
    "sppo",
    "target",
    "tournament",
    "verify",
    "wind",
]


def __dir__() -> list[str]:
    return sorted([*__all__, "testing"])


def __getattr__(name: str) -> Any:
    if name == "testing":  # on demand, since it needs hypothesis
        from importlib import import_module

        return import_module("windgames.testing")
    raise AttributeError(f"module 'windgames' has no attribute {name!r}")

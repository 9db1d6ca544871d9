"""windgames: preference games, their equilibria, and the rules that find them.

Implements and extends *Faster WIND: Accelerating Iterative Best-of-N Distillation for LLM Alignment*
(arXiv 2410.20727). The mathematics is in ``theory.md`` beside this file; docstrings cite its numbers.
"""

from . import bandits, bounds, continuum, objectives, oracles, rules
from .describe import Description, describe
from .equilibria import equilibrium
from .games import BestOfNGame, Game, LogWinRateGame, WinRateGame
from .operators import best_of_n, geometric_mixture, tournament
from .paths import equilibrium_path
from .preferences import (
    BradleyTerryPreference,
    LowRankPreference,
    MatrixPreference,
    Preference,
    RewardPreference,
    from_counts,
)
from .proximal import proximal_point
from .sensitivity import Sensitivity, sensitivity
from .solve import Solution, Trace, solve
from .updates import (
    Guarantee,
    Plan,
    Rule,
    Stage,
    extragradient,
    inpo,
    iterative_bon,
    nash_md,
    omwu,
    optimistic,
    sppo,
    target,
    wind,
)
from .verify import Verification, verify

__version__ = "0.1.0"

__all__ = [
    "BestOfNGame",
    "BradleyTerryPreference",
    "Description",
    "Game",
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
    "bandits",
    "best_of_n",
    "bounds",
    "continuum",
    "describe",
    "equilibrium",
    "equilibrium_path",
    "extragradient",
    "from_counts",
    "geometric_mixture",
    "inpo",
    "iterative_bon",
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

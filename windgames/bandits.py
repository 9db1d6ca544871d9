"""The import name of the sampled learners: see `windgames.learning`."""

from .learning import Distil, JBond, Learner, LogLinear, Regress, Reinforce, Run, Seen, Tabular, draw, run
from .oracles import BudgetExhausted, Oracle

__all__ = [
    "BudgetExhausted",
    "Distil",
    "JBond",
    "Learner",
    "LogLinear",
    "Oracle",
    "Regress",
    "Reinforce",
    "Run",
    "Seen",
    "Tabular",
    "draw",
    "run",
]

"""Sampled learners and their oracles under one import name; the code is in `windgames.learning` and `.oracles`."""

from .learning import (
    BestOfN,
    JBond,
    LabelledSamples,
    Learner,
    LogLinear,
    Regression,
    Reinforce,
    Run,
    Tabular,
    run,
    sample,
)
from .oracles import BudgetExhausted, Oracle

__all__ = [
    "BestOfN",
    "BudgetExhausted",
    "JBond",
    "LabelledSamples",
    "Learner",
    "LogLinear",
    "Oracle",
    "Regression",
    "Reinforce",
    "Run",
    "Tabular",
    "run",
    "sample",
]

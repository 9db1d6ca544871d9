"""Equilibria of games: `equilibrium`, `equilibrium_path` for many values of beta, and their `sensitivity`."""

from .direct import equilibrium
from .paths import equilibrium_path
from .sensitivity import Sensitivity, sensitivity

__all__ = ["Sensitivity", "equilibrium", "equilibrium_path", "sensitivity"]

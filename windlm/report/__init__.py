"""Reports of runs: one HTML file that needs no network, curves as CSV and PNG."""

from .page import write
from .runs import read_run

__all__ = ["read_run", "write"]

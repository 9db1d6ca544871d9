"""The studies of solvers.py, one file each."""

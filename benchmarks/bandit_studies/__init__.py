"""The studies of bandit.py, one file each."""

"""The studies of lm.py."""

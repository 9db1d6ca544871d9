"""The parts of paper.py."""

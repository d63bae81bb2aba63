"""What lasts as long as the process: a mutant's tests run in a fork of one that has run them all (`make mutants`)."""

MODELS: dict = {}
"""Tiny models by architecture. Not in conftest.py, which each run of pytest imports anew."""

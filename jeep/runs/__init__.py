"""Runs: facts edited at once, or one batch after another, and measured; a run that was killed goes on.

It may import `editors` and below.
"""

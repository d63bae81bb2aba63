"""Efficacy, generalization, locality and Score of a model, edited or not (Eqs. 13-18), and what an edit breaks.

It may import `model` and below.
"""

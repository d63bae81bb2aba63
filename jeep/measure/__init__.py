"""Efficacy, generalization, locality and Score of a model, edited or not (Eqs. 13-18).

It may import `model` and below.
"""

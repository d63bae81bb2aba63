"""The search for the hyper-parameters of small models, on development facts.

It may import `editors` and below.
"""

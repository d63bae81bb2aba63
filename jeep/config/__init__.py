"""The typed configuration, validated before anything starts; without torch.

It may import `editors` and below.
"""

"""The ground: files that appear whole, errors for people, devices, digests of code, the vocabulary of settings.

It imports no other folder, and torch inside functions only.
"""

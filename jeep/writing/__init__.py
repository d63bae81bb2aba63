"""Regions of layers written by the closed form (Eq. 10), and the covariances that it needs.

It may import `vectors` and below.
"""

"""Target vectors: δ optimised at sites of the forward pass (Eqs. 8, 11, 12), and what an editor is given to do.

It may import `model` and below.
"""

"""What is trained: hyper-networks on keys and gradients (MEND, MALMEN), and one block on answers (FT-WD).

Also what of these needs no training: keys and gradients, and the ridge regression on them (UltraEdit).

It may import `model` and below.
"""

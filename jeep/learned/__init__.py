"""What is trained: hyper-networks on keys and gradients (MEND, MALMEN), and one block on answers (FT-WD).

It may import `model` and below.
"""

"""The language model: architectures, packed batches through its blocks, tokens, checkpoints of long work.

It may import `data` and below.
"""

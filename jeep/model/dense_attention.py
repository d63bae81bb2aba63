"""Inputs of blocks that compute attention themselves: a mask over all pairs of a batch's tokens, a bias by distance.

Every token's scores with every other are computed and most of them masked: right, and slower than `packed_attention`.
"""

import sys
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from jeep.model.attention import Packing


class _InFront:
    """Takes the place of a cache: keeps keys and values where they are asked for, and puts constant ones in front."""

    def __init__(self, packing: Packing):
        self.packing = packing

    def update(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values (1, heads, n, size) behind the context's."""
        self.packing.keep(layer, key, value)
        if self.packing.context is None:
            return key, value
        front = (states.transpose(0, 1)[None] for states in self.packing.context.layers[layer])
        return tuple(torch.cat(pair, 2) for pair in zip(front, (key, value), strict=True))


def dense_inputs(network: nn.Module, packing: Packing, *, biased: bool) -> dict[str, Any]:
    """The mask, the bias (None where attention is not `biased`) and what stands for a cache, for every block."""
    alibi = packing.once("alibi", lambda: _alibi(network, packing)) if biased else None
    mask = packing.once("pairs", lambda: _pairs(packing))
    return {"attention_mask": mask, "alibi": alibi, "layer_past": _InFront(packing)}


def _context_positions(packing: Packing) -> Int[Tensor, " k"]:
    """The position of each token that the context holds."""
    index = packing.context.index.cpu()
    keys, _ = next(iter(packing.context.layers.values()))
    positions = torch.zeros(len(keys), dtype=torch.long)
    rows, columns = (index >= 0).nonzero(as_tuple=True)
    return positions.index_copy_(0, index[rows, columns], columns)


def _pairs(packing: Packing) -> Float[Tensor, "1 1 n kn"]:
    """Additive: a token sees its sequence's context, and its sequence up to itself."""
    row, within = packing.row, packing.within
    seen = (row[:, None] == row) & (within[:, None] >= within)
    if packing.context is not None:
        index = packing.context.index.cpu()
        front = torch.zeros(len(index), len(_context_positions(packing)), dtype=torch.bool)
        rows, columns = (index >= 0).nonzero(as_tuple=True)
        front[rows, index[rows, columns]] = True
        seen = torch.cat([front[row], seen], 1)
    mask = torch.zeros(seen.shape, dtype=packing.dtype).masked_fill_(~seen, float("-inf"))
    return mask[None, None].to(packing.device)


def _alibi(network: nn.Module, packing: Packing) -> Float[Tensor, "heads 1 kn"]:
    """The model's own bias, at the position of every key."""
    positions = packing.positions.cpu()
    if packing.context is not None:
        positions = torch.cat([_context_positions(packing), positions])
    build = sys.modules[type(network).__module__].build_alibi_tensor
    every = torch.ones(1, int(positions.max()) + 1, dtype=torch.long)
    return build(every, network.config.num_attention_heads, packing.dtype)[:, :, positions].to(packing.device)

"""Packed batches and attention over them: sequences laid end to end, so that only attention needs padding.

Transformers' own blocks run on one list of N tokens. Only attention needs to know where a sequence ends: it receives
the `Packing` in place of its mask, lays queries, keys and values out on a padded grid, puts constant keys and values
of earlier tokens in front where there are some, and packs the result again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface
from transformers.models.gptj.modeling_gptj import GPTJAttention

PACKED = "jeep_packed"


class _Pad(torch.autograd.Function):
    """Rows of a packed list to their slots of a zeroed grid; every slot is filled at most once."""

    @staticmethod
    def forward(ctx, packed, slots, size):
        ctx.save_for_backward(slots)
        return packed.new_zeros(size, packed.shape[1]).index_copy_(0, slots, packed)

    @staticmethod
    def backward(ctx, grad):
        return grad.index_select(0, ctx.saved_tensors[0]), None, None


class _Unpad(torch.autograd.Function):
    """The slots of a grid that hold tokens, as a packed list."""

    @staticmethod
    def forward(ctx, grid, slots):
        ctx.save_for_backward(slots)
        ctx.size = grid.shape[0]
        return grid.index_select(0, slots)

    @staticmethod
    def backward(ctx, grad):
        slots = ctx.saved_tensors[0]
        return grad.new_zeros(ctx.size, grad.shape[1]).index_copy_(0, slots, grad), None


KeysValues = tuple[Float[Tensor, "n heads size"], Float[Tensor, "n heads size"]]


@dataclass
class Context:
    """Constant keys and values in front of each sequence, by layer; `index` picks them from packed lists of tokens."""

    index: Tensor
    """(B, C) token indices into the packed keys and values; -1 pads."""
    layers: dict[int, KeysValues]

    def rows(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer as (B, heads, C, size)."""
        index = self.index.clamp(min=0)
        return tuple(tensor[index].transpose(1, 2) for tensor in self.layers[layer])  # type: ignore[return-value]


@dataclass
class Packing:
    """The geometry of a packed batch of B sequences with N tokens in all."""

    lengths: Sequence[int]
    device: torch.device
    dtype: torch.dtype
    starts: Sequence[int] | None = None
    """Position of each sequence's first token; 0 where absent."""
    context: Context | None = None
    record: dict[int, KeysValues] | None = None
    """Where given, every layer's keys and values are kept in it."""
    _made: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """The value that `make` returns, made once for this packing."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def __post_init__(self):
        lengths = torch.tensor(self.lengths)
        self.width = max(self.lengths)
        row = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        self.offsets = torch.cumsum(lengths, 0) - lengths
        within = torch.arange(int(lengths.sum())) - self.offsets[row]
        starts = torch.zeros_like(lengths) if self.starts is None else torch.tensor(self.starts)
        self.positions = (within + starts[row]).to(self.device)
        self.slots = (row * self.width + within).to(self.device)
        self.mask = self._mask(lengths)

    def _mask(self, lengths: Tensor) -> Tensor:
        """Additive (B, 1, S, C + S) mask: the context, then every token of the sequence up to the query."""
        place = torch.arange(self.width)
        own = (place[None, :, None] >= place) & (place < lengths[:, None, None])
        if self.context is not None:
            front = (self.context.index.cpu() >= 0)[:, None].expand(-1, self.width, -1)
            own = torch.cat([front, own], 2)
        mask = torch.zeros(own.shape, dtype=self.dtype).masked_fill_(~own, float("-inf"))
        return mask[:, None].to(self.device)

    def pad(self, tensor: Float[Tensor, "1 heads n size"]) -> Float[Tensor, "b heads s size"]:
        """A packed projection on the padded grid."""
        _, heads, tokens, size = tensor.shape
        packed = tensor[0].transpose(0, 1).reshape(tokens, heads * size)
        grid = _Pad.apply(packed, self.slots, len(self.lengths) * self.width)
        return grid.view(len(self.lengths), self.width, heads, size).transpose(1, 2)

    def unpad(self, tensor: Float[Tensor, "b heads s size"]) -> Float[Tensor, "1 n heads size"]:
        """A padded grid as a packed list again."""
        _, heads, _, size = tensor.shape
        grid = tensor.transpose(1, 2).reshape(-1, heads * size)
        return _Unpad.apply(grid, self.slots).view(1, -1, heads, size)


def packed_attention(module, query, key, value, attention_mask: Packing, scaling=None, **_):
    """Attention of a packed batch, in the form of transformers' attention interface."""
    packing, layer = attention_mask, module.layer_idx
    if packing.record is not None:
        packing.record[layer] = (key[0].transpose(0, 1).detach(), value[0].transpose(0, 1).detach())
    query, key, value = (packing.pad(tensor) for tensor in (query, key, value))
    if packing.context is not None:
        front = packing.context.rows(layer)
        key, value = (torch.cat(pair, 2) for pair in zip(front, (key, value), strict=True))
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (tensor.repeat_interleave(groups, 1) for tensor in (key, value))
    output = functional.scaled_dot_product_attention(query, key, value, packing.mask, scale=scaling)
    return packing.unpad(output), None


AttentionInterface.register(PACKED, packed_attention)


def use_packed_attention(network) -> None:
    """Make a model's blocks take a Packing in place of the attention mask.

    GPT-J predates transformers' attention interface: its `_attn`, which has the same place in the block, is replaced.
    """
    network.config._attn_implementation = PACKED
    for module in network.modules():
        if isinstance(module, GPTJAttention):
            module._attn = partial(_gptj_attention, module)


def _gptj_attention(module, query, key, value, attention_mask=None):
    """GPTJAttention._attn for a packed batch; its caller merges the heads of (1, heads, n, size)."""
    output, _ = packed_attention(module, query, key, value, attention_mask, scaling=1 / module.scale_attn)
    return output.transpose(1, 2), None


def chunks(lengths: list[int], budget: int) -> list[list[int]]:
    """Split sequences, shortest first, into batches of at most `budget` padded tokens (at least one sequence each)."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batches and (len(batches[-1]) + 1) * lengths[index] <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def flat(ids: Sequence[Sequence[int]], device: torch.device) -> Int[Tensor, " n"]:
    """Sequences laid end to end."""
    return torch.tensor([token for row in ids for token in row], device=device)

"""Packed batches and attention over them: sequences laid end to end, so that only attention needs padding.

Transformers' own blocks run on one list of N tokens. Only attention needs to know where a sequence ends: it receives
the `Packing` in place of its mask, lays queries, keys and values out on a padded grid, puts constant keys and values
of earlier tokens in front where there are some, and packs the result again.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface

from jeep.common.errors import UserError
from jeep.model.segments import each_place_once

PACKED, PACKED_PRECISE = "jeep_packed", "jeep_packed_precise"

KeysValues = tuple[Float[Tensor, "n heads size"], Float[Tensor, "n heads size"]]


class _Spread(torch.autograd.Function):
    """Rows to the slots of a grid. Empty slots repeat some row: a mask or `_Gather`'s backward keeps them out."""

    @staticmethod
    def forward(ctx, rows, source, slots):
        ctx.save_for_backward(slots)
        return rows.index_select(0, source)

    @staticmethod
    def backward(ctx, grad):
        return grad.index_select(0, ctx.saved_tensors[0]), None, None


class _Fill(torch.autograd.Function):
    """Rows to the slots of a given grid, in place; what else the grid holds is constant."""

    @staticmethod
    def forward(ctx, rows, grid, slots):
        ctx.save_for_backward(slots)
        with each_place_once():
            grid[0].index_copy_(0, slots, rows)
        return grid[0].detach()

    @staticmethod
    def backward(ctx, grad):
        return grad.index_select(0, ctx.saved_tensors[0]), None, None


class _Gather(torch.autograd.Function):
    """The slots of a grid that hold rows."""

    @staticmethod
    def forward(ctx, grid, slots):
        ctx.save_for_backward(slots)
        ctx.size = grid.shape
        return grid.index_select(0, slots)

    @staticmethod
    def backward(ctx, grad):
        with each_place_once():
            return grad.new_zeros(ctx.size).index_copy_(0, ctx.saved_tensors[0], grad), None


@dataclass
class Context:
    """Constant keys and values in front of each sequence, by layer; `index` picks them from packed lists of tokens."""

    index: Int[Tensor, "b c"]
    """Token indices into the packed keys and values; -1 pads."""
    layers: dict[int, KeysValues]

    @property
    def width(self) -> int:
        """Tokens of the longest context."""
        return self.index.shape[1]


@dataclass
class Packing:
    """The geometry of a packed batch of B sequences with N tokens in all, the longest of S; C tokens of context."""

    lengths: Sequence[int]
    device: torch.device
    dtype: torch.dtype
    starts: Sequence[int] | None = None
    """Position of each sequence's first token; 0 where absent."""
    context: Context | None = None
    record: dict[int, KeysValues] | None = None
    """Where given, every layer's keys and values are kept in it."""
    repeated: bool = False
    """The batch runs many times: the grids with its constant keys and values are kept from one run to the next."""
    _made: dict[Any, Any] = field(default_factory=dict)

    def __post_init__(self):
        lengths = torch.tensor(self.lengths)
        self.width = max(self.lengths)
        self.row = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        self.offsets = torch.cumsum(lengths, 0) - lengths
        self.within = torch.arange(int(lengths.sum())) - self.offsets[self.row]
        starts = torch.zeros_like(lengths) if self.starts is None else torch.tensor(self.starts)
        self.positions = (self.within + starts[self.row]).to(self.device)

    def on(self, device: torch.device) -> "Packing":
        """The same for a block that runs on another device, where the keys and values of its context are."""
        if device == self.device:
            return self

        def make() -> Packing:
            index = self.context and self.context.index.to(device)
            context = self.context and replace(self.context, index=index)
            return replace(self, device=device, context=context, _made={})

        return self.once(("on", device), make)

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """The value that `make` returns, made once for this packing."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def keep(self, layer: int, key: Float[Tensor, "1 heads n size"], value: Float[Tensor, "1 heads n size"]) -> None:
        """Keep a layer's keys and values where `record` asks for them."""
        if self.record is not None:
            self.record[layer] = (key[0].transpose(0, 1).detach(), value[0].transpose(0, 1).detach())

    def mask(self, groups: int, window: int | None = None) -> Float[Tensor, "b 1 gs cs"]:
        """Additive mask: a query sees the context and its sequence up to itself; repeated for each group of heads.

        With a `window`, it sees that many tokens, itself among them.
        """
        made = ("mask", groups, window)
        return self.once(made, lambda: self._mask(window).repeat(1, groups, 1)[:, None].to(self.device))

    def _mask(self, window: int | None) -> Tensor:
        place, lengths = torch.arange(self.width), torch.tensor(self.lengths)
        seen = (place[None, :, None] >= place) & (place < lengths[:, None, None])
        if self.context is not None:
            front = (self.context.index.cpu() >= 0)[:, None].expand(-1, self.width, -1)
            seen = torch.cat([front, seen], 2)
        if window is not None:
            starts = torch.zeros_like(lengths) if self.starts is None else torch.tensor(self.starts)
            queries = keys = starts[:, None] + place
            if self.context is not None:
                keys = torch.cat([torch.arange(self.context.width).expand(len(lengths), -1), keys], 1)
            seen &= queries[:, :, None] - keys[:, None] < window
            seen |= (place >= lengths[:, None])[:, :, None]  # padding sees something: of nothing, gradients are NaN
        return torch.zeros(seen.shape, dtype=self.dtype).masked_fill_(~seen, float("-inf"))

    def slots(self, heads: int, front: int = 0) -> Int[Tensor, " nh"]:
        """Where the rows (token, head) of a packed tensor stand on a (B, heads, front + S) grid."""

        def make() -> Tensor:
            head = torch.arange(heads)
            slots = (self.row[:, None] * heads + head) * (front + self.width) + front + self.within[:, None]
            return slots.flatten().to(self.device)

        return self.once(("slots", heads, front), make)

    def source(self, heads: int) -> Int[Tensor, " bhs"]:
        """The row (token, head) for every slot of a (B, heads, S) grid; the first row where a slot is empty."""

        def make() -> Tensor:
            source = torch.zeros(len(self.lengths) * heads * self.width, dtype=torch.long, device=self.device)
            slots = self.slots(heads)
            return source.index_copy_(0, slots, torch.arange(len(slots), device=self.device))

        return self.once(("source", heads), make)

    def spread(self, query: Float[Tensor, "1 heads n size"]) -> Float[Tensor, "b heads s size"]:
        """Queries on the padded grid."""
        heads = query.shape[1]
        rows = _Spread.apply(_rows(query), self.source(heads), self.slots(heads))
        return rows.view(len(self.lengths), heads, self.width, -1)

    def behind_context(self, states: Float[Tensor, "1 heads n size"], layer: int, which: int) -> Tensor:
        """Keys (`which` 0) or values (1) on the padded grid (B, heads, C + S, size), behind the constant ones."""
        heads, size = states.shape[1], states.shape[3]
        front = self.context.width if self.context is not None else 0
        make = partial(self._grid, states, layer, which, front)
        grid = self.once((layer, which), make) if self.repeated else make()
        rows = _Fill.apply(_rows(states), (grid,), self.slots(heads, front))
        return rows.view(len(self.lengths), heads, front + self.width, size)

    def _grid(self, like: Tensor, layer: int, which: int, front: int) -> Float[Tensor, "bhcs size"]:
        _, heads, _, size = like.shape
        grid = like.new_zeros(len(self.lengths), heads, front + self.width, size)
        if self.context is not None:
            constant = self.context.layers[layer][which][self.context.index.clamp(min=0)]
            grid[:, :, :front] = constant.transpose(1, 2)
        return grid.view(-1, size)

    def gather(self, output: Float[Tensor, "b heads s size"]) -> Float[Tensor, "1 n heads size"]:
        """The padded grid of attention's output as a packed list again."""
        _, heads, _, size = output.shape
        return _Gather.apply(output.reshape(-1, size), self.slots(heads)).view(1, -1, heads, size)


def _rows(packed: Float[Tensor, "1 heads n size"]) -> Float[Tensor, "nh size"]:
    """One row for each token and head; a view where the projection's layout is kept."""
    return packed[0].transpose(0, 1).reshape(-1, packed.shape[3])


@torch.compiler.disable  # its shapes change with every batch
def packed_attention(
    module,
    query,
    key,
    value,
    attention_mask: Packing,
    scaling=None,
    sliding_window=None,
    softcap=None,
    s_aux=None,
    precise=False,
    **_,
):
    """Attention of a packed batch, in the form of transformers' attention interface.

    Heads that share keys and values (grouped-query attention) become further queries of one head. `precise`: in
    float32 at least, whatever the model's precision. Raises UserError for attention sinks, which are not computed.
    """
    if s_aux is not None:
        raise UserError(f"{module.config.model_type}: attention with sinks is not supported")
    packing, layer = attention_mask.on(query.device), module.layer_idx
    packing.keep(layer, key, value)
    heads, shared = query.shape[1], key.shape[1]
    query = packing.spread(query)
    key, value = packing.behind_context(key, layer, 0), packing.behind_context(value, layer, 1)
    plain = partial(_plain_attention, cap=softcap)
    attend = plain if packing.repeated or softcap else functional.scaled_dot_product_attention
    grouped = query.reshape(len(query), shared, -1, query.shape[3])
    states, mask = [grouped, key, value], packing.mask(heads // shared, sliding_window)
    if precise:
        wide = torch.promote_types(query.dtype, torch.float32)
        states, mask = [each.to(wide) for each in states], mask.to(wide)
    output = attend(*states, mask, scale=scaling).to(query.dtype)
    return packing.gather(output.reshape(query.shape)), None


def _plain_attention(query, key, value, mask, scale, cap):
    """Attention by plain products: for suffixes of a few tokens twice as fast as the fused kernel on a CPU.

    `cap`: scores x are bounded to c tanh(x / c).
    """
    scores = torch.matmul(query * (scale or query.shape[-1] ** -0.5), key.mT)
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    precise = torch.promote_types(scores.dtype, torch.float32)
    return torch.matmul((scores + mask).softmax(-1, dtype=precise).to(value.dtype), value)


AttentionInterface.register(PACKED, packed_attention)
AttentionInterface.register(PACKED_PRECISE, partial(packed_attention, precise=True))


@contextmanager
def packed(network, precise: bool) -> Iterator[None]:
    """A model's blocks take a Packing in place of the attention mask, for the length of a block; then as before.

    `precise`: scores in float32 at least.
    """
    config = network.config
    own, config._attn_implementation = config._attn_implementation, PACKED_PRECISE if precise else PACKED
    try:
        yield
    finally:
        config._attn_implementation = own

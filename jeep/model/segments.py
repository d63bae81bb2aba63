"""Rows of a packed batch that belong together: their indices side by side, and their sums in a fixed order."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor


def rows_of_indices(rows: Sequence[Sequence[int]], device: torch.device) -> Int[Tensor, "b c"]:
    """Token indices of different numbers as one (B, C) tensor, padded with -1."""
    width = max(map(len, rows))
    return torch.tensor([[*row] + [-1] * (width - len(row)) for row in rows], dtype=torch.long, device=device)


@contextmanager
def each_place_once() -> Iterator[None]:
    """For writes by an index that does not repeat: their order is of no consequence, but repeatable forms sort."""
    mode = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode(0)
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)


class Segments:
    """Rows that belong to groups, to be summed by group in a fixed order.

    `index_add` with an index that repeats adds in any order on a GPU, and a last bit decides when a request stops.
    """

    def __init__(self, groups: Sequence[int], count: int, device: torch.device):
        members: list[list[int]] = [[] for _ in range(count)]
        for row, group in enumerate(groups):
            members[group].append(row)
        index = rows_of_indices(members, device)
        self.groups = torch.tensor(groups, dtype=torch.long, device=device)
        self.sizes = torch.tensor([len(rows) for rows in members], device=device)
        self.index, self.empty = index.clamp(min=0), index < 0

    def sum(self, rows: Float[Tensor, " rows *n"]) -> Float[Tensor, " groups *n"]:
        """Sum of the rows of each group; nothing of one group reaches another, not even what is not finite."""
        if not len(rows):
            return rows.new_zeros(len(self.sizes), *rows.shape[1:])
        picked = rows[self.index]
        return picked.masked_fill(self.empty.view(*self.empty.shape, *[1] * (rows.dim() - 1)), 0).sum(1)

    def mean(self, rows: Float[Tensor, " rows"]) -> Float[Tensor, " groups"]:
        """Mean of the rows of each group; 0 of one without rows."""
        return self.sum(rows) / self.sizes.clamp(min=1)

    def repeat(self, values: Float[Tensor, "groups n"]) -> Float[Tensor, "rows n"]:
        """Its group's value for each row; the gradients of a group's rows are summed in order."""
        return _Repeat.apply(values, self)


class _Repeat(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, segments):
        ctx.segments = segments
        return values.index_select(0, segments.groups)

    @staticmethod
    def backward(ctx, grad):
        return ctx.segments.sum(grad), None

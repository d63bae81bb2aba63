"""Uncentered covariance E[k kᵀ] of the input of W_O, for many of them in one pass over text (Eq. 10)."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from jeep.common.errors import UserError
from jeep.common.settings import Projection
from jeep.model.editable import EditableModel
from jeep.model.hooks import record_input
from jeep.model.tokens import encode


def sequences(tokenizer, texts: Iterable[str], length: int, tokens: int | None = None) -> Iterator[tuple[int, ...]]:
    """The texts' token ids, each cut to `length`, until `tokens` are reached."""
    left = math.inf if tokens is None else tokens
    for text in texts:
        ids = tuple(encode(tokenizer, text)[: int(min(length, left))])
        if ids:
            yield ids
            left -= len(ids)
        if left <= 0:
            return


@torch.no_grad()
def covariances(
    model: EditableModel,
    rows: Iterable[Sequence[int]],
    places: Sequence[tuple[int, Projection]],
    token_budget: int,
    total: int | None = None,
) -> tuple[dict[tuple[int, Projection], Float[Tensor, "..."]], int]:
    """E[k kᵀ] for every W_O in `places` (layer, place), k its input at a token; and the number of tokens.

    One pass that stops at the highest layer. Products are taken in float32 for a batch and summed in float64, so that
    no digits are lost however many tokens come; the mean is returned in float32. `total` is for the progress bar.
    Raises UserError when there is no text.
    """
    places = sorted(places)
    sums: dict[tuple[int, Projection], Tensor] = {}
    count = 0
    with ExitStack() as stack, tqdm(total=total, desc="covariance", unit="tok", mininterval=2) as progress:
        seen = {place: stack.enter_context(record_input(model.projection(*place))) for place in places}
        for batch in _batches(rows, token_budget):
            packing, states = model.pack(batch)
            model.run(states, packing, 0, places[-1][0])
            for place in places:
                keys = seen[place].pop().float()
                product = (keys.mT @ keys).double()
                sums[place] = product if place not in sums else sums[place].add_(product)
            count += len(states)
            progress.update(len(states))
    if not count:
        raise UserError("the corpus has no text to estimate covariances from")
    return {place: (total / count).float().cpu() for place, total in sums.items()}, count


def _batches(rows: Iterable[Sequence[int]], token_budget: int) -> Iterator[list[tuple[int, ...]]]:
    """Sequences in batches of at most `token_budget` tokens, each at least one sequence."""
    batch: list[tuple[int, ...]] = []
    size = 0
    for row in rows:
        if batch and size + len(row) > token_budget:
            yield batch
            batch, size = [], 0
        batch.append(tuple(row))
        size += len(row)
    if batch:
        yield batch

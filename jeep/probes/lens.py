"""The logit lens (Eqs. 5, 6): what the LM head reads from the hidden state of any layer, at any position."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from jeep.model.batches import in_batches
from jeep.model.editable import EditableModel
from jeep.model.hooks import record_output


@dataclass
class Flow:
    """States at some positions of one prompt; layer 0 is the embedding, layer l the output of the l-th block."""

    hidden: Float[Tensor, "positions layers d"]
    mlp: Float[Tensor, "positions blocks d"]
    """What each block's MLP adds."""
    attention: Float[Tensor, "positions blocks d"]
    """What each block's attention adds."""


@torch.no_grad()
def flows(
    model: EditableModel,
    rows: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
    token_budget: int,
) -> Iterator[tuple[int, Flow]]:
    """The flow of each token sequence at its positions, by its number; one forward pass for each sequence."""

    def run(batch: list[int]) -> list[Flow]:
        packing, states = model.pack([rows[number] for number in batch])
        counts = [len(positions[number]) for number in batch]
        offsets = packing.offsets.tolist()
        index = [offset + place for offset, n in zip(offsets, batch, strict=True) for place in positions[n]]
        chosen = torch.tensor(index, device=model.device)
        hidden, parts = [states[chosen]], ([], [])
        for layer in range(model.depth):
            with ExitStack() as stack:
                modules = [model.projection(layer, place) for place in ("mlp", "attention")]
                seen = [stack.enter_context(record_output(module, model.device)) for module in modules]
                states = model.run(states, packing, layer, layer)
            hidden.append(states[chosen])
            for place, part, (output,) in zip(("mlp", "attention"), parts, seen, strict=True):
                part.append(model.added(layer, place, output[chosen]))
        columns = [torch.stack(column, 1).split(counts) for column in (hidden, *parts)]
        return [Flow(*one) for one in zip(*columns, strict=True)]

    for batch, found in in_batches([len(row) for row in rows], token_budget, run):
        yield from zip(batch, found, strict=True)


def probability_and_rank(
    logits: Float[Tensor, "r vocabulary"], tokens: Int[Tensor, "r k"]
) -> tuple[Float[Tensor, "r k"], Int[Tensor, "r k"]]:
    """P(t) and rank(t) = Σ 1[P(t') > P(t)] for k tokens of each row (Eq. 6: 0 is the top, ties do not count)."""
    wanted = logits.gather(1, tokens)
    probability = (wanted - logits.logsumexp(1, keepdim=True)).exp()
    # A token at a time: rows × vocabulary × k would not stay small.
    ranks = [(logits > wanted[:, k, None]).sum(1) for k in range(tokens.shape[1])]
    return probability, torch.stack(ranks, 1)

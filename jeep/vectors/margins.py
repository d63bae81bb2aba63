"""How far ahead the new answers are of every other in a model as it is."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from jeep.data.facts import Fact
from jeep.model.batches import in_batches
from jeep.model.editable import EditableModel
from jeep.model.tokens import Request


@torch.no_grad()
def answer_margins(
    model: EditableModel, facts: Sequence[Fact], prefixes: Sequence[str], token_budget: int
) -> Float[Tensor, " m"]:
    """Each fact's margin in nats: log-probability of the new answer minus that of the best other token.

    The least over all tokens of the answer, under teacher forcing, and over all `prefixes`: above 0, the answer is the
    argmax at each of its tokens behind every prefix. On the CPU, in the model's `precision`.
    """
    requests = [Request.of(model.tokenizer, fact, prefixes) for fact in facts]
    rows = [(number, prompt, request.answer) for number, request in enumerate(requests) for prompt in request.prompts]
    ids = [prompt.ids + answer[:-1] for _, prompt, answer in rows]

    def run(batch: list[int]) -> list[float]:
        packing, states = model.pack([ids[row] for row in batch])
        states = model.run(states, packing, 0, model.depth - 1)
        where = [
            int(offset) + rows[row][1].prediction + step
            for offset, row in zip(packing.offsets, batch, strict=True)
            for step in range(len(rows[row][2]))
        ]
        answers = torch.tensor([token for row in batch for token in rows[row][2]], device=model.device)
        ahead = _ahead(model, states[torch.tensor(where, device=model.device)], answers).cpu()
        return [float(part.min()) for part in ahead.split([len(rows[row][2]) for row in batch])]

    margins = torch.full((len(facts),), torch.inf, dtype=model.precision)
    for batch, found in in_batches([len(row) for row in ids], token_budget, run):
        for row, margin in zip(batch, found, strict=True):
            number = rows[row][0]
            margins[number] = margins[number].clamp(max=margin)
    return margins


_LOGIT_ROWS = 256
"""Rows of vocabulary size that are held at once."""


def _ahead(model: EditableModel, states: Float[Tensor, "n d"], answers: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The logit of each answer's token minus the greatest of all others, at its state."""
    parts = []
    for some, tokens in zip(states.split(_LOGIT_ROWS), answers.split(_LOGIT_ROWS), strict=True):
        logits = model.logits(some)
        wanted = logits.gather(1, tokens[:, None])
        others = logits.scatter(1, tokens[:, None], -torch.inf).amax(1)
        parts.append(wanted[:, 0] - others)
    return torch.cat(parts)

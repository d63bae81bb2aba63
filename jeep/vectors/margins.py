"""How far ahead the new answers are in a model as it is: of the original ones, or of every other."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from jeep.common.settings import Rival
from jeep.data.facts import Fact
from jeep.model.batches import in_batches
from jeep.model.editable import EditableModel
from jeep.model.tokens import Prompt, Request, encode_pair

_Row = tuple[Prompt, tuple[int, ...]]
"""A prompt and an answer behind it."""


@torch.no_grad()
def answer_margins(
    model: EditableModel, facts: Sequence[Fact], prefixes: Sequence[str], token_budget: int, rival: Rival = "best"
) -> Float[Tensor, " m"]:
    """Each fact's margin in nats, the least over all `prefixes`, under teacher forcing. On the CPU.

    best: log-probability of the new answer's token minus that of the best other token, the least over its tokens: above
    0, the answer is the argmax at each of them. original: mean token log-probability of the new answer minus that of
    the original one, as CounterFact's metrics compare them; best, for a fact without an original answer.
    """
    requests = [Request.of(model.tokenizer, fact, prefixes) for fact in facts]
    originals = [
        encode_pair(model.tokenizer, fact.prompt, fact.target_true, fact.joiner)[1]
        if rival == "original" and fact.target_true is not None
        else None
        for fact in facts
    ]
    rows = [(prompt, request.answer) for request in requests for prompt in request.prompts]
    others = [
        (prompt, original)
        for request, original in zip(requests, originals, strict=True)
        if original is not None
        for prompt in request.prompts
    ]
    found = _read(model, [*rows, *others], token_budget)
    new, old = iter(found[: len(rows)]), iter(found[len(rows) :])
    margins = []
    for original in originals:
        leads = [next(new) for _ in prefixes]
        if original is None:
            margins.append(min(least for _, least in leads))
        else:
            margins.append(min(mean - next(old)[0] for mean, _ in leads))
    return torch.tensor(margins)


def _read(model: EditableModel, rows: Sequence[_Row], token_budget: int) -> list[tuple[float, float]]:
    """Of each row the mean log-probability of its answer's tokens, and their least lead over the best other token."""
    ids = [prompt.ids + answer[:-1] for prompt, answer in rows]

    def run(batch: list[int]) -> list[tuple[float, float]]:
        packing, states = model.pack([ids[row] for row in batch])
        states = model.run(states, packing, 0, model.depth - 1)
        where = [
            int(offset) + rows[row][0].prediction + step
            for offset, row in zip(packing.offsets, batch, strict=True)
            for step in range(len(rows[row][1]))
        ]
        answers = torch.tensor([token for row in batch for token in rows[row][1]], device=model.device)
        read = _tokens(model, states[torch.tensor(where, device=model.device)], answers).cpu()
        parts = read.split([len(rows[row][1]) for row in batch])
        return [(float(part[:, 0].mean()), float(part[:, 1].min())) for part in parts]

    found: dict[int, tuple[float, float]] = {}
    for batch, results in in_batches([len(row) for row in ids], token_budget, run):
        found.update(zip(batch, results, strict=True))
    return [found[number] for number in range(len(rows))]


_LOGIT_ROWS = 256
"""Rows of vocabulary size that are held at once."""


def _tokens(model: EditableModel, states: Float[Tensor, "n d"], answers: Int[Tensor, " n"]) -> Float[Tensor, "n 2"]:
    """The log-probability of each token at its state, and its lead over the best other one."""
    parts = []
    for some, tokens in zip(states.split(_LOGIT_ROWS), answers.split(_LOGIT_ROWS), strict=True):
        logits = model.logits(some)
        wanted = logits.gather(1, tokens[:, None])[:, 0]
        others = logits.scatter(1, tokens[:, None], -torch.inf).amax(1)
        parts.append(torch.stack([wanted - logits.logsumexp(1), wanted - others], 1))
    return torch.cat(parts)

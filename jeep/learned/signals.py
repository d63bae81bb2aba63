"""What MEND, MALMEN and UltraEdit read off a model: keys of W_O, gradients by its outputs, of many edits in chunks."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from jeep.learned.answers import Answers
from jeep.learned.hypernetworks import Signals
from jeep.model.editable import EditableModel
from jeep.model.hooks import record_input, trace_output

Tokens = Literal["all", "answer"]


def collect_signals(
    model: EditableModel, answers: Answers, chosen: Sequence[int], layers: Sequence[int], tokens: Tokens
) -> list[Signals]:
    """For each layer's W_O, the keys and gradients of all chosen questions' tokens, in float32 (or wider).

    The loss of a question is the mean NLL of its answer's tokens; nothing depends on how questions are batched.
    `tokens`: all those with a gradient, or the ones at which an answer is predicted.
    """
    parts: list[list[tuple[Tensor, Tensor]]] = [[] for _ in layers]
    for batch in answers.batches(chosen):
        for number, pair in enumerate(_signals(model, answers, batch, layers, tokens)):
            parts[number].append(pair)
    # One layer's tokens are there twice, not all layers'.
    return [Signals(*map(torch.cat, zip(*parts.pop(0), strict=True))) for _ in layers]


def signals_by_batch(
    model: EditableModel, answers: Answers, layers: Sequence[int], tokens: Tokens
) -> Iterator[list[Signals]]:
    """As `collect_signals`, of all questions, a batch at a time; nothing of one is kept when the next is made."""
    for batch in answers.batches(range(len(answers))):
        answers.prepare(batch)
        yield [Signals(*pair) for pair in _signals(model, answers, batch, layers, tokens)]
        answers.forget()


def _signals(
    model: EditableModel, answers: Answers, batch: Sequence[int], layers: Sequence[int], tokens: Tokens
) -> Iterator[tuple[Tensor, Tensor]]:
    with torch.enable_grad(), ExitStack() as stack:
        modules = [model.projection(layer) for layer in layers]
        keys = [stack.enter_context(record_input(module, model.device)) for module in modules]
        outputs = [stack.enter_context(trace_output(module)) for module in modules]
        read = answers.read(batch)
        nll = functional.cross_entropy(model.logits(read.states), read.answers, reduction="none")
        loss = (nll * read.weights.to(nll)).sum()
        gradients = torch.autograd.grad(loss, [seen[0] for seen in outputs])
    for (key,), gradient in zip(keys, gradients, strict=True):
        gradient = gradient.flatten(0, -2).to(model.device)
        index = read.index if tokens == "answer" else gradient.abs().amax(-1).nonzero()[:, 0]
        yield tuple(rows[index].detach().to("cpu", model.precision) for rows in (key, gradient))

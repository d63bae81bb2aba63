"""Batches of sequences under a token budget, which gives way when memory runs out."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from jaxtyping import Int
from torch import Tensor

from jeep.common.errors import UserError

Result = TypeVar("Result")


def chunks(lengths: Sequence[int], budget: int, order: Sequence[int] | None = None) -> list[list[int]]:
    """Split sequences into batches of at most `budget` padded tokens (at least one sequence each).

    Sequences that are alike in `order` (their lengths where absent) travel together, the least first.
    """
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=(order or lengths).__getitem__):
        longest = max(longest, lengths[index])
        if batches and (len(batches[-1]) + 1) * longest <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest = lengths[index]
    return batches


@dataclass
class Budget:
    """Tokens of a batch at most; lowered where memory runs out, for all that share it, and never raised."""

    tokens: int


def in_batches(
    lengths: Sequence[int],
    budget: int | Budget,
    run: Callable[[list[int]], Result],
    order: Sequence[int] | None = None,
) -> Iterator[tuple[list[int], Result]]:
    """Run all sequences in batches; yield each batch's indices with what `run` made of them.

    When a batch does not fit into memory, the budget is halved (the log says so) until it does, for it and for all
    that follow. Raises UserError when a single sequence does not fit.
    """
    budget = budget if isinstance(budget, Budget) else Budget(budget)
    todo = chunks(lengths, budget.tokens, order)
    while todo:
        batch = todo.pop(0)
        try:
            result = run(batch)
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            tokens = len(batch) * max(lengths[index] for index in batch)
            if len(batch) == 1:
                raise UserError(f"out of memory with a single sequence of {tokens} tokens: {error}") from None
        else:
            yield batch, result
            continue
        # Outside the handler: the exception held the tensors of the failed batch.
        clear_device_cache(garbage_collection=True)
        budget.tokens = tokens // 2
        logging.warning("out of memory: the token budget is lowered to %d", budget.tokens)
        left = [*batch, *(index for other in todo for index in other)]
        parts = chunks([lengths[index] for index in left], budget.tokens, order and [order[index] for index in left])
        todo = [[left[n] for n in part] for part in parts]


def flat(ids: Sequence[Sequence[int]], device: torch.device) -> Int[Tensor, " n"]:
    """Sequences laid end to end."""
    return torch.tensor([token for row in ids for token in row], device=device)

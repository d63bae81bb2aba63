"""What is read from the logits of many states: never of all at once, since a row is as long as the vocabulary."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from jeep.model.editable import EditableModel

SILENT = "the model answers NaN: its weights, or what was written, overflow"
"""What is said of a model whose answers cannot be read."""
_ROWS = 256
"""Rows of vocabulary size that are held at once."""


def read_out(
    model: EditableModel,
    states: Float[Tensor, "n d"],
    measure: Callable[[Float[Tensor, "r vocabulary"], slice], list[Tensor]],
    *,
    norm: bool = True,
) -> list[Tensor]:
    """`measure` of the logits of all states, a few rows at a time; its second argument says which.

    With `norm` the final norm stands in front of the head, as in the model's own prediction; Eq. 5 has none.
    """
    parts = []
    for start in range(0, len(states) or 1, _ROWS):
        rows = slice(start, start + _ROWS)
        parts.append(measure(model.logits(states[rows], norm=norm), rows))
    return [torch.cat(column) for column in zip(*parts, strict=True)]

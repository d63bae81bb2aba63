"""What the prompts of all requests begin with, above all their sampled prefixes: run once, whatever their number."""

from collections.abc import Sequence
from os.path import commonprefix

import torch
from torch import Tensor

from jeep.attention import KeysValues
from jeep.models import EditableModel
from jeep.tokens import Request


class Stems:
    """For each number j, the tokens in front that all requests' j-th prompts share; keys and values at every layer."""

    @torch.no_grad()
    def __init__(self, model: EditableModel, requests: Sequence[Request]):
        stems = []
        for prompts in zip(*(request.prompts for request in requests), strict=True):
            shared = commonprefix([prompt.ids for prompt in prompts])  # noqa: RUF071 (of token ids, not of paths)
            stems.append(shared[: min(prompt.subject_last for prompt in prompts)])
        self.lengths = [len(stem) for stem in stems]
        self.offsets = [sum(self.lengths[:number]) for number in range(len(stems))]
        self.layers: dict[int, KeysValues] = {}
        if self.size:
            packing, states = model.pack([stem for stem in stems if stem], record=self.layers)
            model.run(states, packing, 0, model.depth - 1)

    @property
    def size(self) -> int:
        """Tokens of all stems together."""
        return sum(self.lengths)

    def length(self, number: int | None) -> int:
        """Tokens of the j-th stem; none for a prompt without a number."""
        return 0 if number is None else self.lengths[number]

    def tokens(self, number: int | None) -> range:
        """Where the j-th stem's tokens stand in the packed keys and values."""
        return range(0) if number is None else range(self.offsets[number], self.offsets[number] + self.lengths[number])


def rows_of_indices(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Token indices of different numbers as one (B, C) tensor, padded with -1."""
    width = max(map(len, rows))
    return torch.tensor([[*row] + [-1] * (width - len(row)) for row in rows], dtype=torch.long, device=device)

"""What the prompts of all facts have in front, above all the sampled prefixes: run once, however many the facts."""

from collections.abc import Sequence
from functools import cached_property
from os.path import commonprefix

import torch
from jaxtyping import Float
from torch import Tensor

from jeep.model.attention import Context, KeysValues
from jeep.model.editable import EditableModel
from jeep.model.segments import rows_of_indices
from jeep.model.tokens import Prompt


class Stems:
    """For each number j, the tokens in front that the j-th prompts of all facts share; none reaches a subject's end."""

    def __init__(self, model: EditableModel, prompts: Sequence[Sequence[Prompt]]):
        """`prompts` holds the prompts of each fact."""
        self.model = model
        self.ids: list[tuple[int, ...]] = []
        for group in zip(*prompts, strict=True):
            shared = commonprefix([prompt.ids for prompt in group])  # noqa: RUF071 (of token ids, not of paths)
            self.ids.append(shared[: min(prompt.subject_last for prompt in group)])
        self.offsets = [sum(map(len, self.ids[:number])) for number in range(len(self.ids))]
        self.size = sum(map(len, self.ids))
        """Tokens of all stems together."""

    def length(self, number: int | None) -> int:
        """Tokens of the j-th stem; none for a prompt without a number."""
        return 0 if number is None else len(self.ids[number])

    def tokens(self, number: int | None) -> range:
        """Where the j-th stem's tokens stand in the packed keys and values."""
        return range(0) if number is None else range(self.offsets[number], self.offsets[number] + len(self.ids[number]))

    def run(
        self, last: int, first: int = 0, states: Float[Tensor, "n d"] | None = None
    ) -> tuple[Float[Tensor, "n d"] | None, dict[int, KeysValues]]:
        """States after block `last`, from `states` before block `first`; and these blocks' keys and values."""
        layers: dict[int, KeysValues] = {}
        if not self.size:
            return None, layers
        packing, embedded = self.model.pack([ids for ids in self.ids if ids], record=layers)
        return self.model.run(embedded if states is None else states, packing, first, last), layers

    @cached_property
    def layers(self) -> dict[int, KeysValues]:
        """Keys and values of every block, as the model is when they are first asked for."""
        with torch.no_grad():
            return self.run(self.model.depth - 1)[1]

    def context(self, numbers: Sequence[int | None], layers: dict[int, KeysValues]) -> Context | None:
        """The stems as context of prompts, given the number of each."""
        tokens = [self.tokens(number) for number in numbers]
        return Context(rows_of_indices(tokens, self.model.device), layers) if any(tokens) else None

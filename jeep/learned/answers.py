"""Prompts with their answers, from states that are computed once below a block: for what changes blocks above."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from jeep.model.attention import Packing
from jeep.model.batches import chunks, in_batches
from jeep.model.editable import EditableModel
from jeep.model.tokens import encode_pair, end_of_text

Asked = tuple[str, str, str | None]
"""A prompt, its answer, and what joins them."""


@dataclass
class Read:
    """The final states at which the tokens of some answers are predicted, end to end."""

    states: Float[Tensor, "tokens d"]
    index: Int[Tensor, " tokens"]
    """Where these states stand in the packed batch that was run."""
    answers: Int[Tensor, " tokens"]
    weights: Float[Tensor, " tokens"]
    """One over the length of the answer that a token belongs to."""


class Answers:
    """Questions with their answers; their states at the input of block `layer` wait on the CPU."""

    def __init__(
        self,
        model: EditableModel,
        questions: Sequence[Asked],
        layer: int,
        token_budget: int,
        *,
        end_token: bool = False,
    ):
        """`end_token`: the end-of-text token stands behind every answer and is one of its tokens.

        Raises UserError where that is asked for and the tokenizer has none.
        """
        self.model, self.layer, self.token_budget = model, layer, token_budget
        end = (end_of_text(model.tokenizer),) if end_token else ()
        pairs = [encode_pair(model.tokenizer, *question) for question in questions]
        self.answers = [(*answer, *end) for _, answer in pairs]
        self.rows = [[*prompt, *answer[:-1]] for (prompt, _), answer in zip(pairs, self.answers, strict=True)]
        self.states: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.rows)

    @torch.no_grad()
    def prepare(self, chosen: Sequence[int]) -> None:
        """Compute the states of the chosen questions that are not there yet."""
        missing = [number for number in chosen if number not in self.states]

        def run(batch: list[int]) -> Sequence[Tensor]:
            rows = [self.rows[missing[n]] for n in batch]
            packing, states = self.model.pack(rows)
            return self.model.run(states, packing, 0, self.layer - 1).cpu().split([len(row) for row in rows])

        lengths = [len(self.rows[number]) for number in missing]
        for batch, states in in_batches(lengths, self.token_budget, run):
            self.states.update((missing[n], row) for n, row in zip(batch, states, strict=True))

    def forget(self) -> None:
        """Let all states go."""
        self.states.clear()

    def batches(self, chosen: Sequence[int]) -> list[list[int]]:
        """The chosen questions in batches under the token budget."""
        parts = chunks([len(self.rows[number]) for number in chosen], self.token_budget)
        return [[chosen[n] for n in part] for part in parts]

    def read(self, chosen: Sequence[int]) -> Read:
        """Run the blocks from `layer` on for prepared questions, with gradients where they are on."""
        lengths = [len(self.rows[number]) for number in chosen]
        device = self.model.device
        packing = Packing(lengths, device, self.states[chosen[0]].dtype)
        states = torch.cat([self.states[number] for number in chosen]).to(device)
        states = self.model.run(states, packing, self.layer, self.model.depth - 1)
        ends = (packing.offsets + torch.tensor(lengths)).tolist()
        counts = [len(self.answers[number]) for number in chosen]
        places = [end - count + step for end, count in zip(ends, counts, strict=True) for step in range(count)]
        index = torch.tensor(places, device=device)
        return Read(
            states[index],
            index,
            torch.tensor([token for number in chosen for token in self.answers[number]], device=device),
            torch.tensor([1 / count for count in counts for _ in range(count)], device=device),
        )

    def nll(self, chosen: Sequence[int]) -> Float[Tensor, ""]:
        """Sum over the chosen questions of the mean NLL of the answer's tokens."""
        read = self.read(chosen)
        nll = functional.cross_entropy(self.model.logits(read.states), read.answers, reduction="none")
        return (nll * read.weights.to(nll)).sum()

"""The states of many prompts, layer by layer, while layers below them are written."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from jeep.common.places import Projection
from jeep.common.settings import Place, Placement, Position
from jeep.data.facts import Fact
from jeep.model.attention import KeysValues, Packing
from jeep.model.batches import in_batches
from jeep.model.editable import EditableModel
from jeep.model.hooks import record_input, record_output
from jeep.model.stems import Stems
from jeep.model.tokens import Prompt, locate

Pool = Literal["mean", "half_bare"]
"""How the keys of one fact under its prefixes become one: their mean (paper), or ½ bare + ½ mean of the others."""


def pooled(keys: Float[Tensor, "d_in rows"], prefixes: int, pool: Pool) -> Float[Tensor, "d_in m"]:
    """One key for each fact from its keys under all prefixes, the bare prompt's first."""
    by_fact = keys.unflatten(1, (-1, prefixes))
    if pool == "mean" or prefixes == 1:
        return by_fact.mean(2)
    return (by_fact[:, :, 0] + by_fact[:, :, 1:].mean(2)) / 2


class LayerWalk:
    """The states of many facts' prompts as they climb the model, layer by layer; each block runs when it is passed.

    A W_O may be changed while the walk stands at its layer: nothing below it has to run again. What all facts' prompts
    have in front runs once. States wait on the CPU, so that a device holds one batch at a time.
    """

    def __init__(self, model: EditableModel, prompts: Sequence[Sequence[Prompt]], token_budget: int):
        """`prompts` holds the prompts of each fact, the bare one first."""
        self.model, self.token_budget, self.layer = model, token_budget, 0
        self.stems = Stems(model, prompts)
        self.stem_states: Tensor | None = None
        self.prompts = [(prompt, number) for fact in prompts for number, prompt in enumerate(fact)]
        self.bare = range(0, len(self.prompts), len(prompts[0]))
        self.behind = [self.stems.length(number) for _, number in self.prompts]
        rows = [prompt.ids[behind:] for (prompt, _), behind in zip(self.prompts, self.behind, strict=True)]
        self.lengths = [len(row) for row in rows]
        self.states: list[Tensor] = [torch.empty(0)] * len(rows)

        def embed(batch: list[int]) -> Tensor:
            starts = [self.behind[n] for n in batch]
            return model.pack([rows[n] for n in batch], starts=starts)[1]

        for batch, states in in_batches(self.lengths, token_budget, embed):
            self._keep(batch, states)

    def advance(self, layer: int) -> None:
        """Go on until the states are the inputs of block `layer`."""
        if layer > self.layer:
            stem_states, layers = self.stems.run(layer - 1, self.layer, self.stem_states)
            for rows, (_, states) in self._batches(range(len(self.prompts)), layer - 1, layers):
                self._keep(rows, states)
            self.stem_states, self.layer = stem_states, layer

    def _keep(self, rows: Sequence[int], states: Tensor) -> None:
        for row, own in zip(rows, states.cpu().split([self.lengths[row] for row in rows]), strict=True):
            self.states[row] = own

    def keys(self, position: Position, place: Projection = "mlp") -> Float[Tensor, "d_in rows"]:
        """The inputs of a W_O of the current layer at each prompt's lookup position."""
        recorder = record_input(self.model.projection(self.layer, place), self.model.device)
        return self._read(range(len(self.prompts)), self.layer, position, recorder)

    def pooled_keys(self, position: Position, place: Projection, pool: Pool) -> Float[Tensor, "d_in m"]:
        """One key for each fact."""
        return pooled(self.keys(position, place), len(self.prompts) // len(self.bare), pool)

    def values(self, layer: int, place: Place, position: Position) -> Float[Tensor, "d m"]:
        """The bare prompts' states at `place` of a layer at or above the current one, all layers as they are now."""
        module, home = self.model.module(layer, place), self.model.device
        recorder = nullcontext() if place == "output" else record_output(module, home)
        return self._read(self.bare, layer, position, recorder)

    def _batches(
        self, rows: Sequence[int], last: int, layers: dict[int, KeysValues]
    ) -> Iterator[tuple[list[int], tuple[Packing, Tensor]]]:
        """Run blocks up to `last` for some prompts, behind the stems' keys and values."""

        def run(batch: list[int]) -> tuple[Packing, Tensor]:
            chosen = [rows[n] for n in batch]
            packing = Packing(
                [self.lengths[row] for row in chosen],
                self.model.device,
                self.states[0].dtype,
                starts=[self.behind[row] for row in chosen],
                context=self.stems.context([self.prompts[row][1] for row in chosen], layers),
            )
            states = torch.cat([self.states[row] for row in chosen]).to(self.model.device)
            return packing, self.model.run(states, packing, self.layer, last)

        for batch, result in in_batches([self.lengths[row] for row in rows], self.token_budget, run):
            yield [rows[n] for n in batch], result

    def _read(self, rows: Sequence[int], last: int, position: Position, recorder) -> Tensor:
        """What `recorder` sees (without one: the states after block `last`) at the lookup positions; on the CPU."""
        columns: dict[int, Tensor] = {}
        _, layers = self.stems.run(last, self.layer, self.stem_states)
        with recorder as seen:
            for batch, (packing, states) in self._batches(rows, last, layers):
                inside = [self.prompts[row][0].position(position) - self.behind[row] for row in batch]
                index = packing.offsets + torch.tensor(inside)
                read = (states if seen is None else seen[-1])[index.to(states.device)]
                columns.update(zip(batch, read.to("cpu", self.model.precision), strict=True))
                if seen is not None:
                    seen.clear()
        return torch.stack([columns[row] for row in rows], 1)


def reach_of(placements: Sequence[Placement]) -> Position:
    """The last position that the regions read."""
    behind_subject = any(placement.position == "prediction" for placement in placements)
    return "prediction" if behind_subject else "subject_last"


def steps_of(placements: Iterable[Placement]) -> list[tuple[Placement, int]]:
    """The layers of regions in the order they are written, each with its region's placement."""
    return sorted(((placement, layer) for placement in placements for layer in placement.layers), key=lambda s: s[1])


def prompts_of(
    model: EditableModel, facts: Sequence[Fact], prefixes: Sequence[str], reach: Position
) -> list[list[Prompt]]:
    """Each fact's prompts, without the tokens behind the last position that is read: attention is causal."""

    def cut(prompt: Prompt) -> Prompt:
        return Prompt(prompt.ids[: prompt.position(reach) + 1], prompt.subject_last)

    return [[cut(locate(model.tokenizer, fact, prefix)) for prefix in prefixes] for fact in facts]

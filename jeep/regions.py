"""Write target vectors into regions of layers: steps 2 and 3 of JEEP, and all of MEMIT's and PMET's update."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from jeep.batches import chunks
from jeep.facts import Fact
from jeep.hooks import record_input, record_output
from jeep.models import EditableModel
from jeep.settings import Placement, Position
from jeep.solve import closed_form_update
from jeep.targets import Target
from jeep.tokens import Prompt, locate

Pool = Literal["mean", "half_bare"]
"""How the keys of one fact under its prefixes become one: their mean (paper), or ½ bare + ½ mean of the others."""


class LayerWalk:
    """The states of many prompts as they climb the model, layer by layer; each block runs when it is passed.

    A W_O may be changed while the walk stands at its layer: nothing below it has to run again.
    """

    def __init__(self, model: EditableModel, prompts: Sequence[Prompt], token_budget: int):
        self.model, self.prompts, self.layer = model, prompts, 0
        self.batches = chunks([len(prompt.ids) for prompt in prompts], token_budget)
        self.packings, self.states = [], []
        for batch in self.batches:
            ids = [prompts[number].ids for number in batch]
            packing, states = model.pack(ids)
            self.packings.append(packing)
            self.states.append(states.cpu())

    def advance(self, layer: int) -> None:
        """Go on until the states are the inputs of block `layer`."""
        if layer > self.layer:
            for number, packing in enumerate(self.packings):
                states = self.states[number].to(self.model.device)
                self.states[number] = self.model.run(states, packing, self.layer, layer - 1).cpu()
            self.layer = layer

    def keys(self, position: Position) -> Float[Tensor, "d_in m"]:
        """The inputs of the current layer's W_O at each prompt's lookup position."""
        return self._read(self.layer, position, record_input(self.model.projection(self.layer)))

    def values(self, layer: int, place: str, position: Position) -> Float[Tensor, "d m"]:
        """The states at `place` of a layer at or above the current one, the layers between as they are now."""
        recorder = nullcontext() if place == "output" else record_output(self.model.module(layer, place))
        return self._read(layer, position, recorder)

    def _read(self, last: int, position: Position, recorder) -> Tensor:
        columns: list[Tensor | None] = [None] * len(self.prompts)
        with recorder as seen:
            for batch, packing, states in zip(self.batches, self.packings, self.states, strict=True):
                output = self.model.run(states.to(self.model.device), packing, self.layer, last)
                index = packing.offsets + torch.tensor([self.prompts[n].position(position) for n in batch])
                read = (output if seen is None else seen.pop())[index.to(output.device)]
                for number, row in zip(batch, read.float(), strict=True):
                    columns[number] = row
        return torch.stack(columns, 1)


def _pooled(keys: Float[Tensor, "d_in rows"], prefixes: int, pool: Pool) -> Float[Tensor, "d_in m"]:
    """One key for each fact from its keys under all prefixes, the bare prompt's first."""
    by_fact = keys.unflatten(1, (-1, prefixes))
    if pool == "mean" or prefixes == 1:
        return by_fact.mean(2)
    return (by_fact[:, :, 0] + by_fact[:, :, 1:].mean(2)) / 2


@torch.no_grad()
def write_regions(
    model: EditableModel,
    facts: Sequence[Fact],
    prefixes: Sequence[str],
    targets: Sequence[Target],
    placements: Sequence[Placement],
    covariance: dict[int, Float[Tensor, "d_in d_in"]],
    pool: Pool,
    token_budget: int,
) -> dict[str, Tensor]:
    """Write every fact's target vectors into all regions; return the change of each W_O, by parameter name.

    Layers are written in ascending order. For layer l of a region with last layer L (Eq. 10): keys K are the inputs of
    W_O at the lookup position, pooled over the prefixes; the residual is (v - h^L)/n (even) or /√n (sqrt) with n layers
    left and h^L measured on the bare prompts; both on the model as changed so far. Δ = R Kᵀ (λC + KKᵀ)⁻¹.
    The model is left as it was, bit for bit. `targets` and `facts` are in the same order.
    """
    reach: Position = placements[-1].position if len(placements) == 1 else "prediction"
    prompts = [_cut(locate(model.tokenizer, fact, prefix), reach) for fact in facts for prefix in prefixes]
    walk = LayerWalk(model, prompts, token_budget)
    bare = LayerWalk(model, prompts[:: len(prefixes)], token_budget)
    goals = torch.stack([target.values for target in targets], 2).to(model.device)  # (sites, d, m)
    steps = [(placement, layer) for placement in placements for layer in placement.layers]
    deltas: dict[str, Tensor] = {}
    with model.scratch([model.parameter_name(layer) for _, layer in steps]):
        for placement, layer in tqdm(steps, desc=f"writing {len(facts)} facts", unit="layer"):
            walk.advance(layer), bare.advance(layer)
            keys = _pooled(walk.keys(placement.position), len(prefixes), pool)
            current = bare.values(placement.layers[-1], placement.measured, placement.position)
            left = placement.layers[-1] - layer + 1
            share = left if placement.spread == "even" else left**0.5
            residuals = (goals[placement.site] - current) / share
            change = closed_form_update(residuals, keys, placement.prior * covariance[layer].double())
            name = model.parameter_name(layer)
            deltas[name] = model.as_stored(layer, change).float().contiguous()
            model.add_({name: deltas[name]})
    return {name: delta.cpu() for name, delta in deltas.items()}


def _cut(prompt: Prompt, reach: Position) -> Prompt:
    """A prompt without the tokens behind the last position that is read; attention is causal."""
    return Prompt(prompt.ids[: prompt.position(reach) + 1], prompt.subject_last)

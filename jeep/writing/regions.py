"""Write target vectors into regions of layers: steps 2 and 3 of JEEP, and all of MEMIT's and PMET's update."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from jeep.common.settings import Place, Placement, Position, Projection
from jeep.data.facts import Fact
from jeep.model.attention import KeysValues, Packing
from jeep.model.batches import in_batches
from jeep.model.editable import EditableModel
from jeep.model.hooks import record_input, record_output
from jeep.model.stems import Stems
from jeep.model.tokens import Prompt, locate
from jeep.vectors.task import Task
from jeep.writing.solve import closed_form_update

Pool = Literal["mean", "half_bare"]
"""How the keys of one fact under its prefixes become one: their mean (paper), or ½ bare + ½ mean of the others."""


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


def _pooled(keys: Float[Tensor, "d_in rows"], prefixes: int, pool: Pool) -> Float[Tensor, "d_in m"]:
    """One key for each fact from its keys under all prefixes, the bare prompt's first."""
    by_fact = keys.unflatten(1, (-1, prefixes))
    if pool == "mean" or prefixes == 1:
        return by_fact.mean(2)
    return (by_fact[:, :, 0] + by_fact[:, :, 1:].mean(2)) / 2


@torch.no_grad()
def write_regions(
    model: EditableModel, task: Task, placements: Sequence[Placement], pool: Pool
) -> dict[str, Float[Tensor, "..."]]:
    """Write every fact's target vectors into all regions; return the change of each W_O, by parameter name.

    Layers are written in ascending order. For layer l of a region with last layer L (Eq. 10): keys K are the inputs of
    W_O at the lookup position, pooled over the prefixes; the residual is (v - h^L)/n (even) or /√n (sqrt) with n layers
    left and h^L measured on the bare prompts; both on the model as changed so far. Δ = R Kᵀ (λC + KKᵀ)⁻¹.
    The model is left as it was, bit for bit.
    """
    behind_subject = any(placement.position == "prediction" for placement in placements)
    reach: Position = "prediction" if behind_subject else "subject_last"
    walk = LayerWalk(model, prompts_of(model, task.facts, task.prefixes, reach), task.token_budget)
    goals = torch.stack([target.values for target in task.targets], 2)  # (sites, d, m)
    steps = [(placement, layer) for placement in placements for layer in placement.layers]
    steps.sort(key=lambda step: step[1])
    deltas: dict[str, Tensor] = {}
    with model.scratch([model.parameter_name(layer, placement.edited) for placement, layer in steps]):
        for placement, layer in tqdm(steps, desc=f"writing {len(task.facts)} facts", unit="layer"):
            walk.advance(layer)
            keys = _pooled(walk.keys(placement.position, placement.edited), len(task.prefixes), pool)
            current = walk.values(placement.layers[-1], placement.measured, placement.position)
            left = placement.layers[-1] - layer + 1
            share = left if placement.spread == "even" else left**0.5
            residuals = goals[placement.site] - current
            wanted = residuals / share
            if placement.measured == "output" and model.adds_otherwise:
                output = walk.values(layer, placement.edited, placement.position)
                wanted = model.in_front(layer, placement.edited, output.mT, wanted.mT).mT
            covariance = task.covariance[layer, placement.edited]
            solver = task.solver or model.device
            change = closed_form_update(wanted, keys, covariance, placement.prior, solver)
            name = model.parameter_name(layer, placement.edited)
            deltas[name] = model.as_stored(layer, change, placement.edited).float().cpu().contiguous()
            norm = model.weight(name).float().norm()
            model.add_({name: deltas[name]})
            task.trace.append(_step(placement, layer, float(deltas[name].norm() / norm), residuals))
            if left == 1:
                current = walk.values(layer, placement.measured, placement.position)
                _close(task.trace, placement, goals[placement.site] - current)
    return deltas


def _mean_norm(residuals: Float[Tensor, "d m"]) -> float:
    return float(residuals.norm(dim=0).mean())


def _step(placement: Placement, layer: int, change: float, residuals: Float[Tensor, "d m"]) -> dict[str, Any]:
    """What a layer's update started from, and how much it changed; the residual behind it is not known yet."""
    return {
        "layer": layer,
        "edited": placement.edited,
        "position": placement.position,
        "relative_change": change,
        "residual_before": _mean_norm(residuals),
    }


def _close(trace: list[dict[str, Any]], placement: Placement, residuals: Float[Tensor, "d m"]) -> None:
    """Note the residual behind every layer of a region: the one before the next layer, or the last of all."""
    which = (placement.position, placement.edited)
    steps = [s for s in trace if s["layer"] in placement.layers and (s["position"], s["edited"]) == which]
    behind = [step["residual_before"] for step in steps[1:]] + [_mean_norm(residuals)]
    for step, residual in zip(steps, behind, strict=True):
        step["residual_after"] = residual


def prompts_of(
    model: EditableModel, facts: Sequence[Fact], prefixes: Sequence[str], reach: Position
) -> list[list[Prompt]]:
    """Each fact's prompts, without the tokens behind the last position that is read: attention is causal."""

    def cut(prompt: Prompt) -> Prompt:
        return Prompt(prompt.ids[: prompt.position(reach) + 1], prompt.subject_last)

    return [[cut(locate(model.tokenizer, fact, prefix)) for prefix in prefixes] for fact in facts]

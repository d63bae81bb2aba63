"""Write target vectors into regions of layers: steps 2 and 3 of JEEP, and all of MEMIT's and PMET's update."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from jeep.common.places import Where
from jeep.common.settings import Placement, Region
from jeep.model.editable import EditableModel
from jeep.vectors.task import Task
from jeep.writing.history import history_of
from jeep.writing.neighbourhood import Neighbourhood, require_neighbours
from jeep.writing.null_space import null_space
from jeep.writing.solve import closed_form_update
from jeep.writing.walk import LayerWalk, Pool, prompts_of, reach_of, steps_of


@torch.no_grad()
def write_regions(
    model: EditableModel, task: Task, placements: Sequence[Placement], pool: Pool
) -> dict[str, Float[Tensor, "..."]]:
    """Write every fact's target vectors into all regions; return the change of each W_O, by parameter name.

    Layers are written in ascending order. For layer l of a region with last layer L (Eq. 10): keys K are the inputs of
    W_O at the lookup position, pooled over the prefixes; the residual is (v - h^L)/n (even) or /√n (sqrt) with n layers
    left and h^L measured on the bare prompts; both on the model as changed so far. Δ = R Kᵀ (λC + KKᵀ)⁻¹.
    A settled fact's residual is zero. With neighbours, the trace says how much of each layer's update reaches them.
    History, ridge and null space are the region's; none of them is in the paper.
    The model is left as it was, bit for bit.
    """
    reach = reach_of(placements)
    walk = LayerWalk(model, prompts_of(model, task.facts, task.prefixes, reach), task.token_budget)
    require_neighbours(placements, task.neighbours)
    beside = Neighbourhood(model, task, reach) if task.neighbours else None
    goals = torch.stack([target.values for target in task.targets], 2)  # (sites, d, m)
    settled = torch.tensor([fact.case_id in task.settled for fact in task.facts])
    steps = steps_of(placements)
    deltas: dict[str, Tensor] = {}
    solver = task.solver or model.device

    def residuals_now(placement: Placement, layer: int) -> Float[Tensor, "d m"]:
        current = walk.values(layer, placement.measured, placement.position)
        return torch.where(settled, 0, goals[placement.site] - current)

    with model.scratch([model.parameter_name(layer, placement.edited) for placement, layer in steps]):
        for placement, layer in tqdm(steps, desc=f"writing {len(task.facts)} facts", unit="layer"):
            walk.advance(layer)
            keys = walk.pooled_keys(placement.position, placement.edited, pool)
            residuals = residuals_now(placement, placement.layers[-1])
            wanted = _wanted(walk, placement, layer, residuals)
            seen = beside.look(walk, task.facts, layer, placement) if beside else None
            terms = beside.terms(placement.region.neighbours, seen.keys) if seen else {}
            terms |= _later_terms(task, (layer, placement.edited), placement.region, solver)
            covariance, prior = task.covariance[layer, placement.edited], placement.region.prior
            change = closed_form_update(wanted, keys, covariance, prior, solver, **terms)
            name = model.parameter_name(layer, placement.edited)
            deltas[name] = model.as_stored(layer, change, placement.edited).float().cpu().contiguous()
            norm = model.weight(name).float().norm()
            model.add_({name: deltas[name]})
            step = _step(placement, layer, float(deltas[name].norm() / norm), residuals)
            task.trace.append(step | (seen.reached(change, keys) if seen else {}))
            if layer == placement.layers[-1]:
                _close(task.trace, placement, residuals_now(placement, layer))
    return deltas


def _later_terms(task: Task, where: Where, region: Region, device: torch.device) -> dict[str, Any]:
    """What the closed form is given of what came after the paper."""
    return {
        "ridge": region.ridge,
        "history": history_of(task.memory, where) if region.history else None,
        "basis": null_space(region.null_space, where, task, device) if region.null_space else None,
    }


def _wanted(walk: LayerWalk, placement: Placement, layer: int, residuals: Float[Tensor, "d m"]) -> Float[Tensor, "d m"]:
    """What the W_O of a layer has to give more: its share of the residuals, as a block adds it."""
    left = placement.layers[-1] - layer + 1
    wanted = residuals / (left if placement.region.spread == "even" else left**0.5)
    if placement.measured == "output" and walk.model.adds_otherwise:
        output = walk.values(layer, placement.edited, placement.position)
        wanted = walk.model.in_front(layer, placement.edited, output.mT, wanted.mT).mT
    return wanted


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

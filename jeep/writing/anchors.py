"""NAS (2026): target vectors of one norm, against the growth of ‖v‖ and ‖W‖ over a sequence of edits."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from jeep.common.errors import UserError
from jeep.common.settings import Site
from jeep.data.facts import Fact
from jeep.model.editable import EditableModel
from jeep.vectors.targets import Target
from jeep.vectors.task import Task
from jeep.writing.walk import LayerWalk, prompts_of

DROPPED = 0.05
"""Of the norms that ν̄ is the mean of, the share that is left out as too large."""


@torch.no_grad()
def _outputs(
    model: EditableModel, facts: Sequence[Fact], targets: Sequence[Target], sites: Sequence[Site], token_budget: int
) -> tuple[Float[Tensor, "sites m d"], Float[Tensor, "sites m d"]]:
    """v₀ and v₀ + δ: what the MLP of each site's layer adds at the bare prompt's lookup, and what it should add.

    Sites are outputs of blocks, on the unedited model, so that δ is all that their values have more than their states.
    """
    before = []
    for site in sites:
        walk = LayerWalk(model, prompts_of(model, facts, ["{}"], site.position), token_budget)
        walk.advance(site.layer)
        output = walk.values(site.layer, "mlp", site.position).mT
        before.append(model.added(site.layer, "mlp", output.to(model.device, model.norm.weight.dtype)).to(output))
    deltas = torch.stack([target.values - target.states for target in targets], 1).cpu()
    outputs = torch.stack(before)
    return outputs, outputs + deltas


def mean_norms(
    model: EditableModel, facts: Sequence[Fact], targets: Sequence[Target], sites: Sequence[Site], token_budget: int
) -> list[float]:
    """ν̄ of each site: the mean of ‖v₀ + δ‖ over facts, the largest 5 % left out; on the unedited model.

    The facts are none that is edited: the authors sample them from the file that they edit.
    """
    wanted = _outputs(model, facts, targets, sites, token_budget)[1].norm(dim=2)
    kept = max(1, round((1 - DROPPED) * wanted.shape[1]))
    return wanted.sort(dim=1).values[:, :kept].mean(1).tolist()


def anchored(model: EditableModel, task: Task, sites: Sequence[Site]) -> Task:
    """With target vectors that ask the MLP for an output of norm ν̄: v* = ν̄ (v₀ + δ)/‖v₀ + δ‖, v ← h − v₀ + v*.

    A fact whose ‖v₀ + δ‖ is above 2ν̄ is not written, as the task is told: its v is h, and its key is protected. Raises
    UserError where the task has no ν̄.
    """
    if len(task.norms) != len(sites):
        raise UserError("anchor: the mean norm of target vectors is needed, of facts that are not edited")
    before, wanted = _outputs(model, task.facts, task.targets, sites, task.token_budget)
    norms, mean = wanted.norm(dim=2, keepdim=True), torch.tensor(task.norms)[:, None, None]
    far = norms > 2 * mean
    scaled = torch.where(far, before, mean * wanted / norms) - before
    task.unwritten.extend(task.facts[n].case_id for n in far.any(dim=0).nonzero()[:, 0].tolist())
    targets = [replace(target, values=target.states + scaled[:, n]) for n, target in enumerate(task.targets)]
    return replace(task, targets=targets)

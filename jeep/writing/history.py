"""What regions remember in a sequence of edits: keys of the batches before (MEMIT-seq), U₀ made anew (BetaEdit).

Kept are sums, of the size of a covariance, however many batches there were.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from jeep.common.places import Where, place_name
from jeep.common.settings import Placement
from jeep.model.editable import EditableModel
from jeep.vectors.task import Task
from jeep.writing.null_space import Eigenvectors, basis_name
from jeep.writing.walk import LayerWalk, Pool, prompts_of, reach_of, steps_of

_FACTS = "facts"


def history_of(memory: Mapping[str, Tensor], where: Where) -> Float[Tensor, "d_in d_in"] | None:
    """Σ K_t K_tᵀ of the inputs of a W_O over the batches before; None in the first."""
    return memory.get(_history_name(where))


def _history_name(where: Where) -> str:
    return f"history.{place_name(where)}"


def _refreshes(placement: Placement) -> bool:
    return placement.region.null_space is not None and placement.region.null_space.refresh is not None


@torch.no_grad()
def remembered(model: EditableModel, task: Task, placements: Sequence[Placement], pool: Pool) -> dict[str, Tensor]:
    """What the next batch has to know once `model` holds this one: for regions with a history, or with a refresh.

    Σ K_t K_tᵀ of each W_O grows by the keys of the batch, pooled over the prefixes as for its update, but measured
    anew, with all layers of the batch in force, as AlphaEdit's released code does. A space of `refresh` f is taken anew
    whenever another f facts are full, from (Σ K_t K_tᵀ/N + λC)/(λ + 1) with N facts so far (BetaEdit).
    """
    keep = [each for each in placements if each.region.history or _refreshes(each)]
    if not keep:
        return {}
    before = int(task.memory.get(_FACTS, torch.tensor(0)))
    facts = before + len(task.facts)
    memory = {**task.memory, _FACTS: torch.tensor(facts)}
    walk = LayerWalk(model, prompts_of(model, task.facts, task.prefixes, reach_of(placements)), task.token_budget)
    for placement, layer in steps_of(keep):
        walk.advance(layer)
        where = (layer, placement.edited)
        keys = walk.pooled_keys(placement.position, placement.edited, pool)
        product = (keys @ keys.mT).float()
        old = history_of(task.memory, where)
        memory[_history_name(where)] = product if old is None else old + product
        space, prior = placement.region.null_space, placement.region.prior
        if _refreshes(placement) and facts // space.refresh > before // space.refresh:
            mixed = memory[_history_name(where)] / facts + prior * task.covariance[where]
            found = Eigenvectors.of(mixed / (prior + 1), task.solver or model.device)
            memory[basis_name(where)] = found.kept(space).contiguous()
    return memory

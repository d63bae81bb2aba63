"""How much of an edit would reach neighbours, by layer and lookup position: read off keys alone, before any edit."""

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from jeep.common.places import Where
from jeep.data.facts import Fact
from jeep.data.neighbours import Subjects, neighbours_of
from jeep.model.editable import EditableModel
from jeep.probes.contrast import POSITIONS
from jeep.writing.solve import closed_form_update
from jeep.writing.walk import LayerWalk, prompts_of


@torch.no_grad()
def key_leaks(
    model: EditableModel,
    facts: Sequence[Fact],
    subjects: Subjects,
    covariance: Mapping[Where, Float[Tensor, "d_in d_in"]],
    prior: float,
    token_budget: int,
) -> pd.DataFrame:
    """The leak of every W_O with a covariance, were it written alone: a row for each layer and position.

    An update answers a key q with Δ q = R a(q), a(q) = Kᵀ(λC + K Kᵀ)⁻¹ q. With residuals that know nothing of each
    other, ‖Δ q‖ goes by ‖a(q)‖: the leak is its mean over neighbours by its mean over the facts, on the bare prompts of
    the model as it is. Raises UserError where a neighbour is edited or measured.
    """
    beside = neighbours_of(facts, subjects)
    walks = [LayerWalk(model, prompts_of(model, some, ["{}"], "prediction"), token_budget) for some in (facts, beside)]
    rows = []
    for layer, place in sorted(covariance):
        for walk in walks:
            walk.advance(layer)
        for position in POSITIONS:
            keys, others = (walk.keys(position, place) for walk in walks)
            answers = closed_form_update(torch.eye(len(facts)), keys, covariance[layer, place], prior, model.device)
            lengths = [(answers @ some.to(answers)).norm(dim=0).mean() for some in (others, keys)]
            leak = float(lengths[0] / lengths[1])
            rows.append({"layer": layer, "edited": place, "position": position, "leak": leak})
    return pd.DataFrame(rows)

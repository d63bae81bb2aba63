"""Neighbours of the edited facts beside an edit: their keys, what spares them, and how much of it reaches them.

At the prediction position the keys of all subjects of a relation are alike, so that what is written for one is read by
the others: it leaks. Where a region is told to, its closed form counts their keys among the old associations.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jeep.common.errors import UserError
from jeep.common.settings import Neighbours, Placement, Position
from jeep.data.facts import Fact
from jeep.data.neighbours import Subjects, neighbours_of, relation_of
from jeep.model.editable import EditableModel
from jeep.model.readout import read_out
from jeep.probes.contrast import answer_tokens
from jeep.vectors.task import Task
from jeep.writing.walk import LayerWalk, prompts_of


def require_neighbours(placements: Sequence[Placement], subjects: Subjects) -> None:
    """Raise UserError where a region spares neighbours and there are none."""
    if any(placement.region.neighbours for placement in placements) and not subjects:
        raise UserError(
            "a region spares neighbours, and none are given: name facts of the same relations that are not edited"
        )


class Neighbourhood:
    """The neighbours' states as they climb the model with the facts', all layers as they are written so far."""

    def __init__(self, model: EditableModel, task: Task, reach: Position):
        """Raises UserError for a neighbour that is edited or measured."""
        self.model, self.facts = model, neighbours_of(task.facts, task.neighbours)
        self.walk = LayerWalk(model, prompts_of(model, self.facts, ["{}"], reach), task.token_budget)
        edits = Counter(map(relation_of, task.facts))
        self.relations = [relation_of(fact) for fact in self.facts]
        shares = Counter(self.relations)
        self.share = torch.tensor([edits[name] / shares[name] for name in self.relations])
        """m/n of each neighbour: edits of its relation by neighbours of its relation."""

    def look(self, walk: LayerWalk, facts: Sequence[Fact], layer: int, placement: Placement) -> "Look":
        """What there is to see in front of a layer's update; `walk` holds the states of the edited facts."""
        self.walk.advance(layer)
        promotions = {}
        if placement.position == "prediction":
            promotions = {
                "gain": Promotion(walk, facts, layer, placement.position),
                "gain_neighbours": Promotion(self.walk, self.facts, layer, placement.position),
            }
        return Look(self.walk.keys(placement.position, placement.edited), promotions)

    def terms(self, how: Neighbours | None, keys: Float[Tensor, "d_in p"]) -> dict[str, Float[Tensor, "d_in columns"]]:
        """What the closed form is given to spare the neighbours: weighted keys, or the mean of each relation's."""
        if how is None:
            return {}
        if how.form == "prior":
            return {"spared": keys * (how.weight * self.share).sqrt().to(keys)}
        rows = [[n for n, name in enumerate(self.relations) if name == each] for each in dict.fromkeys(self.relations)]
        return {"fixed": torch.stack([keys[:, chosen].mean(1) for chosen in rows], 1)}


@dataclass(frozen=True)
class Look:
    """What was seen of the neighbours in front of a layer's update."""

    keys: Float[Tensor, "d_in p"]
    """The inputs of the layer's W_O at the neighbours' lookup positions, as the layers below are written."""
    promotions: Mapping[str, "Promotion"]
    """Of facts and neighbours, where the layer is written at the prediction position."""

    def reached(self, change: Float[Tensor, "d_out d_in"], keys: Float[Tensor, "d_in m"]) -> dict[str, float]:
        """What of an update, that is in force, reaches them: `leak`, and the gains in nats; `keys` are the facts'.

        Without what is not there: a leak of an update that is zero, gains of facts without an original answer.
        """
        found = {"leak": leak(change, keys, self.keys)} | {name: each.gain() for name, each in self.promotions.items()}
        return {name: value for name, value in found.items() if not math.isnan(value)}


def leak(change: Float[Tensor, "d_out d_in"], keys: Float[Tensor, "d_in m"], beside: Float[Tensor, "d_in p"]) -> float:
    """How much of a change reaches neighbours: mean ‖Δ k_N‖ over mean ‖Δ k‖ of the edited facts; NaN for none.

    0 where neighbours read nothing of it, 1 where they read as much as the facts that it was written for.
    """
    reached, written = ((change @ some.to(change)).norm(dim=0).mean() for some in (beside, keys))
    return float(reached / written)


class Promotion:
    """How a layer's update moves the new answers' logits, and whether only those of the facts it was written for.

    The gain is that of logit(new) − logit(original), first tokens, by the logit lens: behind the final norm and the
    head, at the layer's output. Only of facts with an original answer.
    """

    def __init__(self, walk: LayerWalk, facts: Sequence[Fact], layer: int, position: Position):
        """Reads the states in front of the update."""
        self.walk, self.layer, self.position = walk, layer, position
        self.rows = [n for n, fact in enumerate(facts) if fact.target_true is not None]
        answers = [answer_tokens(walk.model, facts[n]) for n in self.rows]
        self.answers = torch.tensor(answers, dtype=torch.long, device=walk.model.device).reshape(-1, 2)
        self.before = self._lead()

    def _lead(self) -> Float[Tensor, " n"]:
        model = self.walk.model
        states = self.walk.values(self.layer, "output", self.position)[:, self.rows].mT

        def measure(logits: Tensor, rows: slice) -> list[Tensor]:
            original, new = logits.gather(1, self.answers[rows]).unbind(1)
            return [new - original]

        (lead,) = read_out(model, states.to(model.device, model.norm.weight.dtype), measure)
        return lead

    def gain(self) -> float:
        """Mean over the prompts, in nats; NaN where no fact has an original answer."""
        return float((self._lead() - self.before).mean())

"""JEEP (AAAI 2025): enrich the low layers at the subject's last token, promote in the high ones at the prediction.

Step 1 optimises δ′ and δ* together (Eq. 11); step 2 writes the low region, step 3 the high one (Eq. 10).

The presets differ in where the vectors live. `paper` uses hidden states, and reads h* with the final δ′ in place: the
high region is written after the low one, and a v* built on the unedited h* would subtract the low region's own effect.
`release` uses the MLP's output in the low region, and in the high region adds δ* to the attention's output while the
residual subtracts the MLP's output, as the authors' released code does.

Table 4's ablations are settings: a region that is absent, one that is optimised but not written, one optimisation after
the other, and a high region whose attention is edited.

`high.repair` is ours: the high region then writes only what the low one has left wrong. Keys at the prediction position
are alike for all subjects of a relation, and what is written for one there is read by its neighbours; a fact that the
low region has settled needs nothing there.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeFloat, model_validator

from jeep.common.settings import Place, Placement, Region, Rival, Site, Strict, TargetSpec
from jeep.editors.base import RegionEditor

if TYPE_CHECKING:
    from jeep.model.editable import EditableModel
    from jeep.vectors.task import Task

Which = Literal["low", "high"]


class Repair(Strict):
    """Which facts the low region has left to the high one."""

    margin: NonNegativeFloat = 2.0
    """Those whose new answer leads its rival by at most so many nats behind some prefix. Of 0, 1, 2 and 4 the searches
    on development facts chose each but 0 (config/search: jeep-repair, jeep-stepwise)."""
    rival: Rival = "original"
    """original: the original answer, by mean token log-probability, where a fact has one; best: the best other token at
    each of the answer's."""


class HighRegion(Region):
    """The region at the prediction position."""

    repair: Repair | None = None
    """Not in the paper: once the low region is written, write only what it has left wrong."""


class Jeep(RegionEditor):
    """Two regions whose target vectors are optimised together."""

    low: Region | None = None
    """Step 2; without it there is no δ′ (ablation "w/o δ′ & step 2")."""
    high: HighRegion | None = None
    """Step 3; without it there is no δ* (ablation "w/o δ* & step 3")."""
    write: Annotated[tuple[Which, ...], Field(min_length=1)] = ("low", "high")
    """Regions that are written, of those that are optimised (ablations "w/o step 2", "w/o step 3")."""
    together: bool = True
    """Optimise δ′ and δ* in one run; else δ* on the model whose low region is written ("separate optimisation")."""

    @model_validator(mode="after")
    def _order(self) -> Jeep:
        if not self._regions:
            raise ValueError("a low or a high region is needed")
        if len(self._regions) == 2 and self.low.layers[-1] >= self.high.layers[0]:
            raise ValueError("the low region must lie below the high region")
        if not self.together and (len(self._regions) < 2 or len(self.write) < 2):
            raise ValueError("together: false needs two regions, and writes both")
        return self

    @property
    def _regions(self) -> dict[Which, Region]:
        """The regions that are optimised, the low one first."""
        return {name: region for name, region in (("low", self.low), ("high", self.high)) if region is not None}

    @property
    def sites(self) -> tuple[Site, ...]:
        """δ′ at the subject's last token of L′, δ* at the prediction position of L* (Eq. 11)."""
        return tuple(self._site(name) for name in self._regions if self.together or name == "low")

    def _site(self, name: Which) -> Site:
        region, paper = self._regions[name], self.preset == "paper"
        place: Place = "mlp" if name == "low" else "attention"
        if paper:
            place = "output" if region.edited == "mlp" else region.edited
        return Site(
            layer=region.layers[-1],
            place=place,
            position="subject_last" if name == "low" else "prediction",
            clamp=region.clamp,
            weight_decay=region.weight_decay,
            follow=paper and name == "high",
        )

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Step 2 at the subject's last token, step 3 at the prediction position."""
        return tuple(
            Placement(
                region=region,
                edited=region.edited,
                position="subject_last" if name == "low" else "prediction",
                measured="output" if self.preset == "paper" and region.edited == "mlp" else region.edited,
                site=number if self.together else 0,
            )
            for number, (name, region) in enumerate(self._regions.items())
            if name in self.write
        )

    def deltas(self, model, task):
        """Write the regions: in one go, or the high one with what is left to do once the low one is written."""
        if self.together and (self.high is None or self.high.repair is None):
            return super().deltas(model, task)
        low, high = ([p for p in self.placements if p.position == where] for where in ("subject_last", "prediction"))
        deltas = self.written_at(model, task, low) if low else {}
        if not high:
            return deltas
        with model.edited(deltas):
            task = replace(task, settled=self._settled(model, task))
            if not self.together:
                task = self._promoted(model, task)
            if all(fact.case_id in task.settled for fact in task.facts):
                return deltas
            return deltas | self.written_at(model, task, high)

    def _settled(self, model: EditableModel, task: Task) -> frozenset[str]:
        """The facts, by case id, that the low region has written well enough."""
        from jeep.measure.margins import answer_margins

        if self.high.repair is None:
            return frozenset()
        repair = self.high.repair
        margins = answer_margins(model, task.facts, task.prefixes, task.token_budget, repair.rival)
        settled = [fact.case_id for fact, lead in zip(task.facts, margins, strict=True) if lead > repair.margin]
        logging.info("%d of %d facts are settled by the low region", len(settled), len(task.facts))
        return frozenset(settled)

    def _promoted(self, model: EditableModel, task: Task) -> Task:
        """With δ* of all that is not settled, in the model as it is; what has no finite one is dropped and named."""
        from jeep.vectors.targets import optimize_facts

        left = [fact for fact in task.facts if fact.case_id not in task.settled]
        spec = TargetSpec(sites=(self._site("high"),), optimization=self.optimization)
        found = optimize_facts(model, left, task.prefixes, spec, task.token_budget)
        # A settled fact's vector is not read: δ′ stands in.
        kept = [target for target in task.targets if target.case_id in task.settled]
        targets = {target.case_id: target for target in [*kept, *found] if target.finite}
        facts = [fact for fact in task.facts if fact.case_id in targets]
        task.unwritten.extend(fact.case_id for fact in left if fact.case_id not in targets)
        return replace(task, facts=facts, targets=[targets[fact.case_id] for fact in facts])


EDITOR = Jeep

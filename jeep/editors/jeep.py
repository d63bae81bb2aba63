"""JEEP (AAAI 2025): enrich the low layers at the subject's last token, promote in the high ones at the prediction.

Step 1 optimises δ′ and δ* together (Eq. 11); step 2 writes the low region, step 3 the high one (Eq. 10).

The presets differ in where the vectors live. `paper` uses hidden states, and reads h* with the final δ′ in place: the
high region is written after the low one, and a v* built on the unedited h* would subtract the low region's own effect.
`release` uses the MLP's output in the low region, and in the high region adds δ* to the attention's output while the
residual subtracts the MLP's output, as the authors' released code does.

Table 4's ablations are settings: a region that is absent, one that is optimised but not written, one optimisation after
the other, and a high region whose attention is edited.
"""

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, model_validator

from jeep.common.settings import Place, Placement, Region, Site
from jeep.editors.base import RegionEditor

Which = Literal["low", "high"]


class Jeep(RegionEditor):
    """Two regions whose target vectors are optimised together."""

    low: Region | None = None
    """Step 2; without it there is no δ′ (ablation "w/o δ′ & step 2")."""
    high: Region | None = None
    """Step 3; without it there is no δ* (ablation "w/o δ* & step 3")."""
    write: Annotated[tuple[Which, ...], Field(min_length=1)] = ("low", "high")
    """Regions that are written, of those that are optimised (ablations "w/o step 2", "w/o step 3")."""
    together: bool = True
    """Optimise δ′ and δ* in one run; else δ* on the model whose low region is written ("separate optimisation")."""

    @model_validator(mode="after")
    def _order(self) -> "Jeep":
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
                layers=region.layers,
                edited=region.edited,
                position="subject_last" if name == "low" else "prediction",
                prior=region.prior,
                spread=region.spread,
                measured="output" if self.preset == "paper" and region.edited == "mlp" else region.edited,
                site=number,
            )
            for number, (name, region) in enumerate(self._regions.items())
            if name in self.write
        )

    def edit(self, model, task):
        """Write the regions; without `together`, optimise δ* only when the low region is written."""
        if self.together:
            return super().edit(model, task)
        from jeep.vectors.targets import optimize_facts

        low, high = (self.model_copy(update={other: None, "together": True}) for other in ("high", "low"))
        deltas = low.edit(model, task)
        with model.edited(deltas):
            targets = optimize_facts(model, task.facts, task.prefixes, high.target_spec, task.token_budget)
            usable = [(fact, target) for fact, target in zip(task.facts, targets, strict=True) if target.finite]
            if not usable:
                return deltas
            facts, targets = zip(*usable, strict=True)
            return deltas | high.edit(model, replace(task, facts=facts, targets=targets))


EDITOR = Jeep

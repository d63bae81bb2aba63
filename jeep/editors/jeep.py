"""JEEP (AAAI 2025): enrich the low layers at the subject's last token, promote in the high ones at the prediction.

Step 1 optimises δ′ and δ* together (Eq. 11); step 2 writes the low region, step 3 the high one (Eq. 10).

The presets differ in where the vectors live. `paper` uses hidden states, and reads h* with the final δ′ in place: the
high region is written after the low one, and a v* built on the unedited h* would subtract the low region's own effect.
`release` uses the MLP's output in the low region, and in the high region adds δ* to the attention's output while the
residual subtracts the MLP's output, as the authors' released code does.
"""

from pydantic import model_validator

from jeep.editors.base import RegionEditor
from jeep.settings import Placement, Region, Site


class Jeep(RegionEditor):
    """Two regions whose target vectors are optimised together."""

    low: Region
    high: Region

    @model_validator(mode="after")
    def _order(self) -> "Jeep":
        if self.low.layers[-1] >= self.high.layers[0]:
            raise ValueError("the low region must lie below the high region")
        return self

    @property
    def sites(self) -> tuple[Site, ...]:
        """δ′ at the subject's last token of L′, δ* at the prediction position of L* (Eq. 11)."""
        paper = self.preset == "paper"
        return (
            Site(
                layer=self.low.layers[-1],
                place="output" if paper else "mlp",
                position="subject_last",
                clamp=self.low.clamp,
                weight_decay=self.low.weight_decay,
            ),
            Site(
                layer=self.high.layers[-1],
                place="output" if paper else "attention",
                position="prediction",
                clamp=self.high.clamp,
                weight_decay=self.high.weight_decay,
                follow=paper,
            ),
        )

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Step 2 at the subject's last token, step 3 at the prediction position."""
        return tuple(
            Placement(
                layers=region.layers,
                position=site.position,
                prior=region.prior,
                spread=region.spread,
                measured="output" if self.preset == "paper" else "mlp",
                site=index,
            )
            for index, (region, site) in enumerate(zip((self.low, self.high), self.sites, strict=True))
        )


EDITOR = Jeep

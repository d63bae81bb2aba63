"""PMET (Li et al. 2023): δ on the outputs of attention and MLP together, written with a square-root spread.

Attention's δ takes up what the MLP's need not learn; by default only the MLP's W_O is written, as the authors do.
"""

from typing import Literal

from jeep.common.settings import Placement, Region, Site
from jeep.editors.base import RegionEditor


class Pmet(RegionEditor):
    """One region at the subject's last token, its vectors at the sub-layers' outputs."""

    region: Region
    write: Literal["mlp", "both"] = "mlp"
    """Which W_O are changed: the MLP's, or attention's too."""

    @property
    def sites(self) -> tuple[Site, ...]:
        """δ of attention and of the MLP of the last layer."""
        return tuple(
            Site(
                layer=self.region.layers[-1],
                place=place,
                position="subject_last",
                clamp=self.region.clamp,
                weight_decay=self.region.weight_decay,
            )
            for place in ("attention", "mlp")
        )

    @property
    def placements(self) -> tuple[Placement, ...]:
        """The region's MLPs; with `both`, attention's out-projections first, as they come first in a block."""
        return tuple(
            Placement(
                region=self.region,
                edited=site.place,
                position="subject_last",
                measured=site.place,
                site=number,
            )
            for number, site in enumerate(self.sites)
            if site.place == "mlp" or self.write == "both"
        )


EDITOR = Pmet

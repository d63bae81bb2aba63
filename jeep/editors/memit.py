"""MEMIT (Meng et al. 2022b): one low region, written at the subject's last token."""

from jeep.common.settings import Placement, Region, Site
from jeep.editors.base import RegionEditor


class Memit(RegionEditor):
    """One δ at the subject's last token, at the output of the region's last layer; even spread over the region."""

    region: Region

    @property
    def sites(self) -> tuple[Site, ...]:
        """v = h^L + δ at the subject's last token (Eq. 8)."""
        return (
            Site(
                layer=self.region.layers[-1],
                place="output",
                position="subject_last",
                clamp=self.region.clamp,
                weight_decay=self.region.weight_decay,
            ),
        )

    @property
    def placements(self) -> tuple[Placement, ...]:
        """The region, measured at the layer's output."""
        return (
            Placement(
                region=self.region,
                edited=self.region.edited,
                position="subject_last",
                measured="output",
                site=0,
            ),
        )


EDITOR = Memit

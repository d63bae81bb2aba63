"""MEMIT (Meng et al. 2022b): one low region, written at the subject's last token."""

from jeep.common.settings import Placement, Region, Site
from jeep.editors.base import RegionEditor


class Memit(RegionEditor):
    """One δ at the subject's last token, at the output of the region's last layer; even spread over the region."""

    region: Region
    anchor: bool = False
    """Later than the paper: every target vector asks the MLP for an output of the same norm (NAS)."""

    @property
    def anchors(self) -> bool:
        """As it is set."""
        return self.anchor

    def deltas(self, model, task):
        """Write the target vectors, rescaled if they are to be."""
        from jeep.writing.anchors import anchored

        return super().deltas(model, anchored(model, task, self.sites) if self.anchor else task)

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

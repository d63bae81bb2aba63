"""What the pipeline asks of an editor, and the part that editors of regions share."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from jeep.settings import Dtype, Optimization, Placement, Preset, Projection, Site, Strict, TargetSpec

if TYPE_CHECKING:  # torch stays out of the DAG
    from torch import Tensor

    from jeep.models import EditableModel
    from jeep.task import Task


class Editor(Strict):
    """A method's hyper-parameters, and how it changes a model."""

    preset: Preset = "paper"
    """paper: as the paper's text has it; release: as the authors' released code computes."""
    dtype: Dtype | None = None
    """Precision of the edit and of its evaluation; the model's where absent."""

    @property
    def target_spec(self) -> TargetSpec | None:
        """What the target vectors depend on; None where none are optimised before the edit."""
        return None

    @property
    def covariances(self) -> tuple[tuple[int, Projection], ...]:
        """Every W_O, by layer and place, whose input's covariance is needed."""
        return ()

    @abstractmethod
    def edit(self, model: EditableModel, task: Task) -> dict[str, Tensor]:
        """The change of each parameter that writes all facts, by the parameter's name; `model` is left as it was."""


class RegionEditor(Editor):
    """An editor that optimises target vectors and writes them into regions by the closed form (Eq. 10)."""

    optimization: Optimization

    @property
    @abstractmethod
    def sites(self) -> tuple[Site, ...]:
        """Where target vectors are optimised, lowest first."""

    @property
    def target_spec(self) -> TargetSpec:
        """The sites and how their vectors are optimised."""
        return TargetSpec(sites=self.sites, optimization=self.optimization)

    @property
    @abstractmethod
    def placements(self) -> tuple[Placement, ...]:
        """The regions, in the order they are written."""

    @property
    def covariances(self) -> tuple[tuple[int, Projection], ...]:
        """Of all that is written."""
        return tuple((layer, placement.edited) for placement in self.placements for layer in placement.layers)

    def edit(self, model, task):
        """Write the target vectors, region by region and layer by layer."""
        from jeep.regions import write_regions

        return write_regions(model, task, self.placements, pool="mean" if self.preset == "paper" else "half_bare")

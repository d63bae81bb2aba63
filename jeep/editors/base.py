"""What the pipeline asks of an editor, and the part that editors of regions share."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from jeep.common.places import Where, places_in
from jeep.common.settings import (
    Dtype,
    Optimization,
    Placement,
    PrefixKind,
    Preset,
    Site,
    Strict,
    TargetSpec,
    prefix_kind,
)
from jeep.editors.postprocess import Postprocess

if TYPE_CHECKING:  # torch stays out of the DAG
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from jeep.model.editable import EditableModel
    from jeep.vectors.task import Task


class Editor(Strict):
    """A method's hyper-parameters, and how it changes a model."""

    preset: Preset = "paper"
    """paper: as the paper's text has it; release: as the authors' released code computes."""
    trained: ClassVar[bool] = False
    """Whether a hyper-network has to be trained before the edit."""
    wide: ClassVar[bool] = False
    """Small changes add up in the weights, or losses are differentiated by them: float16 would lose both."""
    one_pass: ClassVar[bool] = False
    """Whether edits of several numbers of facts are one pass, which comes by all of them."""
    dtype: Dtype | None = None
    """Precision of the edit and of its evaluation. Where absent the model's, but float32 in place of float16 for a
    method that adds up small changes or differentiates by weights (FT-WD, MEND, MALMEN, ROME,
    UltraEdit)."""
    prefixes: tuple[PrefixKind, ...] = ("5x10",)
    """The random texts in front of prompts (p_j of Eq. 8), as so many texts of so many tokens."""
    postprocess: Annotated[Postprocess, Field(discriminator="kind")] | None = None
    """Later than the paper: what is made of the finished change (RECT, PRUNE, SPHERE)."""

    @model_validator(mode="after")
    def _precise_enough(self) -> Editor:
        if self.wide and self.dtype == "float16":
            raise ValueError("dtype: float16 loses this method's small changes; take bfloat16 or float32")
        return self

    def precision(self, model: Dtype) -> Dtype:
        """The precision of the edit and of its evaluation, given the model's."""
        return self.dtype or ("float32" if self.wide and model == "float16" else model)

    @property
    def target_spec(self) -> TargetSpec | None:
        """What the target vectors depend on; None where none are optimised before the edit."""
        return None

    @property
    def spec(self) -> TargetSpec | None:
        """What target vectors depend on, be they optimised before the edit or within it (ROME)."""
        return self.target_spec

    @property
    def covariances(self) -> tuple[Where, ...]:
        """Every W_O, by layer and place, whose input's covariance is needed."""
        return ()

    @property
    def placements(self) -> tuple[Placement, ...]:
        """The regions, in the order they are written; none for a method of another kind."""
        return ()

    @property
    def anchors(self) -> bool:
        """Whether target vectors are rescaled to a norm that has to be measured before."""
        return False

    @property
    def spares(self) -> bool:
        """Whether a region's change needs neighbours."""
        return any(placement.region.neighbours for placement in self.placements)

    @property
    def projected(self) -> tuple[Where, ...]:
        """Every W_O, by layer and place, whose change lies in a null space of its covariance."""
        return tuple(
            (layer, placement.edited)
            for placement in self.placements
            if placement.region.null_space
            for layer in placement.layers
        )

    @property
    def written(self) -> tuple[int, ...]:
        """The layers that are changed."""
        return tuple(layer for layer, _ in self.covariances)

    @property
    def prefix_kinds(self) -> list[tuple[int, int]]:
        """`prefixes` as numbers of texts and of their tokens."""
        return [prefix_kind(kind) for kind in self.prefixes]

    def searched_covariances(self, space: Mapping[str, Sequence[Any]]) -> list[Where]:
        """Every W_O whose covariance a search over a space needs, in any of the layers that it tries."""
        return sorted({*self.covariances, *places_in(space)}) if self.covariances else []

    def edit(self, model: EditableModel, task: Task) -> dict[str, Tensor]:
        """The change of each parameter that writes all facts, by the parameter's name; `model` is left as it was."""
        return self.finished(model, self.deltas(model, task), task)

    def edits(self, model: EditableModel, tasks: Sequence[Task]) -> Iterator[dict[str, Tensor]]:
        """The changes of several tasks, each of which begins with the facts of the one before."""
        for task, found in zip(tasks, self.deltas_in_turn(model, tasks), strict=True):
            yield self.finished(model, found, task)

    @abstractmethod
    def deltas(self, model: EditableModel, task: Task) -> dict[str, Tensor]:
        """As `edit`, before `postprocess`: what a method is."""

    def deltas_in_turn(self, model: EditableModel, tasks: Sequence[Task]) -> Iterator[dict[str, Tensor]]:
        """As `edits`, before `postprocess`."""
        return (self.deltas(model, task) for task in tasks)

    def finished(self, model: EditableModel, deltas: dict[str, Tensor], task: Task) -> dict[str, Tensor]:
        """Changes of `model` behind `postprocess`; the task's trace says what that did."""
        if self.postprocess is None:
            return deltas
        finished = {name: self.postprocess.of(model, name, delta) for name, delta in deltas.items()}
        before, after = (sum(float(d.norm()) ** 2 for d in each.values()) ** 0.5 for each in (deltas, finished))
        task.trace.append({"postprocess": self.postprocess.kind, "norm_before": before, "norm_after": after})
        return finished

    def remember(self, model: EditableModel, task: Task) -> dict[str, Tensor]:
        """What the next batch of a sequence has to know; `model` holds the batch already."""
        return {}


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
    def covariances(self) -> tuple[Where, ...]:
        """Of all that is written."""
        return tuple((layer, placement.edited) for placement in self.placements for layer in placement.layers)

    def deltas(self, model, task):
        """Write the target vectors, region by region and layer by layer."""
        return self.written_at(model, task, self.placements)

    def remember(self, model, task):
        """Keys of the regions that have a history."""
        from jeep.writing.history import remembered

        return remembered(model, task, self.placements, self.pool)

    @property
    def pool(self) -> Literal["mean", "half_bare"]:
        """How a fact's keys under all prefixes become one (`jeep.writing.walk`)."""
        return "mean" if self.preset == "paper" else "half_bare"

    def written_at(self, model: EditableModel, task: Task, placements: Sequence[Placement]) -> dict[str, Tensor]:
        """The change of each parameter that writes some of the regions."""
        from jeep.writing.regions import write_regions

        return write_regions(model, task, placements, self.pool)

"""What the pipeline asks of an editor, and the part that editors of regions share."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from jeep.common.errors import UserError
from jeep.common.settings import (
    Dtype,
    MetaTraining,
    Optimization,
    Placement,
    PrefixKind,
    Preset,
    Site,
    Strict,
    TargetSpec,
    Where,
    places_in,
    prefix_kind,
)

if TYPE_CHECKING:  # torch stays out of the DAG
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from jeep.data.facts import Fact
    from jeep.learned.hypernetworks import HyperNetwork, Signals
    from jeep.model.editable import EditableModel
    from jeep.vectors.task import Task


LEAST_STEPS = 3
"""A network's parts begin to learn one behind the other: after so many steps all have."""


def _parts(name: str, old: Tensor, new: Tensor) -> Iterator[tuple[int | None, Tensor, Tensor]]:
    """A parameter before and after training: by weight what there is for each weight, and whole what they share."""
    if name.rpartition(".")[2] in ("weight", "bias"):
        yield None, old, new
    else:
        yield from ((row, old[row], new[row]) for row in range(len(old)))


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
    method that adds up small changes or differentiates by weights (FT-WD, MEND, MALMEN, ROME)."""
    prefixes: tuple[PrefixKind, ...] = ("5x10",)
    """The random texts in front of prompts (p_j of Eq. 8), as so many texts of so many tokens."""

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
    def covariances(self) -> tuple[Where, ...]:
        """Every W_O, by layer and place, whose input's covariance is needed."""
        return ()

    @property
    def spares(self) -> bool:
        """Whether it needs neighbours."""
        return False

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

    @abstractmethod
    def edit(self, model: EditableModel, task: Task) -> dict[str, Tensor]:
        """The change of each parameter that writes all facts, by the parameter's name; `model` is left as it was."""

    def edits(self, model: EditableModel, tasks: Sequence[Task]) -> Iterator[dict[str, Tensor]]:
        """The changes of several tasks, each of which begins with the facts of the one before."""
        return (self.edit(model, task) for task in tasks)


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

    @property
    def spares(self) -> bool:
        """Whether a region's change does."""
        return any(placement.neighbours for placement in self.placements)

    def edit(self, model, task):
        """Write the target vectors, region by region and layer by layer."""
        return self.written_at(model, task, self.placements)

    def written_at(self, model: EditableModel, task: Task, placements: Sequence[Placement]) -> dict[str, Tensor]:
        """The change of each parameter that writes some of the regions."""
        from jeep.writing.regions import write_regions

        return write_regions(model, task, placements, pool="mean" if self.preset == "paper" else "half_bare")


class HyperEditor(Editor):
    """An editor that lets a trained hyper-network turn the edits' keys and gradients into changes of W_O."""

    trained: ClassVar[bool] = True
    wide: ClassVar[bool] = True
    learns_prior: ClassVar[bool] = False
    """Whether the network has a λ̂ for each weight."""
    layers: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]
    """Whose MLP's W_O is edited."""
    rank: PositiveInt = 1920
    """Of the network's blocks."""
    blocks: PositiveInt = 2
    training: MetaTraining

    @property
    def written(self):
        """All of them."""
        return self.layers

    @abstractmethod
    def change(self, network: HyperNetwork, signals: Signals, weight: int) -> Tensor:
        """ΔW (d_out, d_in) of the weight number `weight`, from the keys and gradients of all edits."""

    @abstractmethod
    def pull_back(self, network: HyperNetwork, signals: Signals, weight: int, change: Tensor, gradient: Tensor) -> None:
        """Add to the gradients of the network's parameters, given ΔW and ∂L/∂ΔW (d_out, d_in)."""

    def train(
        self, model: EditableModel, facts: Sequence[Fact], seed: int, token_budget: int, checkpoint: Path | None = None
    ) -> tuple[dict[str, Tensor], list[tuple[float, float]]]:
        """Train the hyper-network; its tensors, and the edit loss and locality loss of every step.

        Raises UserError where training has left a parameter as it began: something of the network does not learn.
        """
        import torch

        from jeep.learned.hypernetworks import HyperNetwork
        from jeep.learned.meta_training import Trainer

        d_out, d_in = model.as_stored(self.layers[0], model.projection(self.layers[0]).weight).shape
        torch.manual_seed(seed)
        sizes = (d_in, d_out, len(self.layers), self.rank, self.blocks)
        network = HyperNetwork(*sizes, self.training.learning_rate, prior=self.learns_prior)
        before = {name: value.detach().clone() for name, value in network.named_parameters()}
        trainer = Trainer(model, facts, self, network, self.training, token_budget)
        trainer.run(seed, checkpoint)
        still = [
            name if row is None else f"{name}[{row}]"
            for name, value in network.named_parameters()
            for row, old, new in _parts(name, before[name], value.cpu())
            if torch.equal(old, new.to(old))
        ]
        if still and len(trainer.losses) > LEAST_STEPS:
            raise UserError(f"the hyper-network did not train: {', '.join(still)} are as they began")
        return network.tensors(), trainer.losses

    def edit(self, model, task):
        """One pass over all facts for their keys and gradients, then the change of each weight."""
        import torch

        from jeep.learned.answers import Answers
        from jeep.learned.hypernetworks import HyperNetwork
        from jeep.learned.signals import collect_signals

        network = HyperNetwork.of(task.hypernetwork).to(model.device, model.precision)
        questions = [fact.asked for fact in task.facts]
        answers = Answers(model, questions, min(self.layers), task.token_budget)
        answers.prepare(range(len(answers)))
        signals = collect_signals(model, answers, range(len(answers)), self.layers, self.tokens)
        with torch.no_grad():
            return {
                model.parameter_name(layer): model.as_stored(layer, self.change(network, signals[weight], weight))
                .float()
                .cpu()
                .contiguous()
                for weight, layer in enumerate(self.layers)
            }

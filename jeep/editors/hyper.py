"""The part that MEND and MALMEN share: how a hyper-network is trained, and what an edit sums over its tokens."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, ClassVar, Protocol, runtime_checkable

from pydantic import Field, NonNegativeInt, PositiveInt

from jeep.common.errors import UserError
from jeep.common.settings import MetaTraining
from jeep.editors.base import Editor

if TYPE_CHECKING:  # torch stays out of the DAG
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import torch
    from torch import Tensor

    from jeep.data.facts import Fact
    from jeep.learned.hypernetworks import HyperNetwork, Signals
    from jeep.model.editable import EditableModel


LEAST_STEPS = 3
"""A network's parts begin to learn one behind the other: after so many steps all have."""


def _parts(name: str, old: Tensor, new: Tensor) -> Iterator[tuple[int | None, Tensor, Tensor]]:
    """A parameter before and after training: by weight what there is for each weight, and whole what they share."""
    if name.rpartition(".")[2] in ("weight", "bias"):
        yield None, old, new
    else:
        yield from ((row, old[row], new[row]) for row in range(len(old)))


@runtime_checkable
class Sums(Protocol):
    """What the change of one weight follows from, over the tokens seen so far."""

    def add(self, signals: Signals) -> None:
        """Add further tokens, chunk by chunk in their order."""

    def change(self) -> Tensor:
        """ΔW (d_out, d_in)."""


class HyperEditor(Editor):
    """An editor that lets a trained hyper-network turn the edits' keys and gradients into changes of W_O.

    A change follows from sums over tokens (`sums`): an edit holds those, and the tokens of a batch or two, however many
    facts there are.
    """

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
    def sums(self, network: HyperNetwork, weight: int, device: torch.device | None = None) -> Sums:
        """The empty sums of the weight number `weight`; on the network's device where none is named."""

    def change(self, network: HyperNetwork, signals: Signals, weight: int) -> Tensor:
        """ΔW (d_out, d_in) of the weight number `weight`, from the keys and gradients of all edits."""
        sums = self.sums(network, weight)
        sums.add(signals)
        return sums.change()

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

    def deltas(self, model, task):
        """One pass over all facts, each batch of whose tokens is summed at once; then the change of each weight."""
        import torch

        from jeep.learned.answers import Answers
        from jeep.learned.hypernetworks import HyperNetwork
        from jeep.learned.signals import signals_by_batch

        network = HyperNetwork.of(task.hypernetwork).to(model.device, model.precision)
        answers = Answers(model, [fact.asked for fact in task.facts], min(self.layers), task.token_budget)
        device = task.solver or model.device
        sums = {weight: self.sums(network, weight, device) for weight in range(len(self.layers))}
        with torch.no_grad():
            for batch in signals_by_batch(model, answers, self.layers, self.tokens):
                for weight, signals in enumerate(batch):
                    sums[weight].add(signals)
            return {
                model.parameter_name(layer): model.as_stored(layer, sums.pop(weight).change())
                .float()
                .cpu()
                .contiguous()
                for weight, layer in enumerate(self.layers)
            }

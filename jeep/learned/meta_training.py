"""Training of a hyper-network: the engine of MEND and MALMEN.

A step edits a batch of facts at once: it collects keys and gradients of the edited W_O (`signals`), lets the method
aggregate them into a ΔW of each, and measures the edited model on a paraphrase and an unrelated question of each fact.
The model and the network never share a backward pass: the model's ends in ∂L/∂ΔW, where the method's begins.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from jeep.common.settings import MetaTraining
from jeep.data.facts import Fact
from jeep.learned.answers import Answers
from jeep.learned.hypernetworks import HyperNetwork, Signals
from jeep.learned.signals import Tokens, collect_signals
from jeep.model.editable import EditableModel
from jeep.model.progress import Progress, adam_tensors, fingerprint, restore_adam


@runtime_checkable
class Method(Protocol):
    """How a method turns signals into a change of a weight, and a gradient by that change into one by the network."""

    layers: tuple[int, ...]
    tokens: Tokens

    def change(self, network: HyperNetwork, signals: Signals, weight: int) -> Float[Tensor, "d_out d_in"]: ...

    def pull_back(
        self,
        network: HyperNetwork,
        signals: Signals,
        weight: int,
        change: Float[Tensor, "d_out d_in"],
        gradient: Float[Tensor, "d_out d_in"],
    ) -> None: ...


class Trainer:
    """A hyper-network in training on a model and facts."""

    def __init__(
        self,
        model: EditableModel,
        facts: Sequence[Fact],
        method: Method,
        network: HyperNetwork,
        settings: MetaTraining,
        token_budget: int,
    ):
        self.model, self.method, self.settings = model, method, settings
        self.network = network.to(model.device, model.precision)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=settings.meta_learning_rate)
        asked = {
            "edit": [fact.asked for fact in facts],
            "equivalent": [((fact.paraphrases or (fact.prompt,))[0], *fact.asked[1:]) for fact in facts],
            "unrelated": [(fact.unrelated[0].prompt, fact.unrelated[0].answer, fact.joiner) for fact in facts],
        }
        first = min(method.layers)
        self.answers = {kind: Answers(model, questions, first, token_budget) for kind, questions in asked.items()}
        self.facts = facts
        self.names = [model.parameter_name(layer) for layer in method.layers]
        self.parameters = [model.trainable(name) for name in self.names]
        self.losses: list[tuple[float, float]] = []

    def run(self, seed: int, checkpoint: Path | None = None) -> None:
        """Train for all epochs; a run that was killed goes on from its last checkpoint."""
        steps = self._steps(seed)
        progress = Progress(checkpoint, fingerprint(self.model, self.facts, self.method, self.settings, seed))
        done, saved = progress.load()
        if saved:
            self._restore(saved)
        if self.settings.epochs > 1:  # with a single epoch no state is read twice
            for answers in self.answers.values():
                answers.prepare(range(len(self.facts)))
        with tqdm(steps[done:], desc="hyper-network", unit="step", initial=done, total=len(steps)) as bar:
            for number, batch in enumerate(bar, start=done + 1):
                self.losses.append(self.step(batch))
                bar.set_postfix_str("edit {:.2f}, locality {:.3f}".format(*self.losses[-1]))
                progress.save(number, self._tensors)
        progress.end()

    def _steps(self, seed: int) -> list[list[int]]:
        """The facts of each step: a new order in every epoch, without an incomplete last batch."""
        generator = torch.Generator().manual_seed(seed)
        size = min(self.settings.edits, len(self.facts))
        orders = [torch.randperm(len(self.facts), generator=generator) for _ in range(self.settings.epochs)]
        return [part.tolist() for order in orders for part in order.split(size) if len(part) == size]

    def step(self, batch: Sequence[int]) -> tuple[float, float]:
        """One step of Adam on a batch of edits; its mean edit loss and mean locality loss."""
        for answers in self.answers.values():
            answers.prepare(batch)
        losses, signals, changes, gradients = self.gradients(batch)
        for weight in range(len(self.names)):
            self.method.pull_back(self.network, signals[weight], weight, changes[weight], gradients[weight])
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.settings.epochs == 1:
            for answers in self.answers.values():
                answers.forget()
        return losses

    def gradients(self, batch: Sequence[int]) -> tuple[tuple[float, float], list[Signals], list[Tensor], list[Tensor]]:
        """The losses, the signals of the edits, ΔW of each weight and ∂L/∂ΔW."""
        model, network, method = self.model, self.network, self.method
        signals = collect_signals(model, self.answers["edit"], batch, method.layers, method.tokens)
        with torch.no_grad():
            for one in signals:
                for keys, rows in one.chunks(network.learning_rate):
                    network.normalizer.update(torch.cat([keys, rows], 1))
            changes = [method.change(network, one, weight) for weight, one in enumerate(signals)]
            unedited = [self.answers["unrelated"].read(part) for part in self.answers["unrelated"].batches(batch)]
        deltas = {
            name: model.as_stored(layer, change)
            for name, layer, change in zip(self.names, method.layers, changes, strict=True)
        }
        sums = [torch.zeros_like(change) for change in changes]
        totals = [0.0, 0.0]
        with model.scratch(self.names):
            model.add_(deltas)
            equivalent = self.answers["equivalent"]
            for part in equivalent.batches(batch):
                totals[0] += self._add(sums, lambda part=part: equivalent.nll(part), self.settings.edit_weight)
            unrelated = self.answers["unrelated"]
            for part, before in zip(unrelated.batches(batch), unedited, strict=True):
                totals[1] += self._add(
                    sums, lambda part=part, before=before: self._locality(part, before), self.settings.locality_weight
                )
        size = len(batch)
        return (totals[0] / size, totals[1] / size), signals, changes, [total / size for total in sums]

    def _locality(self, part, before) -> Float[Tensor, ""]:
        """Sum over unrelated questions of the mean KL(unedited ‖ edited) at their answer's tokens."""
        old = functional.log_softmax(self.model.logits(before.states), -1)
        read = self.answers["unrelated"].read(part)
        new = functional.log_softmax(self.model.logits(read.states), -1)
        return (functional.kl_div(new, old, log_target=True, reduction="none").sum(-1) * read.weights.to(new)).sum()

    def _add(self, sums: list[Tensor], loss, weight: float) -> float:
        """Add the gradient of a loss by every edited weight; the loss."""
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        try:
            with torch.enable_grad():
                value = loss()
                found = torch.autograd.grad(weight * value, self.parameters)
        finally:
            for parameter in self.parameters:
                parameter.requires_grad_(False)
        for total, layer, gradient in zip(sums, self.method.layers, found, strict=True):
            total += self.model.as_stored(layer, gradient).to(total)
        return float(value.detach())

    def _tensors(self) -> dict[str, Tensor]:
        losses = torch.tensor(self.losses, dtype=torch.float64)
        return {**self.network.tensors(), **adam_tensors(self.optimizer), "losses": losses}

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        state = {name: tensors[name] for name in self.network.state_dict()}
        self.network.load_state_dict(state)
        restore_adam(self.optimizer, tensors)
        self.losses = [tuple(pair) for pair in tensors["losses"].tolist()]

"""Fine-tuning of one block, or of its MLP's W_O."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from jeep.model.editable import EditableModel
from jeep.model.progress import adam_tensors, restore_adam

Trained = Literal["block", "w_o"]
"""All parameters of a block, or the weight of its MLP's W_O alone."""


def trained_names(model: EditableModel, layer: int, parameters: Trained) -> list[str]:
    """Their names in the model's state dict."""
    if parameters == "w_o":
        return [model.parameter_name(layer)]
    prefix = f"{model.architecture.blocks}.{layer}"
    return [f"{prefix}.{name}" for name, _ in model.blocks[layer].named_parameters()]


class BlockTrainer:
    """Adam on parameters of a block, in float32 or wider; the block is as it was when the training ends."""

    def __init__(
        self,
        model: EditableModel,
        layer: int,
        learning_rate: float,
        weight_decay: float,
        parameters: Trained = "block",
    ):
        names = trained_names(model, layer, parameters)
        self.parameters = {name: model.trainable(name) for name in names}
        self.scratch = model.scratch(list(self.parameters))
        self.originals = {name: p.detach().to(model.precision, copy=True) for name, p in self.parameters.items()}
        self.masters = {name: value.clone() for name, value in self.originals.items()}
        self.optimizer = torch.optim.Adam(self.masters.values(), lr=learning_rate, weight_decay=weight_decay)

    def __enter__(self) -> "BlockTrainer":
        self.scratch.__enter__()
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)
        return self

    def __exit__(self, *exception) -> None:
        for parameter in self.parameters.values():
            parameter.requires_grad_(False)
            parameter.grad = None
        self.scratch.__exit__(*exception)

    def step(self, loss: Float[Tensor, ""]) -> None:
        """One step down the gradient of a loss."""
        gradients = torch.autograd.grad(loss, list(self.parameters.values()))
        for name, gradient in zip(self.parameters, gradients, strict=True):
            self.masters[name].grad = gradient.to(self.masters[name])
        self.optimizer.step()
        self._write()

    def _write(self) -> None:
        for name, parameter in self.parameters.items():
            parameter.data.copy_(self.masters[name])

    def changes(self) -> dict[str, Tensor]:
        """What training has added to each parameter."""
        return {name: (self.masters[name] - value).float().cpu() for name, value in self.originals.items()}

    def tensors(self) -> dict[str, Tensor]:
        """All that the training goes on from."""
        return {**self.masters, **adam_tensors(self.optimizer)}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what `tensors` returned."""
        for name, master in self.masters.items():
            master.copy_(tensors[name])
        restore_adam(self.optimizer, tensors)
        self._write()

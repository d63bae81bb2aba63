"""Fine-tuning of one block on the new answers, from states that are computed once below it."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from jeep.attention import Packing
from jeep.batches import in_batches
from jeep.facts import Fact
from jeep.models import EditableModel
from jeep.tokens import encode, encode_answer


class AnswerBatches:
    """Mini-batches of facts, in their order, at the input of a block."""

    @torch.no_grad()
    def __init__(self, model: EditableModel, facts: Sequence[Fact], layer: int, size: int, token_budget: int):
        self.model, self.layer, self.size = model, layer, size
        prompts = [encode(model.tokenizer, fact.prompt) for fact in facts]
        self.answers = [encode_answer(model.tokenizer, fact.target_new) for fact in facts]
        rows = [[*prompt, *answer[:-1]] for prompt, answer in zip(prompts, self.answers, strict=True)]
        self.lengths = [len(row) for row in rows]
        self.states: list[Tensor] = [torch.empty(0)] * len(rows)

        def run(batch: list[int]) -> Tensor:
            packing, states = model.pack([rows[n] for n in batch])
            return model.run(states, packing, 0, layer - 1)

        for batch, states in in_batches(self.lengths, token_budget, run):
            for number, row in zip(batch, states.cpu().split([self.lengths[n] for n in batch]), strict=True):
                self.states[number] = row

    def __len__(self) -> int:
        return -(-len(self.states) // self.size)

    def loss(self, number: int) -> Float[Tensor, ""]:
        """Mean over a mini-batch's facts of the mean NLL of the answer's tokens, with gradients for the block."""
        chosen = range(number * self.size, min((number + 1) * self.size, len(self.states)))
        lengths = [self.lengths[n] for n in chosen]
        packing = Packing(lengths, self.model.device, self.states[0].dtype)
        states = torch.cat([self.states[n] for n in chosen]).to(self.model.device)
        states = self.model.run(states, packing, self.layer, self.model.depth - 1)
        ends = (packing.offsets + torch.tensor(lengths)).tolist()
        counts = [len(self.answers[n]) for n in chosen]
        index = [end - count + step for end, count in zip(ends, counts, strict=True) for step in range(count)]
        logits = self.model.logits(states[torch.tensor(index, device=states.device)])
        answers = torch.tensor([token for n in chosen for token in self.answers[n]], device=states.device)
        nll = functional.cross_entropy(logits, answers, reduction="none")
        weights = torch.tensor([1 / count for count in counts for _ in range(count)], device=states.device)
        return (nll * weights).sum() / len(counts)


class BlockTrainer:
    """Adam on all parameters of a block, in float32 or wider; the block is as it was when the training ends."""

    def __init__(self, model: EditableModel, layer: int, learning_rate: float, weight_decay: float):
        prefix = f"{model.architecture.blocks}.{layer}"
        self.parameters = {f"{prefix}.{name}": p for name, p in model.blocks[layer].named_parameters()}
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
        for name, parameter in self.parameters.items():
            parameter.data.copy_(self.masters[name])

    def changes(self) -> dict[str, Tensor]:
        """What training has added to each parameter."""
        return {name: (self.masters[name] - value).float().cpu() for name, value in self.originals.items()}

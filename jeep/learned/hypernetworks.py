"""The network of MEND and MALMEN: from each token's key and gradient, what a weight should do about them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

CHUNK = 4096
"""Tokens that the network sees at once."""


@dataclass
class Signals:
    """Of one W_O: the keys of some tokens and the gradients of the edits' loss by its outputs there; on the CPU."""

    keys: Float[Tensor, "t d_in"]
    gradients: Float[Tensor, "t d_out"]

    def chunks(
        self, like: Tensor, size: int = CHUNK
    ) -> Iterator[tuple[Float[Tensor, "c d_in"], Float[Tensor, "c d_out"]]]:
        """Both in chunks of tokens, on the device and in the type of `like`."""
        for keys, gradients in zip(self.keys.split(size), self.gradients.split(size), strict=True):
            yield keys.to(like), gradients.to(like)


class Normalizer(nn.Module):
    """Running mean and standard deviation of every input, over all tokens seen in training."""

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("squares", torch.zeros(size))  # sum of squared deviations from the mean

    @torch.no_grad()
    def update(self, rows: Float[Tensor, "t n"]) -> None:
        """Take further tokens into account (the pairwise update of Chan, Golub and LeVeque)."""
        count, mean = self.count + len(rows), rows.mean(0)
        step = mean - self.mean
        self.squares += ((rows - mean) ** 2).sum(0) + step**2 * self.count * len(rows) / count
        self.mean += step * len(rows) / count
        self.count.copy_(count)

    def forward(self, rows: Float[Tensor, "t n"]) -> Float[Tensor, "t n"]:
        deviation = (self.squares / (self.count - 1).clamp(min=1)).sqrt()
        return (rows - self.mean) / (deviation + 1e-7)


class Block(nn.Module):
    """y + scale ⊙ max(B relu(A y) + b, 0) + shift, with a scale and a shift for each weight; at first the identity.

    B starts at zero, so the outer bound must let a gradient through at 0: that of `clamp` is 1 there, that of `relu` 0,
    with which B, b and the scale would stay where they start for ever.
    """

    def __init__(self, size: int, rank: int, weights: int):
        super().__init__()
        self.down = nn.Linear(size, rank, bias=False)
        self.up = nn.Linear(rank, size)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self.scale = nn.Parameter(torch.ones(weights, size))
        self.shift = nn.Parameter(torch.zeros(weights, size))

    def forward(self, rows: Float[Tensor, "t n"], weight: int) -> Float[Tensor, "t n"]:
        change = self.up(functional.relu(self.down(rows))).clamp(min=0)
        return rows + self.scale[weight] * change + self.shift[weight]


class HyperNetwork(nn.Module):
    """Pseudo-keys and pseudo-gradients of tokens, for several weights of one shape; with what is learned for each."""

    def __init__(
        self, d_in: int, d_out: int, weights: int, rank: int, blocks: int, learning_rate: float, prior: bool = False
    ):
        """`prior`: the method solves a normal equation, with a λ̂ that is learned (MALMEN)."""
        super().__init__()
        self.sizes = (d_in, d_out)
        self.normalizer = Normalizer(d_in + d_out)
        self.blocks = nn.ModuleList(Block(d_in + d_out, rank, weights) for _ in range(blocks))
        self.learning_rate = nn.Parameter(torch.full((weights,), learning_rate))
        """What an update is multiplied by."""
        self.log_prior = nn.Parameter(torch.zeros(weights)) if prior else None
        """λ̂ of MALMEN."""

    def forward(
        self, keys: Float[Tensor, "t d_in"], gradients: Float[Tensor, "t d_out"], weight: int
    ) -> tuple[Float[Tensor, "t d_in"], Float[Tensor, "t d_out"]]:
        """(k̃, δ̃) of each token's (k, δ) for the weight number `weight`."""
        rows = self.normalizer(torch.cat([keys, gradients], 1))
        for block in self.blocks:
            rows = block(rows, weight)
        return rows.split(self.sizes, 1)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "HyperNetwork":
        """The network that these parameters and buffers belong to."""
        rank = tensors["blocks.0.down.weight"].shape[0]
        d_out = int(tensors["d_out"])
        size = len(tensors["normalizer.mean"])
        blocks = len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
        weights, prior = len(tensors["learning_rate"]), "log_prior" in tensors
        network = cls(size - d_out, d_out, weights, rank, blocks, 0.0, prior)
        network.load_state_dict({name: value for name, value in tensors.items() if name != "d_out"})
        return network.requires_grad_(False)

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers, for `of`."""
        values = {name: value.detach().cpu() for name, value in self.state_dict().items()}
        return {**values, "d_out": torch.tensor(self.sizes[1])}

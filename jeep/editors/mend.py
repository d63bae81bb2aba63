"""MEND (Mitchell et al. 2022): a hyper-network transforms each token's key and gradient; the products are summed.

ΔW = −lr Σ δ̃ k̃ᵀ over all tokens with a gradient, of all edits, with lr learned for each weight.
"""

from typing import Literal

from jeep.editors.hyper import HyperEditor


class Mend(HyperEditor):
    """W_O of some layers, changed by the sum of transformed rank-one gradients."""

    tokens: Literal["all", "answer"] = "all"
    """Tokens whose gradients count: all that have one, or those at which an answer is predicted."""

    def sums(self, network, weight, device=None):
        """ΔW itself, on the network's device wherever normal equations are solved."""
        return _Products(network, weight)

    def pull_back(self, network, signals, weight, change, gradient):
        """Add to the network's gradients: of ⟨∂L/∂ΔW, ΔW⟩, chunk by chunk."""
        for chunk in signals.chunks(network.learning_rate):
            (_term(network, *chunk, weight) * gradient).sum().backward()


class _Products:
    """−lr Σ δ̃ k̃ᵀ."""

    def __init__(self, network, weight):
        self.network, self.weight, self.total = network, weight, 0

    def add(self, signals):
        for chunk in signals.chunks(self.network.learning_rate):
            self.total = self.total + _term(self.network, *chunk, self.weight)

    def change(self):
        return self.total


def _term(network, keys, gradients, weight):
    """The part of ΔW that some tokens make."""
    keys, gradients = network(keys, gradients, weight)
    return -network.learning_rate[weight] * (gradients.mT @ keys)


EDITOR = Mend

"""MEND (Mitchell et al. 2022): a hyper-network transforms each token's key and gradient; the products are summed.

ΔW = −lr Σ δ̃ k̃ᵀ over all tokens with a gradient, of all edits, with lr learned for each weight.
"""

from typing import Literal

from jeep.editors.base import HyperEditor


class Mend(HyperEditor):
    """W_O of some layers, changed by the sum of transformed rank-one gradients."""

    tokens: Literal["all", "answer"] = "all"
    """Tokens whose gradients count: all that have one, or those at which an answer is predicted."""

    def change(self, network, signals, weight):
        """ΔW."""
        return sum(self._term(network, *chunk, weight) for chunk in signals.chunks(network.learning_rate))

    def pull_back(self, network, signals, weight, change, gradient):
        """Add to the network's gradients: of ⟨∂L/∂ΔW, ΔW⟩, chunk by chunk."""
        for chunk in signals.chunks(network.learning_rate):
            (self._term(network, *chunk, weight) * gradient).sum().backward()

    @staticmethod
    def _term(network, keys, gradients, weight):
        keys, gradients = network(keys, gradients, weight)
        return -network.learning_rate[weight] * (gradients.mT @ keys)


EDITOR = Mend

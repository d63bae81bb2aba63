"""MALMEN (Tan, Zhang and Fu 2024): the value shifts that a hyper-network asks for, reconciled by least squares.

Each answer token asks for d = −lr (k·k̃) δ̃; ΔW = D Kᵀ (K Kᵀ + e^λ̂ I)⁻¹ over the answer tokens of all edits, with lr and
λ̂ learned for each weight.
"""

from typing import ClassVar, Literal

from jeep.editors.base import HyperEditor


class Malmen(HyperEditor):
    """W_O of some layers, changed by the normal equation."""

    learns_prior: ClassVar[bool] = True
    tokens: Literal["all", "answer"] = "answer"
    """Tokens whose shifts count: those at which an answer is predicted, or all that have a gradient."""

    def change(self, network, signals, weight):
        """ΔW; K Kᵀ and D Kᵀ are summed over chunks of tokens, and solved in float64."""
        import torch

        products = 0
        for keys, gradients in signals.chunks(network.learning_rate):
            products = products + self._shifts(network, keys, gradients, weight).double().mT @ keys.double()
        return torch.cholesky_solve(products.mT, self._factor(network, signals, weight)).mT.to(network.learning_rate)

    def pull_back(self, network, signals, weight, change, gradient):
        """Add to the network's gradients, through the normal equation in closed form.

        With G = ∂L/∂ΔW and M = (K Kᵀ + e^λ̂ I)⁻¹ Gᵀ: ∂L/∂D = Mᵀ K (each token's d has the gradient Mᵀk) and
        ∂L/∂λ̂ = −e^λ̂ ⟨M, ΔWᵀ⟩.
        """
        import torch

        factor = self._factor(network, signals, weight)
        solved = torch.cholesky_solve(gradient.mT.double(), factor)
        prior = network.log_prior[weight]
        (-(prior.exp().detach() * (solved * change.mT).sum().to(prior)) * prior).backward()
        for keys, gradients in signals.chunks(network.learning_rate):
            pulled = keys @ solved.to(keys)
            (self._shifts(network, keys, gradients, weight) * pulled).sum().backward()

    @staticmethod
    def _shifts(network, keys, gradients, weight):
        """d of each token, as rows."""
        pseudo_keys, pseudo_gradients = network(keys, gradients, weight)
        return -network.learning_rate[weight] * (keys * pseudo_keys).sum(1, keepdim=True) * pseudo_gradients

    @staticmethod
    def _factor(network, signals, weight):
        """The Cholesky factor of K Kᵀ + e^λ̂ I, in float64."""
        import torch

        prior = network.log_prior[weight].detach().double().exp()
        size = signals.keys.shape[1]
        gram = prior * torch.eye(size, dtype=torch.float64, device=prior.device)
        for keys, _ in signals.chunks(network.learning_rate):
            gram += keys.double().mT @ keys.double()
        return torch.linalg.cholesky(gram)


EDITOR = Malmen

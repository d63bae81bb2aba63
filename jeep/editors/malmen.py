"""MALMEN (Tan, Zhang and Fu 2024): the value shifts that a hyper-network asks for, reconciled by least squares.

Each answer token asks for d = −lr (k·k̃) δ̃; ΔW = D Kᵀ (K Kᵀ + e^λ̂ I)⁻¹ over the answer tokens of all edits, with lr and
λ̂ learned for each weight.
"""

from typing import ClassVar, Literal

from jeep.editors.hyper import HyperEditor


class Malmen(HyperEditor):
    """W_O of some layers, changed by the normal equation."""

    learns_prior: ClassVar[bool] = True
    normal_equations: ClassVar[bool] = True
    """Whether an edit holds the sums of a normal equation for each weight."""
    tokens: Literal["all", "answer"] = "answer"
    """Tokens whose shifts count: those at which an answer is predicted, or all that have a gradient."""

    def sums(self, network, weight, device=None):
        """Both sides of the normal equation."""
        return _NormalEquation(network, weight, device)

    def pull_back(self, network, signals, weight, change, gradient):
        """Add to the network's gradients, through the normal equation in closed form.

        With G = ∂L/∂ΔW and M = (K Kᵀ + e^λ̂ I)⁻¹ Gᵀ: ∂L/∂D = Mᵀ K (each token's d has the gradient Mᵀk) and
        ∂L/∂λ̂ = −e^λ̂ ⟨M, ΔWᵀ⟩.
        """
        import torch

        ridge = _NormalEquation(network, weight).ridge
        for keys, _ in signals.chunks(network.learning_rate):
            ridge.add_keys(keys)
        solved = torch.cholesky_solve(gradient.mT.double(), ridge.factor())
        prior = network.log_prior[weight]
        (-(prior.exp().detach() * (solved * change.mT).sum().to(prior)) * prior).backward()
        for keys, gradients in signals.chunks(network.learning_rate):
            pulled = keys @ solved.to(keys)
            (_shifts(network, keys, gradients, weight) * pulled).sum().backward()


class _NormalEquation:
    """K Kᵀ + e^λ̂ I and D Kᵀ of one weight."""

    def __init__(self, network, weight, device=None):
        import torch

        from jeep.learned.ridge import PrimalRidge

        self.network, self.weight = network, weight
        prior = network.log_prior[weight].detach().to(device, torch.float64).exp()
        self.ridge = PrimalRidge(*network.sizes, prior)

    def add(self, signals):
        for keys, gradients in signals.chunks(self.network.learning_rate):
            self.ridge.add(keys, _shifts(self.network, keys, gradients, self.weight))

    def change(self):
        return self.ridge.change().to(self.network.learning_rate)


def _shifts(network, keys, gradients, weight):
    """d of each token, as rows."""
    pseudo_keys, pseudo_gradients = network(keys, gradients, weight)
    return -network.learning_rate[weight] * (keys * pseudo_keys).sum(1, keepdim=True) * pseudo_gradients


EDITOR = Malmen

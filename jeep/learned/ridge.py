"""Ridge regression of shifts on keys, as MALMEN and UltraEdit change a weight: by inputs, or by tokens."""

import torch
from jaxtyping import Float
from torch import Tensor

from jeep.common.errors import NotFinite
from jeep.model.gram import add_gram


def _factor_of(gram: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """The Cholesky factor, from the lower triangle. Raises NotFinite where a broken model's keys are in it."""
    factor, failure = torch.linalg.cholesky_ex(gram)
    if failure:
        raise NotFinite("keys are not finite: the model has broken down, or float32 may help")
    return factor


class PrimalRidge:
    """ΔW = Vᵀ K (Kᵀ K + p I)⁻¹ from sums over tokens, with a row of K (t, d_in) and of V (t, d_out) for each.

    In float64: 8 d_in (d_in + d_out) bytes, however many tokens there are.
    """

    def __init__(self, d_in: int, d_out: int, prior: Float[Tensor, ""]):
        """`prior`: p, on the device of the sums."""
        prior = prior.double()
        self.gram = prior * torch.eye(d_in, dtype=torch.float64, device=prior.device)
        self.products = self.gram.new_zeros(d_out, d_in)

    def add(self, keys: Float[Tensor, "t d_in"], shifts: Float[Tensor, "t d_out"]) -> None:
        """Take further tokens into account."""
        self.products.addmm_(shifts.to(self.gram).mT, keys.to(self.gram))
        self.add_keys(keys)

    def add_keys(self, keys: Float[Tensor, "t d_in"]) -> None:
        """Of tokens whose shifts are not asked for."""
        add_gram(self.gram, keys.to(self.gram).mT)

    def factor(self) -> Float[Tensor, "d_in d_in"]:
        """The Cholesky factor of Kᵀ K + p I."""
        return _factor_of(self.gram)

    def change(self) -> Float[Tensor, "d_out d_in"]:
        """ΔW, in float64."""
        return torch.cholesky_solve(self.products.mT, self.factor()).mT


class DualRidge:
    """The same ΔW as Vᵀ (K Kᵀ + p I)⁻¹ K, from the tokens themselves: cheaper while they are fewer than d_in."""

    def __init__(self, prior: Float[Tensor, ""]):
        """`prior`: p, on the device of the solution."""
        self.prior = prior.double()
        self.rows: list[tuple[Tensor, Tensor]] = []

    def add(self, keys: Float[Tensor, "t d_in"], shifts: Float[Tensor, "t d_out"]) -> None:
        """Keep further tokens."""
        self.rows.append((keys, shifts))

    def change(self) -> Float[Tensor, "d_out d_in"]:
        """ΔW, in float64."""
        keys, shifts = (torch.cat(rows).to(self.prior) for rows in zip(*self.rows, strict=True))
        gram = self.prior * torch.eye(len(keys)).to(keys)
        add_gram(gram, keys)
        return torch.cholesky_solve(shifts, _factor_of(gram)).mT @ keys

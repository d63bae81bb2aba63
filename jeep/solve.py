"""The closed-form update of an associative memory (Eq. 10): pure linear algebra."""

import torch
from jaxtyping import Float
from torch import Tensor

from jeep.errors import UserError


def closed_form_update(
    residuals: Float[Tensor, "d_out m"],
    keys: Float[Tensor, "d_in m"],
    prior: Float[Tensor, "d_in d_in"],
) -> Float[Tensor, "d_out d_in"]:
    """Change of W_O that writes m associations at once and disturbs the old ones least.

    Δ = R Kᵀ (C₀ + K Kᵀ)⁻¹ (Eq. 10), with C₀ = λ E[k kᵀ] the `prior`. It minimises
    ‖(W_O + Δ) K − V‖² + tr(Δ C₀ Δᵀ), R = V − W_O K. Computed in float64 by one Cholesky factorisation.

    Returns Δ in float64, on the device of `keys`. Raises UserError when C₀ + K Kᵀ is not positive definite.
    """
    keys, residuals = keys.double(), residuals.double()
    gram = torch.addmm(prior.to(keys), keys, keys.mT)
    factor, failure = torch.linalg.cholesky_ex(gram)
    if failure.any():
        raise UserError(
            f"the covariance of a layer with {keys.shape[0]} inputs is not positive definite: "
            "collect it over more tokens (statistics.tokens)"
        )
    return residuals @ torch.cholesky_solve(keys, factor).mT

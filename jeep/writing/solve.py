"""The closed-form update of an associative memory (Eq. 10): pure linear algebra."""

import torch
from jaxtyping import Float
from torch import Tensor

from jeep.common.errors import NotFinite, UserError
from jeep.model.gram import add_gram


def closed_form_update(
    residuals: Float[Tensor, "d_out m"],
    keys: Float[Tensor, "d_in m"],
    covariance: Float[Tensor, "d_in d_in"],
    prior: float,
    device: torch.device | None = None,
    *,
    ridge: float = 0.0,
    history: Float[Tensor, "d_in d_in"] | None = None,
    basis: Float[Tensor, "d_in r"] | None = None,
    spared: Float[Tensor, "d_in p"] | None = None,
    fixed: Float[Tensor, "d_in q"] | None = None,
) -> Float[Tensor, "d_out d_in"]:
    """Change of W_O that writes m associations at once and disturbs the old ones least.

    Δ = R Kᵀ (λC + K Kᵀ)⁻¹ (Eq. 10), with C = E[k kᵀ] the `covariance` and λ the `prior`. It minimises
    ‖(W_O + Δ) K − V‖² + λ tr(Δ C Δᵀ), R = V − W_O K. Computed in float64 by one Cholesky factorisation on `device`
    (that of `keys` where absent), in 16 d_in² + 8 (2 d_in + d_out) m + 8 d_in d_out bytes at most.

    The m × m form needs the factor of λC, which costs as much as that of λC + K Kᵀ: it saves 2 to 25 % of the time for
    m up to d_in/10, so there is one form.

    `spared` are keys S whose answers should stay, each as long as it weighs: with ‖Δ S‖² in the objective, S Sᵀ joins
    λC + K Kᵀ = A. `fixed` are keys M whose answers must stay: under Δ M = 0 the least is
    Δ₀ − Δ₀ M (Mᵀ A⁻¹ M)⁻¹ Mᵀ A⁻¹, Δ₀ being the change without that.

    `history` is Σ K_t K_tᵀ of earlier batches of a sequence; with `ridge` ν, ν‖Δ‖² is part of what is
    least: both join A.
    `basis` are orthonormal columns U₀: Δ = Δ U₀U₀ᵀ reads nothing else of a key, and is the least one of these,
    R kᵀ (λ U₀ᵀCU₀ + ν I + kkᵀ)⁻¹ U₀ᵀ with k = U₀ᵀK. λ = 0 and μ = ν is AlphaEdit's R KᵀP (K_pK_pᵀP + KKᵀP + μI)⁻¹ with
    P = U₀U₀ᵀ.

    Returns Δ in float64, on `device`. Raises UserError when λC + K Kᵀ is not positive definite.
    """
    device = device or keys.device
    if basis is not None:
        basis = basis.to(device, torch.float64)

    def inside(matrix: Tensor) -> Tensor:
        """Its columns, in coordinates of the basis if there is one."""
        matrix = matrix.to(device, torch.float64)
        return matrix if basis is None else basis.mT @ matrix

    keys, residuals = inside(keys), residuals.to(device, torch.float64)
    normal = prior * inside(inside(covariance).mT) if prior else keys.new_zeros(len(keys), len(keys))
    add_gram(normal, keys)
    normal.diagonal().add_(ridge)
    if history is not None:
        normal += inside(inside(history).mT)
    if spared is not None:
        add_gram(normal, inside(spared))
    factor = factor_of(normal)
    change = residuals @ torch.cholesky_solve(keys, factor).mT
    if fixed is not None:
        fixed = inside(fixed)
        solved = torch.cholesky_solve(fixed, factor)
        # The pseudo-inverse: relations that are asked alike may have one mean.
        change -= (change @ fixed) @ torch.linalg.pinv(fixed.mT @ solved, hermitian=True) @ solved.mT
    return change if basis is None else change @ basis.mT


def factor_of(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """The lower Cholesky factor of a covariance, of which the lower triangle is read.

    Raises UserError when it is not positive definite, NotFinite when a broken model's keys are in it.
    """
    factor, failure = torch.linalg.cholesky_ex(matrix)
    if failure.any():
        if not torch.isfinite(matrix).all():
            raise NotFinite("keys are not finite: the model has broken down, or float32 may help")
        raise UserError(
            f"the covariance of a layer with {len(matrix)} inputs is not positive definite: "
            "collect it over more tokens (statistics.tokens of a configuration, --tokens of a command)"
        )
    return factor

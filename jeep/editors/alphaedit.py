"""AlphaEdit (Fang et al. 2025): MEMIT whose change lies in the null space of what text has for keys.

P = U₀U₀ᵀ of the eigenvectors of E[kkᵀ] with eigenvalues below τ; Δ = R KᵀP (K_pK_pᵀP + KKᵀP + μI)⁻¹ with K_p the keys
of the batches before (`jeep.writing.solve`: the same in r coordinates). E[kkᵀ] and λ are nowhere else. The presets
differ in μ and τ: `paper` has the identity in place of μI and τ = 0.01, `release` μ = 10 and τ = 0.02. τ does not
transfer between models; `null_space.keep` takes a share of the eigenvectors instead.

BetaEdit (2026) is the same with a penalty on what leaks, `prior` λ₁, and a refreshed space: `release`, prior 3000,
null_space.refresh 1000. MEMIT-seq is the limit of all eigenvectors and μ → 0.
"""

from typing import Any

from pydantic import model_validator

from jeep.common.nested import merge
from jeep.editors.memit import Memit

PRESETS = {
    "paper": {"ridge": 1.0, "null_space": {"threshold": 0.01}},
    "release": {"ridge": 10.0, "null_space": {"threshold": 0.02}},
}


class AlphaEdit(Memit):
    """MEMIT with a history, a null space and a ridge in place of the prior."""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: Any) -> Any:
        """What the preset says of the region, where the settings do not."""
        if not isinstance(given, dict) or not isinstance(given.get("region"), dict):
            return given
        region = {"prior": 0.0, "history": True, **PRESETS.get(given.get("preset", "paper"), {})}
        if (given["region"].get("null_space") or {}).get("keep") is not None:
            region.pop("null_space", None)  # a share in place of the threshold
        return {**given, "region": merge(region, given["region"])}

    @model_validator(mode="after")
    def _projected(self) -> "AlphaEdit":
        if self.region.null_space is None:
            raise ValueError("region.null_space: AlphaEdit needs one")
        return self


EDITOR = AlphaEdit

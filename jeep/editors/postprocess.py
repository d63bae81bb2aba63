"""What may be made of a finished change, whichever editor made it: RECT, PRUNE, SPHERE. All are later than the paper.

Each takes W as it is before the change, and Δ. Vectors (of a fine-tuned block: biases, norms) stay as they are.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from jeep.common.errors import UserError
from jeep.common.settings import Strict

if TYPE_CHECKING:  # torch stays out of the DAG
    from torch import Tensor

    from jeep.model.editable import EditableModel


class _Postprocess(Strict):
    whole: ClassVar[bool] = False
    """Of a sequence, the change of all batches together, and only where it is measured; else each batch's."""

    def of(self, model: EditableModel, name: str, delta: Tensor) -> Tensor:
        """The change of a parameter of `model`, which does not have it yet."""
        weight = model.weight(name)
        if delta.ndim != 2:
            return delta
        if model.transposed(name):
            return self.applied(weight.mT.float(), delta.mT.to(weight.device)).mT.to(delta).contiguous()
        return self.applied(weight.float(), delta.to(weight.device)).to(delta)

    @abstractmethod
    def applied(self, weight: Tensor, delta: Tensor) -> Tensor:
        """Δ of W, both (d_out, d_in) in float32."""


class Rect(_Postprocess):
    """RECT (Gu et al. 2024): of all entries, those whose relative change |Δ/(W + 1e-8)| is largest; the others stay.

    In every batch of a sequence. The authors keep 20 %, the code that later tables were made with 40 %.
    """

    kind: Literal["rect"]
    keep: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Share of the entries."""

    def applied(self, weight, delta):
        """Zero where ρ is below the value of rank ⌊(1 − keep) size⌋, counted from 0 upwards."""
        relative = (delta / (weight + 1e-8)).abs()
        rank = math.floor((1 - self.keep) * relative.numel() + 1e-9)  # of 0.6, not of 0.5999
        threshold = relative.flatten().kthvalue(rank + 1).values
        return delta.where(relative >= threshold, 0)


class Prune(_Postprocess):
    """PRUNE (Ma et al. 2025): no singular value of the change goes far beyond the largest one of W.

    Δ = U diag(σ) Vᵀ and s = σ_max(W): each σ > s becomes log_α σ − log_α s + s, or ½σ + ½s. Of a sequence, the change
    of all batches together, before it is measured; W is then the unedited one. (Tables made with AlphaEdit's code add
    the shrunk change to weights that still hold the unshrunk one; here it takes its place.)
    """

    whole: ClassVar[bool] = True
    kind: Literal["prune"]
    base: Annotated[float, Field(gt=1)] | Literal["linear"] = math.e
    """α; the authors take e, 1.5 or 1.2 by method and model. It compresses where s > 1/ln α."""

    def applied(self, weight, delta):
        """Shrink what is above s. Raises UserError for a base that would stretch it."""
        import torch

        if not torch.isfinite(delta).all():  # of a model that has broken down
            return delta
        left, values, right = torch.linalg.svd(delta, full_matrices=False)
        most = torch.linalg.matrix_norm(weight, 2)
        if values[0] <= most:
            return delta
        linear = self.base == "linear"
        if not linear and most * math.log(self.base) <= 1:
            raise UserError(
                f"prune.base: {self.base:.4g} would stretch singular values: W's largest is {float(most):.3g}, and it "
                f"compresses above {1 / math.log(self.base):.3g} only; take a larger base, or linear"
            )
        shrunk = (values + most) / 2 if linear else (values / most).log() / math.log(self.base) + most
        return (left * values.where(values <= most, shrunk)) @ right


class Sphere(_Postprocess):
    """SPHERE (2025): the change loses a part of what lies along the directions that W's rows mostly point in.

    Ŵ = W with rows of norm 1; U: the leading eigenvectors of ŴᵀŴ up to a share β of the sum of eigenvalues, and one
    more; Δ ← Δ (I − a U Uᵀ). In every batch of a sequence, of W as it is by then.
    """

    kind: Literal["sphere"]
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """β."""
    strength: Annotated[float, Field(gt=0, le=1)] = 0.5
    """a: the authors take 0.5 on AlphaEdit, 0.8 on MEMIT, RECT and PRUNE."""

    def applied(self, weight, delta):
        """Take it away."""
        import torch

        rows = weight / weight.norm(dim=1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
        _, values, directions = torch.linalg.svd(rows, full_matrices=False)
        energy = (values**2).cumsum(0) / (values**2).sum()
        leading = directions[: int((energy <= self.share).sum()) + 1]
        return delta - self.strength * (delta @ leading.mT) @ leading


Postprocess = Rect | Prune | Sphere

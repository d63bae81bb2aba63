"""What an editor is given to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from jeep.facts import Fact
from jeep.targets import Target


@dataclass(frozen=True)
class Task:
    """What is to be written into a model, and with what."""

    facts: Sequence[Fact]
    prefixes: Sequence[str]
    """Random prefixes p_j, the empty one first, each with `{}` for the prompt."""
    token_budget: int
    """Most tokens in one forward pass."""
    targets: Sequence[Target] = ()
    """The facts' target vectors in the facts' order, where the editor has sites."""
    covariance: Mapping[int, Float[Tensor, "d_in d_in"]] = field(default_factory=dict)
    """E[k kᵀ] by layer, where the editor asks for it."""
    solver: torch.device | None = None
    """Where normal equations are solved; the model's device where absent."""

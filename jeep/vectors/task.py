"""What an editor is given to do."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from jeep.common.errors import NotFinite
from jeep.common.places import Where
from jeep.data.facts import Fact
from jeep.data.neighbours import Subjects
from jeep.vectors.targets import Target


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
    covariance: Mapping[Where, Float[Tensor, "d_in d_in"]] = field(default_factory=dict)
    """E[k kᵀ] of the input of each W_O that the editor asks for, by layer and place."""
    hypernetwork: Mapping[str, Tensor] = field(default_factory=dict)
    """The trained hyper-network's tensors, where the editor has one."""
    eigenvectors: Mapping[Where, tuple[Float[Tensor, " d_in"], Float[Tensor, "d_in d_in"]]] = field(
        default_factory=dict
    )
    """Eigenvalues, in ascending order, and eigenvectors of covariances, where they are known already."""
    norms: Sequence[float] = ()
    """ν̄ of each site, where the editor anchors target vectors (`jeep.writing.anchors`)."""
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    """What the editor keeps of the batches before, in a sequence of edits; empty in the first."""
    neighbours: Subjects = field(default_factory=dict)
    """Other subjects of the facts' relations, where there are any: what is written is measured at their prompts, and
    may be made to spare them."""
    settled: frozenset[str] = frozenset()
    """Facts, by case id, of which nothing is left to be written: their residual is zero, and their keys are kept."""
    trace: list[dict[str, Any]] = field(default_factory=list)
    """Filled by editors of regions: each layer's relative change, and the residual before and after its update."""
    notes: dict[str, Tensor] = field(default_factory=dict)
    """Filled by an editor as it edits: what its `remember` cannot read off the edited model."""
    unwritten: list[str] = field(default_factory=list)
    """Filled by an editor: facts, by case id, that it has not written, or not in all of its regions."""
    checkpoint: Path | None = None
    """Where a long edit keeps what it has done while it runs; nowhere where absent."""
    solver: torch.device | None = None
    """Where normal equations are solved; the model's device where absent."""

    def of_first(self, count: int, vectors: Mapping[str, Target] | None) -> "Task":
        """The same with the first so many facts: where there are vectors, those that have one, with it.

        Raises NotFinite where not one of all facts has.
        """
        facts = list(self.facts[:count])
        if vectors is not None:
            lost = [fact.case_id for fact in facts if fact.case_id not in vectors]
            facts = [fact for fact in facts if fact.case_id in vectors]
            if not facts and count >= len(self.facts):
                raise NotFinite(
                    "no fact has a target vector that stayed finite: a smaller learning rate, or float32, may help"
                )
            if lost:
                logging.warning("left out, their optimisation did not stay finite: %s", ", ".join(lost))
        chosen = [vectors[fact.case_id] for fact in facts] if vectors else []
        return replace(self, facts=facts, targets=chosen, trace=[], unwritten=[], notes={})

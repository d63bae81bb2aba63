"""What an editor is given beside facts, prefixes and target vectors: files that earlier stages wrote."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from jeep.common.storage import read_json
from jeep.data.facts import Fact
from jeep.model.editable import EditableModel
from jeep.model.files import read_of
from jeep.vectors.task import Task
from jeep.writing.covariance import read_covariances
from jeep.writing.null_space import read_eigenvectors


@dataclass(frozen=True)
class Given:
    """The files, each of them optional, and the device of the normal equations."""

    covariance: Sequence[Path] = ()
    eigenvectors: Sequence[Path] = ()
    norms: Path | None = None
    neighbours: Path | None = None
    hypernetwork: Path | None = None
    solver: str | None = None

    @property
    def files(self) -> list[Path]:
        """All that there are."""
        single = filter(None, [self.norms, self.neighbours, self.hypernetwork])
        return [*self.covariance, *self.eigenvectors, *single]

    def task(self, model: EditableModel, facts: Sequence[Fact], prefixes: Sequence[str], token_budget: int) -> Task:
        """A task with what the files hold. Raises UserError for one that was made with another model."""
        network = read_of(model.identity, self.hypernetwork)[0] if self.hypernetwork else {}
        network.pop("losses", None)  # for the figure of the training
        return Task(
            facts,
            prefixes,
            token_budget,
            covariance=read_covariances(self.covariance, model),
            eigenvectors=read_eigenvectors(self.eigenvectors, model),
            norms=read_json(self.norms) if self.norms else (),
            neighbours=read_json(self.neighbours) if self.neighbours else {},
            hypernetwork=network,
            solver=torch.device(self.solver) if self.solver else None,
        )


def stamps(files: Iterable[Path]) -> list[tuple[str, int]]:
    """Names and times of change: what a result depends on that was made of the files."""
    return [(path.name, path.stat().st_mtime_ns) for path in files]

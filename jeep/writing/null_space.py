"""The space that AlphaEdit writes in: eigenvectors of E[k kᵀ] along which text hardly has any key."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from jeep.common.errors import UserError
from jeep.common.places import Where, place_name, place_of
from jeep.common.settings import NullSpace
from jeep.common.storage import read_tensors, write_tensors
from jeep.model.editable import EditableModel
from jeep.model.files import read_of
from jeep.vectors.task import Task


class Eigenvectors(NamedTuple):
    """A covariance's decomposition C = U diag(S) Uᵀ."""

    values: Float[Tensor, " d_in"]
    """S, in ascending order."""
    vectors: Float[Tensor, "d_in d_in"]
    """U: a column for each value."""

    @classmethod
    def of(cls, covariance: Float[Tensor, "d_in d_in"], device: torch.device | None = None) -> "Eigenvectors":
        """Computed in float64 on `device` (the covariance's where absent), kept in float32 on the CPU."""
        values, vectors = torch.linalg.eigh(covariance.to(device or covariance.device, torch.float64))
        return cls(values.float().cpu(), vectors.float().cpu())

    def kept(self, space: NullSpace) -> Float[Tensor, "d_in r"]:
        """U₀: the eigenvectors of the smallest values, in the number that `space` asks for.

        Raises UserError where it asks for none.
        """
        if space.keep is None:
            count = int((self.values < space.threshold).sum())
        else:
            count = round(space.keep * len(self.values))
        if not count:
            raise UserError(
                f"null_space: no eigenvalue of this covariance is below {space.threshold} "
                f"(the smallest is {float(self.values[0]):.3g}): give a larger threshold, or keep, a share"
                if space.keep is None
                else f"null_space.keep: {space.keep} of {len(self.values)} eigenvectors is none"
            )
        return self.vectors[:, :count]


def write_eigenvectors(covariance: Path, out: Path, device: torch.device | None = None) -> None:
    """The decomposition of a covariance's file, beside what the file says of itself."""
    tensors, provenance = read_tensors(covariance)
    ((name, matrix),) = tensors.items()
    found = Eigenvectors.of(matrix, device)
    write_tensors(out, {f"{name}.{part}": tensor for part, tensor in found._asdict().items()}, provenance)


def read_eigenvectors(paths: Iterable[Path], model: EditableModel) -> Mapping[Where, Eigenvectors]:
    """What `write_eigenvectors` wrote, by layer and sub-layer. Raises UserError where it is of another model."""
    paths, found = list(paths), {}
    identity = model.identity if paths else ""
    for path in paths:
        tensors = read_of(identity, path)[0]
        for name in {key.rpartition(".")[0] for key in tensors}:
            found[place_of(name)] = Eigenvectors(tensors[f"{name}.values"], tensors[f"{name}.vectors"])
    return found


def null_space(space: NullSpace, where: Where, task: Task, device: torch.device) -> Float[Tensor, "d_in r"]:
    """U₀ of a W_O: the one that a sequence has refreshed, or the covariance's, which is decomposed on `device` here
    where it is not yet."""
    refreshed = task.memory.get(basis_name(where))
    if refreshed is not None:
        return refreshed
    known = task.eigenvectors.get(where)
    return (Eigenvectors(*known) if known else Eigenvectors.of(task.covariance[where], device)).kept(space)


def basis_name(where: Where) -> str:
    """A refreshed U₀ among what an editor remembers."""
    return f"basis.{place_name(where)}"

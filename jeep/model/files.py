"""Files of tensors that belong to one model: they say which, and are not read for another.

A model is known by its `EditableModel.identity`, a digest of all weights: taken once for several files.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from jeep.common.errors import UserError
from jeep.common.storage import read_tensors, write_tensors


def write_of(identity: str, path: Path, tensors: Mapping[str, Tensor], provenance: Mapping[str, Any]) -> None:
    """Write tensors with the identity of the model that they were made with."""
    write_tensors(path, dict(tensors), {"model": identity, **provenance})


def read_of(identity: str, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_of` wrote: tensors and provenance. Raises UserError where they are of another model."""
    tensors, provenance = read_tensors(path)
    if provenance.get("model") != identity:
        raise UserError(f"{path}: made with another model, or with this one before it changed; delete it")
    return tensors, provenance

"""A W_O by its layer and sub-layer, its name in files and on command lines, and those that settings speak of."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from jeep.common.errors import UserError

Projection = Literal["mlp", "attention"]
"""A W_O of a block: its MLP's or its attention's."""
Where = tuple[int, Projection]
"""Layer and sub-layer of a W_O."""


def place_name(where: Where) -> str:
    """A W_O as files and command lines write it, such as 9.mlp."""
    return f"{where[0]}.{where[1]}"


def place_of(name: str) -> Where:
    """The other way round. Raises ValueError for what is no such name."""
    layer, _, sublayer = name.partition(".")
    if not layer.isdigit() or sublayer not in get_args(Projection):
        raise ValueError(f"{name!r}: expected a layer and mlp or attention, such as 9.mlp")
    return int(layer), sublayer


def layers_in(space: Mapping[str, Sequence[Any]]) -> set[int]:
    """All layers that a space of settings, values by dotted path, holds."""
    layers: set[int] = set()
    for path, values in space.items():
        if path.rpartition(".")[2] in ("layers", "layer"):
            for value in values:
                layers.update(value if isinstance(value, list) else [value])
    return layers


def places_in(space: Mapping[str, Sequence[Any]]) -> list[Where]:
    """The W_O of MLPs in all layers that a space of settings holds."""
    return sorted((layer, "mlp") for layer in layers_in(space))


def require_layers(layers: Iterable[int], depth: int, what: str = "") -> None:
    """Raise UserError, beginning with `what`, unless a model of `depth` blocks has all the layers."""
    deepest = max(layers, default=0)
    if deepest >= depth:
        raise UserError(f"{what}layer {deepest} of a model that has {depth}, counted from 0")

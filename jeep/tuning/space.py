"""Spaces of settings: which of them are dear, and random points of them."""

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from jeep.common.nested import with_value, with_values
from jeep.editors import load_editor

Settings = Mapping[str, Any]
"""Nested settings of an editor, or one value for each dotted path of a space, such as low.clamp."""
Space = Mapping[str, Sequence[Any]]
"""Values to try by the dotted path of a setting."""


def divide(name: str, settings: Settings, space: Space) -> tuple[Space, Space]:
    """The part of a space that is dear, and the rest."""
    start = with_values(settings, {path: values[0] for path, values in space.items()})
    base = load_editor(name, start).target_spec
    if base is None:
        return space, {}

    def matters(path: str) -> bool:
        return any(load_editor(name, with_value(start, path, value)).target_spec != base for value in space[path])

    dear = {path for path in space if matters(path)}
    return {p: v for p, v in space.items() if p in dear}, {p: v for p, v in space.items() if p not in dear}


def draw_points(
    name: str, settings: Settings, space: Space, count: int, generator: random.Random
) -> list[dict[str, Any]]:
    """`count` distinct random points that the editor accepts together with `settings`; all where there are fewer."""
    points = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    generator.shuffle(points)

    def accepted(point: Settings) -> bool:
        try:
            load_editor(name, with_values(settings, point))
        except ValidationError:  # a combination that the editor excludes, such as regions that overlap
            return False
        return True

    return list(itertools.islice(filter(accepted, points), count))

"""Nested settings: copies with some values replaced, by dotted path or key by key."""

from collections.abc import Mapping
from typing import Any


def with_value(settings: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of nested settings with the value at a dotted path replaced."""
    key, _, rest = path.partition(".")
    return {**settings, key: with_value(settings.get(key, {}), rest, value) if rest else value}


def with_values(settings: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested settings with the values at several dotted paths replaced."""
    for path, value in values.items():
        settings = with_value(settings, path, value)
    return dict(settings)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, key by key; nested mappings are merged, everything else is replaced.

    So is a mapping of another `kind`, such as a source: its keys mean other things.
    """
    if "kind" in over and over["kind"] != base.get("kind"):
        return dict(over)
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result

"""The editing methods: one file each, looked up by name."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from jeep.editors.base import Editor

EDITORS = ("jeep", "memit")


def load_editor(name: str, settings: Mapping[str, Any]) -> Editor:
    """The editor `name` with these settings. Raises pydantic.ValidationError when they do not fit it."""
    return import_module(f"jeep.editors.{name}").EDITOR.model_validate(settings)

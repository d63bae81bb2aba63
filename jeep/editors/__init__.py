"""The editing methods: one file each, looked up by name."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from pydantic import ValidationError

from jeep.common.errors import UserError, complaint
from jeep.editors.base import Editor

EDITORS = ("alphaedit", "ft_wd", "jeep", "malmen", "memit", "mend", "pmet", "rome", "ultraedit")


def load_editor_class(name: str) -> type[Editor]:
    """The class of the editor `name`."""
    return import_module(f"jeep.editors.{name}").EDITOR


def load_editor(name: str, settings: Mapping[str, Any]) -> Editor:
    """The editor `name` with these settings. Raises pydantic.ValidationError when they do not fit it."""
    return load_editor_class(name).model_validate(settings)


def checked_editor(name: str, settings: Mapping[str, Any], what: str) -> Editor:
    """As `load_editor`. Raises UserError, beginning with `what`, when the settings do not fit it."""
    try:
        return load_editor(name, settings)
    except ValidationError as error:
        raise UserError(f"{what}: {complaint(error)}") from None

"""Joint knowledge editing of language models (JEEP, AAAI 2025), its baselines, and how to measure them.

model = jeep.load("path/or/hub-id")
edit = jeep.edit(model, "facts.jsonl")
edit.save("edited/")
"""

import shutil
import sys
from importlib import import_module
from typing import Any

__all__ = ["Edit", "Fact", "Question", "Tuning", "edit", "load", "tune", "wrap"]

_ROOM = 16 << 20
"""Bytes: several times the bytecode of the package."""
if shutil.disk_usage(__file__).free < _ROOM:
    sys.dont_write_bytecode = True  # Python leaves half a file on a full disk, and stops at it ever after


def __getattr__(name: str) -> Any:
    """The interface of `jeep.api`, imported when it is asked for: the command line starts without torch."""
    if name in __all__:
        return getattr(import_module("jeep.api"), name)
    raise AttributeError(f"module 'jeep' has no attribute {name!r}")

"""The stages of the pipeline: what prepares, what edits and measures, what probes, what shows; and one's own model.

Each is a function to be called and a sub-command of `jeep`; a rule of the pipeline and the stage it runs have one name.
It may import everything below.
"""

from collections.abc import Callable
from inspect import isfunction

from jeep.stages import damage, edit, figures, own, prepare, probe, results, sequence

STAGES: list[Callable[..., None]] = [
    function
    for module in (own, prepare, edit, sequence, damage, probe, results, figures)
    for name, function in vars(module).items()
    if isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
]

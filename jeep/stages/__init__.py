"""The stages of the pipeline, each a sub-command: what prepares, what edits and measures, what probes, what shows."""

from jeep.stages import edit, prepare, probe, results
from jeep.stages.options import Stage

STAGES: list[Stage] = [
    function
    for module in (prepare, edit, probe, results)
    for function in vars(module).values()
    if hasattr(function, "options")
]

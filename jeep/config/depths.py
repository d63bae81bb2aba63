"""The layers that a configuration names, held against its models: before the first job, not in it."""

import json
from pathlib import Path

from jeep.common.places import layers_in, require_layers
from jeep.common.settings import UNEDITED
from jeep.config.plan import Plan
from jeep.data.sources import HubSource, PathSource, TrainedSource, WheelSource

_NAMES = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
"""What configurations of models call the number of blocks."""


def depth_of(source: WheelSource | HubSource | PathSource | TrainedSource) -> int | None:
    """Number of a model's blocks, where its source says it without a download."""
    if isinstance(source, TrainedSource):
        return source.layers
    if not isinstance(source, PathSource):
        return None
    try:
        known = json.loads((Path(source.path) / "config.json").read_text(encoding="utf-8"))
        found = [known[name] for name in _NAMES if isinstance(known.get(name), int)]
    except (OSError, ValueError, AttributeError):  # the job that fetches it says what is wrong
        return None
    return found[0] if found else None


def check_layers(plan: Plan) -> None:
    """Raise UserError where a run or a search names a layer that its model does not have, and the model is at hand."""
    depths = {name: depth_of(model.source) for name, model in plan.config.models.items()}
    for model, dataset, method in plan.cells:
        if method != UNEDITED and depths[model] is not None:
            written = plan.editor(method, model, dataset).written
            require_layers(written, depths[model], f"methods.{method} for {model}/{dataset}: ")
    for model, sets, method in plan.searched():
        if depths[model] is not None:
            tried = {
                *plan.first_editor(model, method, sets).written,
                *layers_in(plan.config.tuning.space[model][method]),
            }
            require_layers(tried, depths[model], f"tuning.space.{model}.{method}: ")
    for model, search in (plan.config.tuning.regions if plan.config.tuning else {}).items():
        if depths[model] is not None:
            require_layers(layers_in(search.layers), depths[model], f"tuning.regions.{model}: ")

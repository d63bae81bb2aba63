"""What a run is of, in words: sources with their pins, presets, seeds, versions."""

from importlib.metadata import version
from typing import Any

from jeep.common.settings import UNEDITED
from jeep.config.plan import Plan
from jeep.data.sources import DemoSource


def about(plan: Plan) -> dict[str, Any]:
    """What was run: title, edits, seeds, the source of each model and data set, the methods of each preset."""
    config, experiment = plan.config, plan.experiment
    presets: dict[str, dict[str, None]] = {}
    for run in plan.runs:
        if run.method in experiment.methods and run.method != UNEDITED:
            presets.setdefault(plan.preset(run), {})[run.method] = None
    counts = (f"{len(getattr(experiment, kind))} {kind}" for kind in ("methods", "models"))
    return {
        "title": f"JEEP: {', '.join(counts)}, {len(experiment.datasets)} data sets",
        "edits": experiment.edits,
        "seeds": config.seeds,
        "models": {name: _described(config.models[name].source, plan) for name in experiment.models},
        "datasets": {name: _described(config.datasets[name].source, plan) for name in experiment.datasets},
        "presets": {name: list(methods) for name, methods in presets.items()},
    }


def provenance(plan: Plan) -> str:
    """The same in one line, for the captions of Snakemake's report."""
    found = about(plan)
    parts = [f"model {name}: {text}" for name, text in found["models"].items()]
    parts += [f"data {name}: {text}" for name, text in found["datasets"].items()]
    parts += [f"preset {name}: {', '.join(methods)}" for name, methods in found["presets"].items()]
    parts += [f"seeds {', '.join(map(str, found['seeds']))}"]
    parts += [", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "snakemake"))]
    return "; ".join(parts)


def _described(source: Any, plan: Plan) -> str:
    """A source with its pins; of the demo's facts with the packages that they are made from."""
    parts = source.model_dump(mode="json", exclude_none=True)
    text = ", ".join([parts.pop("kind"), *(f"{name} {value}" for name, value in parts.items())])
    if isinstance(source, DemoSource):
        packages = plan.config.demo.packages.items()
        made = (f"{name} {wheel.version} sha256 {wheel.sha256[:16]}…" for name, wheel in packages)
        text += f", made from {', '.join(made)}"
    return text

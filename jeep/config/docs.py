"""config/README.md, made from the typed configuration: python -m jeep.config.docs > config/README.md."""

import sys
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from jeep.common import settings
from jeep.config import config, experiment, schema
from jeep.data import sources
from jeep.editors import EDITORS, jeep, load_editor_class, postprocess

_INTRODUCTION = """# What the configuration says

`config.yaml` is the embedded default, `paper.yaml` the paper's grid; choose another with
`snakemake --configfile FILE`, which then replaces the default. An unknown key or a bad value stops the run before
anything starts. How jobs run (threads, GPUs, a cluster) is in `profiles/`, never here.

This page is made from the code: `python -m jeep.config.docs > config/README.md`.
"""
_PARTS = (
    config.Config,
    schema.Corpus,
    schema.Demo,
    schema.Statistics,
    schema.Model,
    schema.Dataset,
    schema.NeighbourPool,
    schema.Training,
    schema.Method,
    schema.Editing,
    experiment.Experiment,
    experiment.Grid,
    experiment.Curve,
    experiment.Large,
    experiment.Damage,
    settings.Amounts,
    settings.HarnessTasks,
    experiment.EditSequence,
    experiment.Sweep,
    experiment.Tradeoff,
    experiment.Curved,
    experiment.CaseStudy,
    experiment.QuickLook,
    schema.Probe,
    schema.Retrieval,
    schema.FactLists,
    schema.Tuning,
    settings.Protocol,
    schema.RegionSearch,
)
_SOURCES = (
    sources.WheelSource,
    sources.HubSource,
    sources.PathSource,
    sources.UrlSource,
    sources.DemoSource,
    sources.DemoFileSource,
    sources.TrainedSource,
    sources.OpenAISource,
    sources.KnowledgeBaseSource,
)
_SETTINGS = (
    settings.Optimization,
    settings.Relax,
    settings.StopRight,
    settings.Region,
    settings.NullSpace,
    jeep.HighRegion,
    jeep.Repair,
    settings.Neighbours,
    settings.MetaTraining,
    postprocess.Rect,
    postprocess.Prune,
    postprocess.Sphere,
)


def _type(annotation: Any) -> str:
    """A field's type as a person would write it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return " \\| ".join(str(value) for value in arguments)
    if origin in (Union, types.UnionType):
        return " \\| ".join(_type(part) for part in arguments if part is not type(None))
    if origin in (list, tuple):
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"{_type(arguments[0])}: {_type(arguments[1])}"
    return getattr(annotation, "__name__", str(annotation))


def _table(model: type[BaseModel]) -> Iterator[str]:
    yield "| key | type | default | what |"
    yield "|---|---|---|---|"
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else f"`{field.get_default(call_default_factory=True)}`"
        text = " ".join((field.description or "").split())
        yield f"| `{name}` | {_type(field.annotation)} | {default} | {text} |"


def _section(title: str, models: tuple[type[BaseModel], ...]) -> Iterator[str]:
    yield f"\n## {title}"
    for model in models:
        yield f"\n### {model.__name__}\n"
        yield f"{' '.join((model.__doc__ or '').split())}\n"
        yield from _table(model)


def render() -> str:
    """The whole page."""
    editors = tuple(load_editor_class(name) for name in EDITORS)
    return "\n".join(
        [
            _INTRODUCTION.rstrip(),
            *_section("The file", _PARTS),
            *_section("Sources", _SOURCES),
            *_section("Settings of the editors", editors + _SETTINGS),
            "",
        ]
    )


if __name__ == "__main__":
    sys.stdout.write(render())

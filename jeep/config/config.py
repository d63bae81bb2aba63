"""The typed configuration. Everything a run depends on, validated before anything starts; unknown keys are errors.

This module imports no torch: the DAG is built from it.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from jeep.common.errors import UserError, complaint, one_line
from jeep.common.nested import merge
from jeep.common.settings import UNEDITED, UNEDITED_LABEL, Strict
from jeep.config.experiment import CaseStudy, Experiment, Grid, QuickLook
from jeep.config.schema import (
    Corpus,
    Dataset,
    Demo,
    Editing,
    Method,
    Model,
    Name,
    Probe,
    Statistics,
    Training,
    Tuning,
)
from jeep.editors import EDITORS, Editor, load_editor

Entry = TypeVar("Entry")


def _distinct(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"each seed once, not {seeds}")
    return seeds


class Config(Strict):
    """The whole configuration of a run."""

    extends: Path | None = None
    """A configuration that this one starts from, as seen from where the command runs or from this file. What has a name
    (models, data sets, methods, ...) is merged by name; of `experiment`, `probe` and `tuning` nothing is taken over
    where this file has one of them."""
    workdir: Path | None = None
    """Folder of this configuration's `results` and `logs`; where the command runs, where absent."""
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1), AfterValidator(_distinct)]
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
    probe: Probe | None = None
    tuning: Tuning | None = None

    @model_validator(mode="after")
    def _references(self) -> "Config":
        for sweep in self.experiment.sweeps:
            self.methods.update(sweep.defined())
        for name, dataset in self.datasets.items():
            if dataset.settings_of is not None:
                self._check_names(f"datasets.{name}.settings_of", "datasets", [dataset.settings_of])
            if dataset.neighbours is not None:
                self._check_names(f"datasets.{name}.neighbours", "datasets", [dataset.neighbours.dataset])
        self._check_methods()
        sequences = {f"experiment.{name}": part for name, part in self.experiment.sequences.items()}
        for where, grid in {**self.experiment.grids, **sequences}.items():
            self._check_grid(where, grid)
        if self.experiment.case_study:
            self._check_part("case_study", self.experiment.case_study, [])
        if self.experiment.quick:
            self._check_part("quick", self.experiment.quick, [UNEDITED])
        if self.probe:
            self._check_names("probe", "models", self.probe.models)
            self._check_names("probe", "datasets", [self.probe.dataset])
            if self.datasets[self.probe.dataset].chat:
                raise ValueError("probe.dataset: its word sets are of running text, and this one is asked in a chat")
        if self.experiment.tradeoff:
            self._check_curves(self.experiment.tradeoff.curves)
        if self.tuning:
            self._check_tuning(self.tuning)
        return self

    def _check_curves(self, curves: Iterable[str]) -> None:
        """A figure knows curves and methods apart by what it calls them."""
        taken = {UNEDITED, UNEDITED_LABEL}.union(*({name, method.label} for name, method in self.methods.items()))
        for name in curves:
            if name in taken:
                raise ValueError(f"experiment.tradeoff.curves: {name!r} is a method's name; give the curve another one")

    def _check_part(self, where: str, part: CaseStudy | QuickLook, beside: list[str]) -> None:
        """What is shown of the experiment is of its runs, and edited but for `beside`."""
        for kind, names in (("models", [part.model]), ("datasets", [part.dataset]), ("methods", part.methods)):
            for name in names:
                if name not in beside and (name == UNEDITED or name not in getattr(self.experiment, kind)):
                    raise ValueError(f"experiment.{where} names {name!r}, which experiment.{kind} does not edit")

    def _check_tuning(self, tuning: Tuning) -> None:
        """Everything that a search names is there, and the probe has read the models whose regions are moved."""
        self._check_names("tuning", "datasets", [*tuning.datasets, *tuning.datasets.values()])
        self._check_names("tuning.space", "models", list(tuning.space))
        self._check_names("tuning.space", "methods", [name for space in tuning.space.values() for name in space])
        for model, search in tuning.regions.items():
            if search.dataset not in tuning.datasets:
                raise ValueError(f"tuning.regions names {search.dataset!r}, which tuning.datasets does not define")
            if self.probe is None or model not in self.probe.models:
                raise ValueError(f"tuning.regions names {model!r}, which probe.models does not")
            self._check_grid("tuning.regions", Grid(models=[model], datasets=[search.dataset], methods=[search.method]))

    def _check_names(self, where: str, kind: str, names: list[str]) -> None:
        for name in names:
            if name not in getattr(self, kind) and (kind, name) != ("methods", UNEDITED):
                raise ValueError(f"{where}.{kind} names {name!r}, which {kind} does not define")

    def _check_grid(self, where: str, grid: Grid) -> None:
        for kind in ("models", "datasets", "methods"):
            self._check_names(where, kind, getattr(grid, kind))
        for method in (name for name in grid.methods if name != UNEDITED):
            for model in grid.models:
                editors = {dataset: self.editor(method, model, dataset) for dataset in grid.datasets}
                self._check_training(model, method, list(editors.values()))
                for dataset, editor in editors.items():
                    if editor.anchors and self.development_set(dataset) is None:
                        raise ValueError(
                            f"methods.{method} anchors target vectors, whose norm is measured on facts that are not "
                            f"edited: tuning.datasets.{dataset} is needed"
                        )
                    if editor.spares and self.datasets[dataset].neighbours is None:
                        raise ValueError(f"methods.{method} spares neighbours: datasets.{dataset}.neighbours is needed")

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
        datasets = [name for name in (self.datasets[dataset].settings_of, dataset) if name]
        overrides = [entry.overrides.get(key) for key in (model, *(f"{model}/{name}" for name in datasets))]
        for layer in (entry.settings, *overrides):
            merged = merge(merged, layer or {})
        return merged

    def development_set(self, dataset: str) -> str | None:
        """The facts that stand for those of a data set, or of the one whose settings it has, without being edited."""
        known = self.tuning.datasets if self.tuning else {}
        return known.get(dataset) or known.get(self.datasets[dataset].settings_of or "")

    def training_of(self, model: str) -> Training:
        """What a model's hyper-networks are trained on."""
        return _by_model(self.training, model)

    def searched_settings(self, method: str, model: str, dataset: str) -> dict[str, Any]:
        """Where a search begins: a method's settings without overrides, over all those of a method that it extends."""
        entry = self.methods[method]
        return merge(self._settings(entry.extends, model, dataset) if entry.extends else {}, entry.settings)

    def statistics_of(self, model: str) -> Statistics:
        """How the covariances of a model are estimated."""
        return _by_model(self.statistics, model)


def _by_model(entries: Mapping[str, Entry], model: str) -> Entry:
    return entries.get(model) or entries["default"]


RUN_PARTS = {"experiment", "probe", "tuning"}
"""What says what is run."""


def expand(raw: Mapping[str, Any], folder: Path = Path()) -> dict[str, Any]:
    """A configuration with what it extends merged in: files as seen from where the command runs, or from `folder`, its
    own. Raises UserError where that is no file of settings.
    """
    seen: list[Path] = []
    chain = [dict(raw)]
    while (base := chain[-1].get("extends")) is not None:
        if not isinstance(base, str):
            raise UserError(f"extends: expected a file, not {base!r}")
        path = next((path for path in (Path(base), folder / base) if path.is_file()), Path(base))
        if path.resolve() in seen:
            raise UserError(f"extends: {base} extends itself")
        seen.append(path.resolve())
        chain.append(_read(path))
        folder = path.parent
    result = chain.pop()
    for over in reversed(chain):
        inherited = {key: value for key, value in result.items() if not (key in RUN_PARTS and RUN_PARTS & over.keys())}
        result = merge(inherited, over)
    return result


def _from_here(value: Any) -> Any:
    """The same with relative paths of sources made absolute: another working directory leaves them where they are."""
    if isinstance(value, list):
        return [_from_here(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    found = {key: _from_here(item) for key, item in value.items()}
    if found.get("kind") == "path" and isinstance(found.get("path"), str):
        found["path"] = str(Path(found["path"]).absolute())
    return found


def parse_config(raw: Mapping[str, Any], where: str = "config", folder: Path = Path()) -> Config:
    """Validate a configuration of a file in `folder`. Raises UserError with the first thing that is wrong with it."""
    whole = expand(raw, folder)
    try:
        return Config.model_validate(_from_here(whole) if whole.get("workdir") else whole)
    except ValidationError as error:
        raise UserError(f"{where}: {complaint(error)}") from None


def load_config(path: Path | str) -> Config:
    """Read and validate a YAML configuration file."""
    return parse_config(_read(path), str(path), Path(path).parent)


def _read(path: Path | str) -> Mapping[str, Any]:
    try:
        raw = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({one_line(error, None)})") from None
    if not isinstance(raw, Mapping):
        raise UserError(f"{path}: expected a mapping of settings")
    return raw

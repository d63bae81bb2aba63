"""What a configuration runs: grids of models, data sets and methods, and what is shown of them. No torch."""

import math
from typing import Annotated

from pydantic import Field, PositiveInt, model_validator

from jeep.common.nested import with_value
from jeep.common.settings import Amounts, HarnessTasks, Strict
from jeep.config.schema import Method, Name, Other


class Grid(Strict):
    """Every method on every data set with every model."""

    models: list[Name]
    datasets: list[Name]
    methods: list[Name]

    def counts(self, dataset: str, edits: int) -> list[int]:
        """The numbers of facts of a data set edited at once, `edits` being the experiment's."""
        return [edits]


class Curve(Grid):
    """The scaling curve (Figure 4): the metrics over the number of edits."""

    points: PositiveInt = 16
    """Edit counts are exp(ln(edits)·i/points), i = 0..points, rounded."""

    def counts(self, dataset: str, edits: int) -> list[int]:
        """m_i of §5.3; each once."""
        return sorted({round(math.exp(math.log(edits) * i / self.points)) for i in range(self.points + 1)})


class Large(Grid):
    """Some methods with many more facts than the experiment's (the target `large`, no part of `all`)."""

    edits: dict[Name, list[PositiveInt]]
    """Numbers of facts edited at once, by data set."""

    def counts(self, dataset: str, edits: int) -> list[int]:
        """Those of the data set."""
        return sorted(self.edits[dataset])

    @model_validator(mode="after")
    def _every_set(self) -> "Large":
        for name in self.datasets:
            if not self.edits.get(name):
                raise ValueError(f"edits: no number for {name!r}")
        return self


class Curved(Strict):
    """One setting of a method over some values."""

    method: Name
    setting: str
    """Dotted path, such as high.clamp."""
    values: Annotated[list[float], Field(min_length=1)]


class EditSequence(Grid):
    """Edits that come one batch after another, each on the model that the batches before left."""

    batches: PositiveInt
    """T."""
    edits: PositiveInt
    """n: facts of a batch, in the data set's order."""
    measure_every: PositiveInt = 1
    """After the first batch, after every k-th and after the last, all facts so far are measured."""
    held_out: PositiveInt | None = None
    """Tokens that covariances have not read: drift and perplexity are measured there, too."""

    @property
    def facts(self) -> int:
        """Of all batches."""
        return self.batches * self.edits


class Damage(Grid):
    """What else the edits change: free answers, texts, held-out text, small tasks, questions that follow from edits."""

    numbers: dict[Name, Annotated[list[PositiveInt], Field(min_length=1)]] = Field(default_factory=dict)
    """Numbers of facts edited at once, by data set; the experiment's where absent."""
    tasks: dict[Name, Other] = Field(default_factory=dict)
    """Multiple choice, by name: JSON lines of text, choices and label."""
    amounts: Amounts = Amounts()
    harness: HarnessTasks | None = None

    def counts(self, dataset: str, edits: int) -> list[int]:
        """Those of the data set."""
        return sorted(set(self.numbers.get(dataset, [edits])))

    @model_validator(mode="after")
    def _known_sets(self) -> "Damage":
        for name in self.numbers:
            if name not in self.datasets:
                raise ValueError(f"numbers: {name!r} is none of datasets")
        return self


class Sweep(Curved):
    """One setting of a method over many values (Figure 6: γ*)."""

    models: list[Name]
    datasets: list[Name]

    @property
    def variants(self) -> dict[str, float]:
        """The value of each method that the sweep adds, by the method's name."""
        return {f"{self.method}-{self.setting}-{value:g}": value for value in self.values}

    def defined(self) -> dict[str, Method]:
        """These methods."""
        return {
            name: Method(extends=self.method, settings=with_value({}, self.setting, value))
            for name, value in self.variants.items()
        }

    @property
    def grid(self) -> Grid:
        """The variants on the models and data sets."""
        return Grid(models=self.models, datasets=self.datasets, methods=list(self.variants))


class Tradeoff(Strict):
    """Efficacy against locality, along settings of several methods (the target `tradeoff_curves`, no part of `all`)."""

    models: list[Name]
    datasets: list[Name]
    methods: list[Name] = Field(default_factory=list)
    """Shown as they are, each a point."""
    curves: Annotated[dict[str, Curved], Field(min_length=1)]
    """By what the figure calls them."""

    @property
    def sweeps(self) -> dict[str, Sweep]:
        """Each curve as a sweep of its own."""
        where = {"models": self.models, "datasets": self.datasets}
        return {name: Sweep(**where, **curve.model_dump()) for name, curve in self.curves.items()}

    @property
    def grid(self) -> Grid:
        """All variants and methods on the models and data sets."""
        variants = [name for sweep in self.sweeps.values() for name in sweep.variants]
        return Grid(models=self.models, datasets=self.datasets, methods=[*self.methods, *dict.fromkeys(variants)])


class CaseStudy(Strict):
    """Table 1: what edited models generate for one record."""

    model: Name
    dataset: Name
    methods: Annotated[list[Name], Field(min_length=1)]
    case_id: str | None = None
    """Which record; by a rule (jeep/report/case_study.py) where absent."""


class QuickLook(Strict):
    """A first table minutes after the start (the target `quick`): some of the runs, with answers in words."""

    model: Name
    dataset: Name
    methods: Annotated[list[Name], Field(min_length=1)]
    answers: PositiveInt = 3
    """Facts whose answers are shown in words."""


class Experiment(Grid):
    """What is run: every method on every data set with every model."""

    edits: PositiveInt
    """Facts edited at once."""
    more: Grid | None = None
    """Further methods of tables 2 and 3, with some of the models, on some of the data sets."""
    ablations: Grid | None = None
    """Table 4."""
    curve: Curve | None = None
    """Figure 4."""
    sweep: Sweep | None = None
    """Figure 6."""
    case_study: CaseStudy | None = None
    """Table 1; of runs that the experiment has."""
    quick: QuickLook | None = None
    """The target `quick`; of runs that the experiment has."""
    large: Large | None = None
    tradeoff: Tradeoff | None = None
    damage: Damage | None = None
    """The table and the figure of what else the edits change."""
    sequence: EditSequence | None = None
    """A short one, part of `all`."""
    long_sequence: EditSequence | None = None
    """A longer one, the target `long_sequence`."""

    @property
    def sequences(self) -> dict[str, EditSequence]:
        """By where they stand in the configuration."""
        parts = {"sequence": self.sequence, "long_sequence": self.long_sequence}
        return {name: part for name, part in parts.items() if part is not None}

    @model_validator(mode="after")
    def _apart(self) -> "Experiment":
        """`large` has data sets of its own: target vectors are made for the most facts that are edited of each."""
        shared = {name for grid in self.grids.values() if grid is not self.large for name in grid.datasets}
        for name in self.large.datasets if self.large else ():
            if name in shared:
                raise ValueError(f"large: {name!r} is edited elsewhere too; give it an entry of its own (settings_of)")
        return self

    @model_validator(mode="after")
    def _further(self) -> "Experiment":
        for kind in ("models", "datasets") if self.more else ():
            if unknown := set(getattr(self.more, kind)) - set(getattr(self, kind)):
                raise ValueError(f"more: {sorted(unknown)[0]!r} is none of the experiment's {kind}")
        return self

    @property
    def sweeps(self) -> list[Sweep]:
        """Everything that defines variants of a method."""
        return [*filter(None, [self.sweep]), *(self.tradeoff.sweeps.values() if self.tradeoff else ())]

    @property
    def grids(self) -> dict[str, Grid]:
        """Everything that is run, by where it stands in the configuration."""
        parts = {
            "experiment": self,
            "experiment.more": self.more,
            "experiment.ablations": self.ablations,
            "experiment.curve": self.curve,
            "experiment.sweep": self.sweep.grid if self.sweep else None,
            "experiment.damage": self.damage,
            "experiment.large": self.large,
            "experiment.tradeoff": self.tradeoff.grid if self.tradeoff else None,
        }
        return {name: grid for name, grid in parts.items() if grid is not None}

"""What a configuration asks for: the runs, what each needs, and what is compared with what. No torch, and no paths."""

import itertools
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from typing import Any, NamedTuple

from jeep.common.nested import with_values
from jeep.common.places import Where, places_in
from jeep.common.settings import UNEDITED, Dtype
from jeep.config.config import Config
from jeep.config.experiment import Grid
from jeep.editors import Editor, checked_editor

Cell = tuple[str, str, str]
"""A model, a data set and a method."""


class Run(NamedTuple):
    """What is edited, or left as it is, and measured."""

    model: str
    dataset: str
    method: str
    seed: int


class Plan:
    """Everything that the rules ask of a configuration."""

    def __init__(self, config: Config):
        self.config, self.experiment = config, config.experiment
        self.editor = cache(config.editor)  # asked for again and again while the DAG is built

    # What is run

    def _cells(self, grids: Iterable[Grid]) -> dict[Cell, list[int]]:
        """The numbers of edits of every cell that some grids run."""
        counts: dict[Cell, set[int]] = {}
        for grid in grids:
            for cell in itertools.product(grid.models, grid.datasets, grid.methods):
                counts.setdefault(cell, set()).update(grid.counts(cell[1], self.experiment.edits))
        return {cell: sorted(numbers) for cell, numbers in counts.items()}

    @cached_property
    def cells(self) -> dict[Cell, list[int]]:
        """The numbers of edits of all cells that the configuration asks for."""
        return self._cells(self.experiment.grids.values())

    def _runs(self, grids: Iterable[Grid]) -> list[Run]:
        """The unedited model does not depend on the seed: it is evaluated under the first."""
        seeds = self.config.seeds
        return [
            Run(*cell, seed) for cell in self._cells(grids) for seed in (seeds[:1] if cell[2] == UNEDITED else seeds)
        ]

    @cached_property
    def runs(self) -> list[Run]:
        """Every run that `all` evaluates."""
        apart = ("experiment.large", "experiment.tradeoff")
        return self._runs(grid for name, grid in self.experiment.grids.items() if name not in apart)

    @cached_property
    def large_runs(self) -> list[Run]:
        """Every run of the target `large`."""
        return self._runs([self.experiment.large] if self.experiment.large else [])

    @cached_property
    def tradeoff_runs(self) -> list[Run]:
        """Every run of the target `tradeoff_curves`."""
        return self._runs([self.experiment.tradeoff.grid] if self.experiment.tradeoff else [])

    @cached_property
    def damage_runs(self) -> dict[tuple[str, str, int], list[Run]]:
        """The edited runs that are asked what else they change, by model, data set and seed."""
        found: dict[tuple[str, str, int], list[Run]] = {}
        for run in self._runs([self.experiment.damage] if self.experiment.damage else []):
            if run.method != UNEDITED:
                found.setdefault((run.model, run.dataset, run.seed), []).append(run)
        return found

    def sequence_runs(self, name: str) -> list[Run]:
        """The sequences of edits of one part of the experiment; of the unedited model too, measured in the same way."""
        part = self.experiment.sequences.get(name)
        return self._runs([part]) if part else []

    @cached_property
    def runs_at_once(self) -> list[Run]:
        """Those of `all` and of the other targets that edit at once; each once."""
        return list(dict.fromkeys([*self.runs, *self.large_runs, *self.tradeoff_runs]))

    @cached_property
    def every_run(self) -> list[Run]:
        """Of all targets, at once and in sequence."""
        sequences = [run for name in self.experiment.sequences for run in self.sequence_runs(name)]
        return list(dict.fromkeys([*self.runs_at_once, *sequences]))

    def edit_counts(self, model: str, dataset: str, method: str) -> list[int]:
        """The numbers of edits that a method is evaluated with."""
        return self.cells.get((model, dataset, method), [self.experiment.edits])

    def most_edits(self, model: str, dataset: str) -> int:
        """The largest number of facts of a data set that are edited at once in a model."""
        numbers = (counts[-1] for cell, counts in self.cells.items() if cell[:2] == (model, dataset))
        return max(numbers, default=self.experiment.edits)

    def runs_of(self, grid: Grid) -> list[Run]:
        """The runs of what a table or a figure compares, so that it can be made without the others."""
        return [
            run
            for run in self.runs_at_once
            if run.model in grid.models and run.dataset in grid.datasets and run.method in grid.methods
        ]

    def preset(self, run: Run) -> str:
        """The preset of a run; none for the unedited model."""
        return "" if run.method == UNEDITED else self.editor(run.method, run.model, run.dataset).preset

    # What a run needs

    def precision(self, model: str, dataset: str, method: str) -> Dtype:
        """The precision in which a method edits a model and is evaluated."""
        own = self.config.models[model].dtype
        return own if method == UNEDITED else self.editor(method, model, dataset).precision(own)

    def facts_needed(self, model: str, dataset: str) -> int | None:
        """The most facts of a data set that any stage uses; None where one uses all."""
        config, uses = self.config, []
        uses += [part.facts for part in self.experiment.sequences.values() if dataset in part.datasets]
        if any(dataset in grid.datasets for grid in self.experiment.grids.values()):
            uses.append(self.most_edits(model, dataset))
        if config.tuning and dataset in config.tuning.datasets.values():
            uses.append(config.tuning.protocol.facts * config.tuning.protocol.rounds)
            uses += [search.facts for search in config.tuning.regions.values()]
        if config.probe and dataset == config.probe.dataset:
            uses.append(config.probe.prompts)
        if any(dataset in entry.datasets for entry in config.training.values()):
            uses.append(config.training_of(model).facts)
        if any(entry.neighbours and entry.neighbours.dataset == dataset for entry in config.datasets.values()):
            uses.append(None)
        return None if None in uses else max(uses, default=None)

    def target_owner(self, model: str, dataset: str, method: str) -> str:
        """The first method whose target vectors are the same: ablations and sweeps share their method's."""

        def spec(name: str):
            settings = self.editor(name, model, dataset)
            return settings.dtype, settings.prefixes, settings.target_spec

        used = {method, *(name for *where, name in self.cells if where == [model, dataset])}
        return next(name for name in self.config.methods if name in used and spec(name) == spec(method))

    def places(self, model: str) -> list[Where]:
        """Every W_O whose covariance some run on a model needs."""
        found: set[Where] = set()
        for run in self.every_run:
            if run.model == model and run.method != UNEDITED:
                found.update(self.editor(run.method, model, run.dataset).covariances)
        return sorted(found)

    @cached_property
    def trained(self) -> list[tuple[str, str]]:
        """(model, method) of every hyper-network that the experiment needs."""
        runs = [*self.runs, *self.sequence_runs("sequence")]
        cells = dict.fromkeys((run.model, run.method) for run in runs if run.method != UNEDITED)
        return [(model, method) for model, method in cells if self.trained_editor(model, method).trained]

    def trained_editor(self, model: str, method: str) -> Editor:
        """The editor that a hyper-network belongs to; the same for every data set."""
        return self.editor(method, model, self.experiment.datasets[0])

    # What is compared

    @cached_property
    def compared(self) -> Grid:
        """What tables 2 and 3 and the claims compare, where it is run: the experiment, with `more`."""
        its = self.experiment
        methods = [*its.methods, *(its.more.methods if its.more else ())]
        return Grid(models=its.models, datasets=its.datasets, methods=list(dict.fromkeys(methods)))

    def table(self, artifact: str) -> Grid | None:
        """What a table compares; None where there is nothing to compare."""
        if artifact == "table4":
            return self.experiment.ablations
        metrics = {"table2": "zsre", "table3": "counterfact"}[artifact]
        datasets = [name for name in self.experiment.datasets if self.config.datasets[name].metrics == metrics]
        return self.compared.model_copy(update={"datasets": datasets}) if datasets else None

    @cached_property
    def series(self) -> dict[str, Grid]:
        """What is drawn over the number of edits or over a setting, by figure."""
        sweep = self.experiment.sweep
        grids = {
            "figure4": self.experiment.curve,
            "figure6": sweep.grid if sweep else None,
            "large": self.experiment.large,
        }
        return {name: grid for name, grid in grids.items() if grid is not None}

    def roles(self, *grids: Grid | None) -> dict[str, Any]:
        """The methods of some grids that the paper's claims are about, whatever they are called.

        jeep, memit: the first of the paper's methods with that editor, one that extends no other before its variants
        (None where there is none); low_high: pairs of variants of JEEP whose low region alone, and whose high region
        alone, is optimised, or written; added: methods that the paper has not, by whose they are; twins: pairs of a
        method with two regions and one with the low region alone, both with the same terms later than the paper, and
        these in words.
        """
        grids = [grid for grid in grids if grid is not None]
        edited = dict.fromkeys(name for grid in grids for name in grid.methods if name != UNEDITED)
        of_paper = [name for name in edited if self.config.methods[name].added is None]
        ordered = sorted(of_paper, key=lambda name: self.config.methods[name].extends is not None)
        first = {
            editor: next((name for name in ordered if self.config.editor_name(name) == editor), None)
            for editor in ("jeep", "memit")
        }
        alone: dict[str, dict[str, str]] = {"optimised": {}, "written": {}}
        for grid in grids:
            for model, dataset, name in itertools.product(grid.models[:1], grid.datasets[:1], grid.methods):
                if name == UNEDITED or self.config.editor_name(name) != "jeep":
                    continue
                variant = self.editor(name, model, dataset)
                for region, other in (("low", "high"), ("high", "low")):
                    if getattr(variant, other) is None:
                        alone["optimised"].setdefault(region, name)
                    elif variant.write == (region,):
                        alone["written"].setdefault(region, name)
        pairs = [[pair["low"], pair["high"]] for pair in alone.values() if len(pair) == 2]
        added: dict[str, list[str]] = {"ours": [], "later": []}
        for name in edited:
            if kind := self.config.methods[name].added:
                added[kind].append(name)
        return {**first, "low_high": pairs, "added": added, "twins": self._twins(grids)}

    def _twins(self, grids: Iterable[Grid]) -> list[list[str]]:
        """Pairs of methods that differ in the number of their regions, with what all regions of both have besides."""
        found: dict[tuple, dict[int, str]] = {}
        for grid in grids:
            for name in grid.methods if grid.models and grid.datasets else ():
                editor = None if name == UNEDITED else self.editor(name, grid.models[0], grid.datasets[0])
                if editor and (terms := _terms(editor)):
                    positions = {placement.position for placement in editor.placements}
                    found.setdefault(terms, {}).setdefault(len(positions), name)
        return [[pair[2], pair[1], terms[-1]] for terms, pair in found.items() if len(pair) == 2]

    # The search for settings

    def searched(self) -> Iterator[tuple[str, str, str]]:
        """(model, data sets, method) of every search; all sets together for a hyper-network, which is trained once."""
        tuning = self.config.tuning
        for model in self.experiment.models if tuning else ():
            for method in tuning.space.get(model, {}):
                together = self.first_editor(model, method).trained
                for sets in ["+".join(tuning.datasets)] if together else tuning.datasets:
                    yield model, sets, method

    def search_start(self, model: str, sets: str, method: str) -> dict[str, Any]:
        """What the space of a search leaves out; of several sets together, for the first."""
        return self.config.searched_settings(method, model, sets.partition("+")[0])

    def first_editor(self, model: str, method: str, sets: str | None = None) -> Editor:
        """The editor with the first value of everything that is searched: nothing need be configured before.

        Raises UserError where these values are no settings of the editor.
        """
        space = self.config.tuning.space[model][method]
        first = {path: values[0] for path, values in space.items()}
        start = self.search_start(model, sets or next(iter(self.config.tuning.datasets)), method)
        settings = with_values(start, first)
        return checked_editor(self.config.editor_name(method), settings, f"tuning.space.{model}.{method}")

    def searched_places(self, model: str, method: str, sets: str) -> list[Where]:
        """Every W_O whose covariance the search of a method needs, in any of the layers that it tries."""
        return self.first_editor(model, method, sets).searched_covariances(self.config.tuning.space[model][method])

    def moved_places(self, model: str) -> list[Where]:
        """Every W_O whose covariance a search needs that moves a region, beside those in use."""
        regions = self.config.tuning.regions
        return places_in(regions[model].layers) if model in regions else []

    def collected_places(self, model: str) -> dict[str, list[Where]]:
        """Every W_O whose covariance runs need, and what searches need besides; each part is one pass over the text."""
        run, searched = set(self.places(model)), set()
        if self.config.tuning:
            searched.update(self.moved_places(model))
            for name, sets, method in self.searched():
                if name == model:
                    searched.update(self.searched_places(model, method, sets))
        return {"runs": sorted(run), "searches": sorted(searched - run)}


def _terms(editor: Editor) -> tuple | None:
    """What tells apart editors of regions that have terms later than the paper: whether each is there, and in words.

    None for one without, or whose regions differ; and for one that does something else besides.
    """
    kinds = {
        (region.history, region.null_space is not None, region.ridge > 0, region.prior > 0)
        for region in (placement.region for placement in editor.placements)
    }
    if len(kinds) != 1 or editor.postprocess or editor.anchors or editor.target_spec.optimization.stop_right:
        return None
    ((history, null_space, ridge, prior),) = kinds
    words = [word for word, there in (("history", history), ("null space", null_space)) if there]
    return (editor.preset, history, null_space, ridge, prior, " and ".join(words)) if words else None

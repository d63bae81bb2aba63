"""Configuration, wildcard constraints and the named functions of the rules' inputs and params. No rules."""

import json
import re
import shlex
from functools import cache
from importlib.metadata import version
from itertools import product

from snakemake.exceptions import WorkflowError

from jeep.config.config import UNEDITED, parse_config
from jeep.editors import load_editor
from jeep.common.errors import UserError
from jeep.common.provenance import code_digest
from jeep.common.settings import with_values

try:
    CONFIG = parse_config(config)
except UserError as error:
    raise WorkflowError(str(error)) from None

EXPERIMENT = CONFIG.experiment
editor = cache(CONFIG.editor)  # asked for again and again while the DAG is built


def alternatives(names):
    """A regular expression that matches just these names; nothing where there are none."""
    return "|".join(re.escape(str(name)) for name in names) or "(?!)"


wildcard_constraints:
    model=alternatives(CONFIG.models),
    dataset=alternatives(CONFIG.datasets),
    method=alternatives([*CONFIG.methods, UNEDITED]),
    seed=r"\d+",
    edits=r"\d+",
    shard=r"\d+",


def source_json(source):
    """A source as the command line takes it."""
    return source.model_dump_json(exclude_none=True)


def dataset_field(name):
    """A params function for one field of a data set's configuration."""

    def field(wildcards):
        return getattr(CONFIG.datasets[wildcards.dataset], name)

    return field


def editor_of(wildcards):
    return editor(wildcards.method, wildcards.model, wildcards.dataset)


def editor_name(wildcards):
    return CONFIG.editor_name(wildcards.method)


def run_options(model, dtype=None):
    """Precision, device and batch size of a job that runs a model."""
    entry = CONFIG.models[model]
    return f"--dtype {dtype or entry.dtype} --device {entry.device} --token-budget {CONFIG.token_budget}"


def model_options(wildcards):
    return run_options(wildcards.model)


def editing_options(wildcards):
    """As `model_options`, in the precision of the method."""
    if wildcards.method == UNEDITED:
        return run_options(wildcards.model)
    precision = editor_of(wildcards).precision(CONFIG.models[wildcards.model].dtype)
    return run_options(wildcards.model, precision)


def option(name, value):
    """A command line option with its values, or nothing."""
    return f"--{name} {value}" if value else ""


LARGE = EXPERIMENT.large


def cells_of(grids):
    """The numbers of edits of every (model, data set, method) that some grids run."""
    counts = {}
    for grid in grids:
        for model, dataset, method in product(grid.models, grid.datasets, grid.methods):
            numbers = counts.setdefault((model, dataset, method), set())
            numbers.update(grid.counts(dataset, EXPERIMENT.edits))
    return {cell: sorted(numbers) for cell, numbers in counts.items()}


@cache
def cells():
    """The numbers of edits of all cells that the configuration asks for."""
    return cells_of(EXPERIMENT.grids.values())


def runs_of(grids):
    """Evaluated runs. The unedited model does not depend on the seed: it is evaluated under the first."""
    return [
        {"model": model, "dataset": dataset, "method": method, "seed": seed}
        for model, dataset, method in cells_of(grids)
        for seed in (CONFIG.seeds[:1] if method == UNEDITED else CONFIG.seeds)
    ]


@cache
def runs():
    """Every run that `all` evaluates."""
    return runs_of(grid for grid in EXPERIMENT.grids.values() if grid is not LARGE)


@cache
def large_runs():
    """Every run of the target `large`."""
    return runs_of([LARGE] if LARGE else [])


def most_edits(wildcards):
    """The largest number of facts of a data set that are edited at once in a model."""
    numbers = (
        counts[-1]
        for (model, dataset, _), counts in cells().items()
        if (model, dataset) == (wildcards.model, wildcards.dataset)
    )
    return max(numbers, default=EXPERIMENT.edits)

"""Configuration, wildcard constraints and the named functions of the rules' inputs and params. No rules."""

import json
import re
import shlex
from functools import cache
from importlib.metadata import version
from itertools import product

from snakemake.exceptions import WorkflowError

from jeep.config import UNEDITED, parse_config
from jeep.errors import UserError
from jeep.provenance import code_digest

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


@cache
def cells():
    """The numbers of edits of every (model, data set, method) that is run, over all that the experiment asks for."""
    counts = {}
    for grid in EXPERIMENT.grids.values():
        for cell in product(grid.models, grid.datasets, grid.methods):
            counts.setdefault(cell, set()).update(grid.counts(EXPERIMENT.edits))
    return {cell: sorted(numbers) for cell, numbers in counts.items()}


@cache
def runs():
    """Every evaluated run. The unedited model does not depend on the seed: it is evaluated under the first."""
    return [
        {"model": model, "dataset": dataset, "method": method, "seed": seed}
        for model, dataset, method in cells()
        for seed in (CONFIG.seeds[:1] if method == UNEDITED else CONFIG.seeds)
    ]

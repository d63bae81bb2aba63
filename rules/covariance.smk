"""Covariances, a file for each W_O; the rule of a model collects what is missing, in one pass over the text."""


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

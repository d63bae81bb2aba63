"""Covariances, a file for each W_O; the rule of a model collects what runs lack, in one pass over the text."""


def stamps(paths):
    """When files that are not ours were changed."""
    return {path.name: path.stat().st_mtime_ns for path in paths if path.is_file()}


def made_of(model):
    """All that the covariances of a model depend on: its source, the text, how they are estimated, and the code.

    The rule of a covariance is there while it is missing or made of something else (below), so that one more layer
    collects that layer alone. What this does not see (a model fetched again by force) the edit refuses.
    """
    source, corpus, statistics = CONFIG.models[model].source, CONFIG.corpus, CONFIG.statistics_of(model)
    parts = {
        "model": source.model_dump(mode="json"),
        "corpus": corpus.model_dump(mode="json"),
        "statistics": statistics.model_dump(mode="json", exclude={"shards", "dtype"}),
        "dtype": statistics.dtype or CONFIG.models[model].dtype,
        "seed": CONFIG.seeds[0],
        "code": stage_code("prepare:covariance", "prepare:corpus"),
    }
    if source.kind == "path":
        parts["model files"] = stamps(checkpoint_files(source))
    if corpus.source.kind == "path":
        parts["text file"] = stamps([corpus.source.path])
    if source.kind == "trained":
        parts["facts"] = CONFIG.demo.model_dump(mode="json")
        parts["training"] = stage_code("prepare:train_model", "prepare:demo_facts")
    return parts


def covariance_file(model, where):
    return f"results/covariance/{model}/{place_name(where)}.safetensors"


def covariance_files(model, places):
    return [covariance_file(model, place) for place in places]


def eigenvector_file(model, where):
    return f"results/eigenvectors/{model}/{place_name(where)}.safetensors"


def is_made_of(path, parts):
    try:
        return path.is_file() and read_provenance(path).get("made_of") == parts
    except UserError:
        return False  # a file that is broken is made anew


def missing_places(model, places):
    """Those of some W_O whose covariance is not there."""
    parts = made_of(model) if places else {}
    return [where for where in places if not is_made_of(Path(covariance_file(model, where)), parts)]


MISSING = {
    (model, who): missing_places(model, places)
    for model in CONFIG.models
    for who, places in PLAN.collected_places(model).items()
}
"""By model, and by who asks for them: runs, or searches besides. Each is a pass over the text; two of one model wait for one another."""


def sample_sizes(model):
    """How much text, and which."""
    entry = CONFIG.statistics_of(model)
    sizes = [option(name, getattr(entry, name)) for name in ("articles", "tokens", "length")]
    return " ".join([*filter(None, sizes), f"--seed {CONFIG.seeds[0]}"])


def sample_options(model):
    """As `model_options`, in the precision of the statistics, and how much text."""
    return f"{run_options(model, CONFIG.statistics_of(model).dtype)} {sample_sizes(model)}"


def places_option(model, who):
    return options("places", [place_name(where) for where in MISSING[model, who]])


def covariance_parts(model, who):
    """The sums of every shard of the text; none where one job reads all of it."""
    shards = CONFIG.statistics_of(model).shards
    shard = range(shards if shards > 1 else 0)
    return expand("results/covariance/{model}/parts/{who}/{shard}.safetensors", model=model, who=who, shard=shard)


def missing_number(wildcards):
    return len(MISSING[wildcards.model, wildcards.who])


def pass_name(model, who):
    """A rule's name; the number tells apart models whose names differ in other signs alone."""
    name = f"covariance_{list(CONFIG.models).index(model)}_{re.sub(r'[^0-9A-Za-z]', '_', model)}"
    return name if who == "runs" else f"{name}_{who}"


rule covariance_part:
    """IN: a model, Wikipedia text. OUT: the sums over one shard of the text, of what is missing."""
    input:
        model="results/models/{model}",
        corpus="results/corpus/wikipedia.jsonl",
    output:
        temp("results/covariance/{model}/parts/{who}/{shard}.safetensors"),
    log:
        "logs/covariance_part/{model}/{who}/{shard}.log",
    benchmark:
        "results/benchmarks/covariance_part/{model}/{who}/{shard}.tsv"
    wildcard_constraints:
        who="runs|searches",
    conda:
        "../envs/jeep.yaml"
    resources:
        gpu=gpus,
        mem_mb=memory(DEMANDS.covariance, places=missing_number),
        runtime=runtime(DURATIONS.covariance, places=missing_number),
    params:
        options=lambda wildcards: sample_options(wildcards.model),
        places=lambda wildcards: places_option(wildcards.model, wildcards.who),
        shards=lambda wildcards: CONFIG.statistics_of(wildcards.model).shards,
        code=stage_code("prepare:covariance_part"),
    shell:
        "python -m jeep covariance-part --model {input.model:q} {params.options} --corpus {input.corpus:q}"
        " {params.places} --shard {wildcards.shard}/{params.shards} --out {output:q} 2> >(tee {log:q} >&2)"


for (model, who), places in MISSING.items():
    if places:

        rule:
            name:
                pass_name(model, who)
            input:
                model=f"results/models/{model}",
                corpus="results/corpus/wikipedia.jsonl",
                parts=covariance_parts(model, who),
            output:
                covariance_files(model, places),
            log:
                f"logs/covariance/{model}/{who}.log",
            benchmark:
                f"results/benchmarks/covariance/{model}/{who}.tsv"
            conda:
                "../envs/jeep.yaml"
            resources:
                gpu=gpus_of(model),
                mem_mb=memory(DEMANDS.covariance, model=model, places=len(places)),
                runtime=runtime(DURATIONS.covariance, model=model, places=len(places)),
            params:
                options=sample_options(model),
                places=places_option(model, who),
                parts=options("parts", covariance_parts(model, who)),
                made_of=json.dumps(made_of(model)),
                folder=lambda wildcards, output: os.path.dirname(output[0]),
            shell:
                "python -m jeep covariance --model {input.model:q} {params.options} --corpus {input.corpus:q}"
                " {params.places} {params.parts} --made-of {params.made_of:q} --out {params.folder:q} 2> >(tee {log:q} >&2)"


rule eigenvectors:
    """IN: a covariance. OUT: its eigenvectors, for editors that write in its null space."""
    input:
        "results/covariance/{model}/{place}.safetensors",
    output:
        "results/eigenvectors/{model}/{place}.safetensors",
    log:
        "logs/eigenvectors/{model}/{place}.log",
    benchmark:
        "results/benchmarks/eigenvectors/{model}/{place}.tsv"
    wildcard_constraints:
        place=r"\d+\.(mlp|attention)",
    conda:
        "../envs/jeep.yaml"
    resources:
        gpu=gpus,
        mem_mb=lambda wildcards, input, attempt: needs.decomposition(os.path.getsize(input[0]), attempt),
        runtime=runtime(),
    params:
        device=lambda wildcards: CONFIG.models[wildcards.model].device,
        code=stage_code("prepare:eigenvectors"),
    shell:
        "python -m jeep eigenvectors --covariance {input:q} --device {params.device} --out {output:q} 2> >(tee {log:q} >&2)"

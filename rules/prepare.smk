"""Facts for a model's tokenizer, the prefixes that a model samples, trained hyper-networks."""


def dataset_field(name):
    """A params function for one field of a data set's configuration."""

    def field(wildcards):
        return getattr(CONFIG.datasets[wildcards.dataset], name)

    return field


def dataset_input(wildcards):
    """What a data set's facts are read from, for the DAG."""
    return input_of(wildcards.dataset, CONFIG.datasets[wildcards.dataset].source)


def dataset_file(wildcards):
    """The very file."""
    return file_of(wildcards.dataset, CONFIG.datasets[wildcards.dataset].source)


def facts_limit(wildcards):
    return option("limit", PLAN.facts_needed(wildcards.model, wildcards.dataset))


def facts_asked(wildcards):
    """How they are asked. Nothing between prompt and answer is a joiner too."""
    dataset = CONFIG.datasets[wildcards.dataset]
    joined = [] if dataset.joiner is None else [f"--joiner={shlex.quote(dataset.joiner)}"]
    return " ".join(joined + ["--chat"] * dataset.chat)


def neighbour_pool(wildcards):
    """The facts whose subjects may become neighbours of a data set's."""
    return facts_of(wildcards.model, [CONFIG.datasets[wildcards.dataset].neighbours.dataset])


def neighbour_subjects(wildcards):
    return CONFIG.datasets[wildcards.dataset].neighbours.subjects


def neighbour_files(editor, model, seed, datasets):
    """Subjects of neighbours, of the data sets that have some; for an editor of regions, whose writing they measure."""
    having = [name for name in datasets if editor.placements and CONFIG.datasets[name].neighbours]
    return [f"results/neighbours/{model}/{name}/seed{seed}.json" for name in having]


def prefix_kinds(wildcards):
    return wildcards.kinds.split("-")


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
        asked=facts_asked,
        code=stage_code("prepare:facts"),
    shell:
        "python -m jeep facts --input {params.file:q} --format {params.format} --metrics {params.metrics}"
        " --model {input.model:q} {params.limit} --on-invalid {params.on_invalid} {params.asked}"
        " --skipped {output.skipped:q} --out {output.facts:q} 2> >(tee {log:q} >&2)"


rule neighbours:
    """IN: facts, other facts. OUT: for each relation subjects that are neither edited nor measured."""
    input:
        facts="results/facts/{model}/{dataset}.jsonl",
        pool=neighbour_pool,
    output:
        "results/neighbours/{model}/{dataset}/seed{seed}.json",
    log:
        "logs/neighbours/{model}/{dataset}/seed{seed}.log",
    benchmark:
        "results/benchmarks/neighbours/{model}/{dataset}/seed{seed}.tsv"
    wildcard_constraints:
        dataset=alternatives(name for name, entry in CONFIG.datasets.items() if entry.neighbours),
    conda:
        "../envs/jeep.yaml"
    params:
        subjects=neighbour_subjects,
        code=stage_code("prepare:neighbours"),
    shell:
        "python -m jeep neighbours --facts {input.facts:q} --pool {input.pool:q} --subjects {params.subjects}"
        " --seed {wildcards.seed} --out {output:q} 2> >(tee {log:q} >&2)"


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
        gpu=gpus,
        mem_mb=memory(DEMANDS.read),
        runtime=runtime(),
    params:
        options=model_options,
        kinds=prefix_kinds,
        code=stage_code("prepare:prefixes"),
    shell:
        "python -m jeep prefixes --model {input.model:q} {params.options} --kinds {params.kinds}"
        " --seed {wildcards.seed} --out {output:q} 2> >(tee {log:q} >&2)"


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
        gpu=gpus,
        mem_mb=memory(DEMANDS.hypernetwork),
        runtime=runtime(DURATIONS.hypernetwork),
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

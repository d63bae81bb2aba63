"""Edited and unedited models → per-record results → one table of all of them."""


def edit_counts(wildcards):
    return PLAN.edit_counts(wildcards.model, wildcards.dataset, wildcards.method)


def needed_deltas(wildcards):
    if wildcards.method == UNEDITED:
        return []
    return expand(
        "results/deltas/{model}/{dataset}/{method}/seed{seed}/{edits}.safetensors",
        **wildcards,
        edits=edit_counts(wildcards),
    )


def deltas_option(wildcards, input):
    return options("deltas", input.deltas)


def records_of(runs):
    """Per-record results of runs, of all shards."""
    pattern = "results/records/{model}/{dataset}/{method}/seed{seed}/{shard}.parquet"
    return [pattern.format(**run._asdict(), shard=shard) for run in runs for shard in range(CONFIG.editing.shards)]


def run_columns(wildcards):
    """What every row of a run's results says of the run."""
    run = Run(wildcards.model, wildcards.dataset, wildcards.method, int(wildcards.seed))
    return json.dumps(run._asdict() | {"preset": PLAN.preset(run)})


rule evaluate:
    """IN: a model, facts, the edits of every count (none for the unedited model). OUT: one shard's rows per prompt."""
    input:
        model="results/models/{model}",
        facts="results/facts/{model}/{dataset}.jsonl",
        deltas=needed_deltas,
    output:
        "results/records/{model}/{dataset}/{method}/seed{seed}/{shard}.parquet",
    log:
        "logs/evaluate/{model}/{dataset}/{method}/seed{seed}/{shard}.log",
    benchmark:
        "results/benchmarks/evaluate/{model}/{dataset}/{method}/seed{seed}/{shard}.tsv"
    conda:
        "../envs/jeep.yaml"
    resources:
        gpu=gpus,
    params:
        options=editing_options,
        metrics=dataset_field("metrics"),
        deltas=deltas_option,
        edits=edit_counts,
        shards=CONFIG.editing.shards,
        run=run_columns,
        code=stage_code("edit:evaluate"),
    shell:
        "python -m jeep evaluate --model {input.model:q} {params.options} --facts {input.facts:q}"
        " --metrics {params.metrics} {params.deltas} --edits {params.edits}"
        " --shard {wildcards.shard}/{params.shards} --run-columns {params.run:q}"
        " --out {output:q} 2> >(tee {log:q} >&2)"


rule collect:
    """IN: per-record results of every run. OUT: one table of all of them."""
    input:
        records_of(PLAN.runs),
    output:
        "results/records.parquet",
    log:
        "logs/collect.log",
    benchmark:
        "results/benchmarks/collect.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        code=stage_code("edit:collect"),
    shell:
        "python -m jeep collect --records {input:q} --out {output:q} 2> >(tee {log:q} >&2)"

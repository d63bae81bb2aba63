"""The unedited model → per-record results; with the runs' results → one table of all of them."""


def records_of(runs):
    """Per-record results of runs."""
    return [RECORDS.format(**run._asdict()) for run in runs]


rule evaluate:
    """IN: a model, facts. OUT: rows per prompt of the unedited model."""
    input:
        model="results/models/{model}",
        facts="results/facts/{model}/{dataset}.jsonl",
    output:
        RECORDS,
    log:
        "logs/evaluate/{model}/{dataset}/{method}/seed{seed}.log",
    benchmark:
        "results/benchmarks/evaluate/{model}/{dataset}/{method}/seed{seed}.tsv"
    wildcard_constraints:
        method=UNEDITED,
    conda:
        "../envs/jeep.yaml"
    resources:
        gpu=gpus,
        mem_mb=memory(DEMANDS.run),
        runtime=runtime(DURATIONS.evaluate),
    params:
        options=editing_options,
        metrics=dataset_field("metrics"),
        edits=edit_counts,
        run=run_columns,
        code=stage_code("edit:evaluate"),
    shell:
        "python -m jeep evaluate --model {input.model:q} {params.options} --facts {input.facts:q}"
        " --metrics {params.metrics} --edits {params.edits} --run-columns {params.run:q}"
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

"""Edits one batch after another, measured on the way → a table and a figure over the batches."""

SEQUENCES = EXPERIMENT.sequences

SEQUENCE = "results/sequences/{part}/{model}/{dataset}/{method}/seed{seed}.parquet"
"""Per-record results behind every measured batch; beside it NAME.trace.json, what each batch did."""
SEQUENCE_TRACE = "results/sequences/{part}/{model}/{dataset}/{method}/seed{seed}.trace.json"
SEQUENCE_DELTAS = "results/sequences/{part}/{model}/{dataset}/{method}/seed{seed}.safetensors"
"""The change of all batches together."""


def sequence_field(name):
    """A params function for what a sequence's part of the configuration says."""

    def field(wildcards):
        return getattr(SEQUENCES[wildcards.part], name)

    return field


def sequence_runs(part, pattern):
    """A file of every run of a sequence."""
    return [pattern.format(part=part, **run._asdict()) for run in PLAN.sequence_runs(part)]


def held_out_corpus(wildcards):
    """The text that drift is measured on."""
    return "results/corpus/wikipedia.jsonl" if SEQUENCES[wildcards.part].held_out else []


def held_out_options(wildcards):
    tokens = SEQUENCES[wildcards.part].held_out
    if not tokens:
        return ""
    return f"--corpus {held_out_corpus(wildcards)} {sample_sizes(wildcards.model)} --held-out {tokens}"


def sparing_neighbours(wildcards):
    """For an editor that spares them alone: what reaches neighbours is measured in edits at once."""
    return needed_neighbours(wildcards) if editor_of(wildcards).spares else []


def long_sequence_files():
    """What the target `long_sequence` makes."""
    names = ["tables/long_sequence.csv", "figures/long_sequence.pdf", "long_sequence/claims.csv"]
    return [f"results/{name}" for name in names] if EXPERIMENT.long_sequence else []


rule sequence:
    """IN: a model, facts, prefixes, covariances. OUT: edits batch after batch, each on the model as left, and measured."""
    input:
        model="results/models/{model}",
        facts="results/facts/{model}/{dataset}.jsonl",
        prefixes=needed_prefixes,
        corpus=held_out_corpus,
        covariance=needed_covariance,
        eigenvectors=needed_eigenvectors,
        norms=needed_norms,
        neighbours=sparing_neighbours,
        hypernetwork=needed_hypernetwork,
    output:
        records=SEQUENCE,
        trace=SEQUENCE_TRACE,
        deltas=kept_deltas(SEQUENCE_DELTAS),
    log:
        "logs/sequence/{part}/{model}/{dataset}/{method}/seed{seed}.log",
    benchmark:
        "results/benchmarks/sequence/{part}/{model}/{dataset}/{method}/seed{seed}.tsv"
    wildcard_constraints:
        method=alternatives(CONFIG.methods),
        part=alternatives(SEQUENCES),
    conda:
        "../envs/jeep.yaml"
    resources:
        gpu=gpus,
        mem_mb=memory(DEMANDS.sequence),
        runtime=runtime(DURATIONS.sequence),
    params:
        options=editing_options,
        editor=editor_name,
        settings=editor_settings,
        covariance=covariance_option,
        eigenvectors=eigenvectors_option,
        norms=norms_option,
        neighbours=neighbours_option,
        hypernetwork=hypernetwork_option,
        solver=option("solver", CONFIG.editing.solver),
        batches=sequence_field("batches"),
        edits=sequence_field("edits"),
        every=sequence_field("measure_every"),
        held_out=held_out_options,
        metrics=dataset_field("metrics"),
        run=run_columns,
        code=method_code("sequence:sequence"),
    shell:
        "python -m jeep sequence --model {input.model:q} {params.options} --facts {input.facts:q}"
        " --prefixes {input.prefixes:q} {params.covariance} {params.eigenvectors} {params.neighbours} {params.hypernetwork}"
        " {params.norms} {params.solver} --editor {params.editor} --settings {params.settings:q} --batches {params.batches}"
        " --edits {params.edits} --measure-every {params.every} {params.held_out} --metrics {params.metrics} --run-columns {params.run:q}"
        " --trace {output.trace:q} --deltas {output.deltas:q} --out {output.records:q} 2> >(tee {log:q} >&2)"


rule sequence_unedited:
    """IN: a model, facts. OUT: the unedited model measured as a sequence is."""
    input:
        model="results/models/{model}",
        facts="results/facts/{model}/{dataset}.jsonl",
    output:
        records=SEQUENCE,
        trace=SEQUENCE_TRACE,
    log:
        "logs/sequence_unedited/{part}/{model}/{dataset}/{method}/seed{seed}.log",
    benchmark:
        "results/benchmarks/sequence_unedited/{part}/{model}/{dataset}/{method}/seed{seed}.tsv"
    wildcard_constraints:
        method=UNEDITED,
        part=alternatives(SEQUENCES),
    conda:
        "../envs/jeep.yaml"
    resources:
        gpu=gpus,
        mem_mb=memory(DEMANDS.run),
        runtime=runtime(DURATIONS.measured_sequence),
    params:
        options=editing_options,
        batches=sequence_field("batches"),
        edits=sequence_field("edits"),
        every=sequence_field("measure_every"),
        metrics=dataset_field("metrics"),
        run=run_columns,
        code=stage_code("sequence:sequence"),
    shell:
        "python -m jeep sequence --model {input.model:q} {params.options} --facts {input.facts:q}"
        " --batches {params.batches} --edits {params.edits} --measure-every {params.every} --metrics {params.metrics}"
        " --run-columns {params.run:q} --trace {output.trace:q} --out {output.records:q} 2> >(tee {log:q} >&2)"


rule sequence_table:
    """IN: the runs of a sequence. OUT: the metrics after every measured batch; as Markdown, those after the last."""
    input:
        records=lambda wildcards: sequence_runs(wildcards.part, SEQUENCE),
        traces=lambda wildcards: sequence_runs(wildcards.part, SEQUENCE_TRACE),
    output:
        csv="results/tables/{part}.csv",
        markdown="results/tables/{part}.md",
    log:
        "logs/sequence_table/{part}.log",
    benchmark:
        "results/benchmarks/sequence_table/{part}.tsv"
    wildcard_constraints:
        part=alternatives(SEQUENCES),
    conda:
        "../envs/jeep.yaml"
    params:
        models=sequence_field("models"),
        datasets=sequence_field("datasets"),
        methods=sequence_field("methods"),
        labels=labels,
        code=stage_code("results:sequence_table"),
    shell:
        "python -m jeep sequence-table --records {input.records:q} --traces {input.traces:q} --models {params.models:q}"
        " --datasets {params.datasets:q} --methods {params.methods:q} --labels {params.labels:q}"
        " --out {output.csv:q} 2> >(tee {log:q} >&2)"


rule sequence_figure:
    """IN: the metrics after every measured batch. OUT: a panel for each, a line for each method."""
    input:
        "results/tables/{part}.csv",
    output:
        pdf="results/figures/{part}.pdf",
        png=report(
            "results/figures/{part}.png",
            caption="../report/sequence.rst",
            category="Figures",
        ),
    log:
        "logs/sequence_figure/{part}.log",
    benchmark:
        "results/benchmarks/sequence_figure/{part}.tsv"
    wildcard_constraints:
        part=alternatives(SEQUENCES),
    conda:
        "../envs/jeep.yaml"
    params:
        labels=labels,
        code=stage_code("figures:sequence_figure"),
    shell:
        "python -m jeep sequence-figure --table {input:q} --labels {params.labels:q} --out {output.pdf:q} 2> >(tee {log:q} >&2)"

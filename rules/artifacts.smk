"""The paper's tables and figures, from results only."""


rule table:
    """IN: the collected results. OUT: a table as CSV, Markdown and LaTeX."""
    input:
        "results/records.parquet",
    output:
        csv=report(
            "results/tables/{artifact}.csv",
            caption="../report/table.rst",
            category="Tables",
        ),
        markdown="results/tables/{artifact}.md",
        latex="results/tables/{artifact}.tex",
    log:
        "logs/table/{artifact}.log",
    benchmark:
        "results/benchmarks/table/{artifact}.tsv"
    wildcard_constraints:
        artifact=alternatives(TABLES),
    conda:
        "../envs/jeep.yaml"
    params:
        models=table_field("models"),
        datasets=table_field("datasets"),
        methods=table_field("methods"),
        labels=labels,
        edits=EXPERIMENT.edits,
        code=code_digest("jeep.stages:tables"),
    shell:
        "python -m jeep tables --records {input:q} --artifact {wildcards.artifact}"
        " --models {params.models:q} --datasets {params.datasets:q} --methods {params.methods:q} --labels {params.labels:q} --edits {params.edits}"
        " --out {output.csv:q} 2> >(tee {log:q} >&2)"


rule series:
    """IN: the collected results. OUT: the metrics over the number of edits (Figure 4) or over a setting (Figure 6)."""
    input:
        "results/records.parquet",
    output:
        csv="results/tables/{figure}.csv",
    log:
        "logs/series/{figure}.log",
    benchmark:
        "results/benchmarks/series/{figure}.tsv"
    wildcard_constraints:
        figure=alternatives(SERIES),
    conda:
        "../envs/jeep.yaml"
    params:
        models=series_field("models"),
        datasets=series_field("datasets"),
        methods=series_field("methods"),
        variants=series_values,
        edits=EXPERIMENT.edits,
        code=code_digest("jeep.stages:series"),
    shell:
        "python -m jeep series --records {input:q} --models {params.models:q} --datasets {params.datasets:q}"
        " --methods {params.methods:q} {params.variants} --edits {params.edits}"
        " --out {output.csv:q} 2> >(tee {log:q} >&2)"


rule series_figure:
    """IN: the metrics over the number of edits or over a setting. OUT: Figure 4 or Figure 6."""
    input:
        "results/tables/{figure}.csv",
    output:
        pdf="results/figures/{figure}.pdf",
        png=report(
            "results/figures/{figure}.png",
            caption="../report/series.rst",
            category="Figures",
        ),
    log:
        "logs/series_figure/{figure}.log",
    benchmark:
        "results/benchmarks/series_figure/{figure}.tsv"
    wildcard_constraints:
        figure=alternatives(SERIES),
    conda:
        "../envs/jeep.yaml"
    params:
        axis=series_axis,
        labels=labels,
        code=code_digest("jeep.stages:series_figure"),
    shell:
        "python -m jeep series-figure --table {input:q} --axis {params.axis} --labels {params.labels:q}"
        " --out {output.pdf:q} 2> >(tee {log:q} >&2)"


rule training_figure:
    """IN: hyper-networks with the losses of their training. OUT: a figure of them."""
    input:
        hypernetwork_files(),
    output:
        pdf="results/figures/training.pdf",
        png=report(
            "results/figures/training.png",
            caption="../report/training.rst",
            category="Figures",
        ),
    log:
        "logs/training_figure.log",
    benchmark:
        "results/benchmarks/training_figure.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        titles=hypernetwork_titles,
        code=code_digest("jeep.stages:training_figure"),
    shell:
        "python -m jeep training-figure --networks {input:q} --titles {params.titles:q}"
        " --out {output.pdf:q} 2> >(tee {log:q} >&2)"

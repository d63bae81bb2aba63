"""Figures of edits and of data, from results only; the probes' are in probe.smk."""


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
        code=code_digest("jeep.stages.results:series_figure"),
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
        code=code_digest("jeep.stages.results:training_figure"),
    shell:
        "python -m jeep training-figure --networks {input:q} --titles {params.titles:q}"
        " --out {output.pdf:q} 2> >(tee {log:q} >&2)"


rule procedure_figure:
    """IN: an edit of JEEP with its trace, one of its facts. OUT: Figure 3."""
    input:
        model=procedure_path("results/models/{model}"),
        facts=procedure_path("results/facts/{model}/{dataset}.jsonl"),
        deltas=procedure_path(
            "results/deltas/{model}/{dataset}/{method}/seed{seed}/{edits}.safetensors"
        ),
    output:
        pdf="results/figures/figure3.pdf",
        png=report(
            "results/figures/figure3.png",
            caption="../report/figure3.rst",
            category="Figures",
        ),
    log:
        "logs/procedure_figure.log",
    benchmark:
        "results/benchmarks/procedure_figure.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        title=procedure_title,
        code=code_digest("jeep.stages.results:procedure_figure"),
    shell:
        "python -m jeep procedure-figure --model {input.model:q} --facts {input.facts:q} --deltas {input.deltas:q}"
        " --title {params.title:q} --out {output.pdf:q} 2> >(tee {log:q} >&2)"


rule record_figure:
    """IN: facts of a data set. OUT: one of them as Figure 7 (zsRE) or 8 (CounterFact)."""
    input:
        record_facts,
    output:
        pdf="results/figures/{figure}.pdf",
        png=report(
            "results/figures/{figure}.png",
            caption="../report/record.rst",
            category="Figures",
        ),
    log:
        "logs/record_figure/{figure}.log",
    benchmark:
        "results/benchmarks/record_figure/{figure}.tsv"
    wildcard_constraints:
        figure=alternatives(RECORD_FIGURES),
    conda:
        "../envs/jeep.yaml"
    params:
        title=record_title,
        code=code_digest("jeep.stages.results:record_figure"),
    shell:
        "python -m jeep record-figure --facts {input:q} --title {params.title:q}"
        " --out {output.pdf:q} 2> >(tee {log:q} >&2)"

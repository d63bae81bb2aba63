"""Figures of edits and of data, from results only; the probes' are in probe.smk."""


def hypernetwork_files():
    return [f"results/hypernetworks/{model}/{method}.safetensors" for model, method in PLAN.trained]


def hypernetwork_titles(wildcards):
    return [f"{label_of('methods', method)}, {label_of('models', model)}" for model, method in PLAN.trained]


def series_axis(wildcards):
    return EXPERIMENT.sweep.setting if wildcards.figure == "figure6" else "edits"


def procedure_run():
    """The run that Figure 3 shows: the first one of JEEP; None where there is none."""
    edited = (run for run in PLAN.runs if run.method != UNEDITED)
    return next((run for run in edited if CONFIG.editor_name(run.method) == "jeep"), None)


def procedure_path(pattern):
    run = procedure_run()
    return pattern.format(**run._asdict()) if run else []


def procedure_title(wildcards):
    run = procedure_run()
    return f"{label_of('models', run.model)}, {EXPERIMENT.edits} facts of {label_of('datasets', run.dataset)}"


def record_figures():
    """The first edited data set of each kind, by figure."""
    found = {}
    for figure, metrics in (("figure7", "zsre"), ("figure8", "counterfact")):
        names = [name for name in EXPERIMENT.datasets if CONFIG.datasets[name].metrics == metrics]
        found |= {figure: names[0]} if names else {}
    return found


RECORD_FIGURES = record_figures()


def record_facts(wildcards):
    return f"results/facts/{EXPERIMENT.models[0]}/{RECORD_FIGURES[wildcards.figure]}.jsonl"


def record_title(wildcards):
    return f"A record of {label_of('datasets', RECORD_FIGURES[wildcards.figure])}"


def leaking_runs():
    """The experiment's edits of regions on data sets with neighbours, under the first seed.

    Not those whose finished change is made something else of: the trace is of the change before.
    """
    return [
        run
        for run in PLAN.runs_of(PLAN.compared)
        if run.method != UNEDITED
        and run.seed == CONFIG.seeds[0]
        and CONFIG.datasets[run.dataset].neighbours
        and PLAN.editor(run.method, run.model, run.dataset).placements
        and PLAN.editor(run.method, run.model, run.dataset).postprocess is None
    ]


LEAKING = leaking_runs()


def leaking_edits(wildcards, input):
    return [f"{folder}/{EXPERIMENT.edits}.safetensors" for folder in input.deltas]


def figure_files():
    """All figures, without their extensions."""
    names = [*(name for name in PLAN.series if name != "large"), *RECORD_FIGURES]
    names += ["figure3"] if procedure_run() else []
    names += ["training"] if PLAN.trained else []
    names += ["leak"] if LEAKING else []
    names += [name for name in ("damage", "sequence") if getattr(EXPERIMENT, name)]
    return [*(f"results/figures/{name}" for name in sorted(names)), *probe_figures()]


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
        figure=alternatives(PLAN.series),
    conda:
        "../envs/jeep.yaml"
    params:
        axis=series_axis,
        labels=labels,
        code=stage_code("figures:series_figure"),
    shell:
        "python -m jeep series-figure --table {input:q} --axis {params.axis:q} --labels {params.labels:q}"
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
        code=stage_code("figures:training_figure"),
    shell:
        "python -m jeep training-figure --networks {input:q} --titles {params.titles:q}"
        " --out {output.pdf:q} 2> >(tee {log:q} >&2)"


rule procedure_figure:
    """IN: an edit of JEEP with its trace, one of its facts. OUT: Figure 3."""
    input:
        model=procedure_path("results/models/{model}"),
        facts=procedure_path("results/facts/{model}/{dataset}.jsonl"),
        deltas=procedure_path(DELTAS),
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
        edits=EXPERIMENT.edits,
        code=stage_code("figures:procedure_figure"),
    shell:
        "python -m jeep procedure-figure --model {input.model:q} --facts {input.facts:q} --deltas {input.deltas:q}/{params.edits}.safetensors"
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
        code=stage_code("figures:record_figure"),
    shell:
        "python -m jeep record-figure --facts {input:q} --title {params.title:q}"
        " --out {output.pdf:q} 2> >(tee {log:q} >&2)"


rule leak_figure:
    """IN: edits with their traces. OUT: how much of each layer's update reaches neighbours."""
    input:
        deltas=[DELTAS.format(**run._asdict()) for run in LEAKING],
    output:
        pdf="results/figures/leak.pdf",
        png=report(
            "results/figures/leak.png",
            caption="../report/leak.rst",
            category="Figures",
        ),
    log:
        "logs/leak_figure.log",
    benchmark:
        "results/benchmarks/leak_figure.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        deltas=leaking_edits,
        runs=json.dumps([[run.model, run.dataset, run.method] for run in LEAKING]),
        labels=labels,
        code=stage_code("figures:leak_figure"),
    shell:
        "python -m jeep leak-figure --deltas {params.deltas:q} --runs {params.runs:q} --labels {params.labels:q}"
        " --out {output.pdf:q} 2> >(tee {log:q} >&2)"

"""The paper's tables, from results only, and the numbers behind Figures 4 and 6."""

STUDY, QUICK = EXPERIMENT.case_study, EXPERIMENT.quick
TABLES = [artifact for artifact in ("table2", "table3", "table4") if PLAN.table(artifact)]


def table_records(wildcards):
    return records_of(PLAN.runs_of(PLAN.table(wildcards.artifact)))


def table_field(name):
    """A params function for what a table compares."""

    def field(wildcards):
        return getattr(PLAN.table(wildcards.artifact), name)

    return field


def series_records(wildcards):
    return records_of(PLAN.runs_of(PLAN.series[wildcards.figure]))


def series_field(name):
    """A params function for what a figure over edits or values compares."""

    def field(wildcards):
        return getattr(PLAN.series[wildcards.figure], name)

    return field


def series_variants(wildcards):
    """Of a sweep: each method's value, and the method that it is a variant of."""
    if wildcards.figure != "figure6":
        return ""
    sweep = EXPERIMENT.sweep
    return option("variants", json.dumps({"method": sweep.method, "values": sweep.variants}))


def path_of(part, pattern):
    """A file of the model and data set of the case study, or of the first look; none where there is none of these."""
    return pattern.format(model=part.model, dataset=part.dataset) if part else []


def files_of(part, pattern, unedited=False):
    """A file or folder of every method that one of them edits with, or of all that it shows, under the first seed."""
    if part is None:
        return []
    run = {"model": part.model, "dataset": part.dataset, "seed": CONFIG.seeds[0]}
    return [pattern.format(method=method, **run) for method in part.methods if unedited or method != UNEDITED]


def precisions_of(part):
    """What the models of the case study, or of the first look, run in: by method."""
    return [PLAN.precision(part.model, part.dataset, method) for method in part.methods] if part else []


def part_options(part):
    return run_options(part.model) if part else ""


def study_title(wildcards):
    return f"{label_of('models', STUDY.model)}, {label_of('datasets', STUDY.dataset)}"


def cost_jobs():
    """(run, job by its rule and wildcards) of all that the experiment's edits take: target vectors, edits, training."""
    jobs = []
    for model, dataset, method, seed in PLAN.runs:
        if method == UNEDITED or method not in PLAN.compared.methods:
            continue
        editor, run = PLAN.editor(method, model, dataset), [dataset, model, method, seed]
        where = f"{model}/{dataset}/{{}}/seed{seed}"
        if editor.target_spec:
            owner = where.format(PLAN.target_owner(model, dataset, method))
            jobs += [([*run, "targets"], f"targets/{owner}/{shard}") for shard in range(CONFIG.editing.shards)]
        if editor.trained and seed == CONFIG.seeds[0]:
            jobs.append(([*run, "training"], f"hypernetwork/{model}/{method}"))
        jobs.append(([*run, "edit"], f"edit/{where.format(method)}"))
    return jobs


COST_JOBS = cost_jobs()


def reported_names():
    """The paper's names of models and data sets, by ours."""
    kinds = {"models": CONFIG.models, "datasets": CONFIG.datasets}
    names = {
        kind: {name: entry.reported for name, entry in entries.items() if entry.reported}
        for kind, entries in kinds.items()
    }
    return json.dumps(names)


def table_files():
    """All tables, without their extensions."""
    more = [name for name in ("damage", "sequence") if getattr(EXPERIMENT, name)]
    names = (["table1"] if STUDY else []) + TABLES + more + ["costs"]
    return [f"results/tables/{name}" for name in names]


rule table:
    """IN: per-record results of what is compared. OUT: a table as CSV, Markdown, LaTeX and HTML."""
    input:
        table_records,
    output:
        csv="results/tables/{artifact}.csv",
        markdown="results/tables/{artifact}.md",
        latex="results/tables/{artifact}.tex",
        html=report(
            "results/tables/{artifact}.html",
            caption="../report/table.rst",
            category="Tables",
        ),
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
        code=stage_code("results:table"),
    shell:
        "python -m jeep table --records {input:q} --artifact {wildcards.artifact}"
        " --models {params.models:q} --datasets {params.datasets:q} --methods {params.methods:q} --labels {params.labels:q} --edits {params.edits}"
        " --out {output.csv:q} 2> >(tee {log:q} >&2)"


rule series:
    """IN: per-record results. OUT: the metrics over the number of edits (Figure 4, large) or over a setting (Figure 6)."""
    input:
        series_records,
    output:
        csv="results/tables/{figure}.csv",
        markdown="results/tables/{figure}.md",
    log:
        "logs/series/{figure}.log",
    benchmark:
        "results/benchmarks/series/{figure}.tsv"
    wildcard_constraints:
        figure=alternatives(PLAN.series),
    conda:
        "../envs/jeep.yaml"
    params:
        models=series_field("models"),
        datasets=series_field("datasets"),
        methods=series_field("methods"),
        variants=series_variants,
        labels=labels,
        edits=EXPERIMENT.edits,
        code=stage_code("results:series"),
    shell:
        "python -m jeep series --records {input:q} --models {params.models:q} --datasets {params.datasets:q}"
        " --methods {params.methods:q} {params.variants} --labels {params.labels:q} --edits {params.edits}"
        " --out {output.csv:q} 2> >(tee {log:q} >&2)"


rule case_study:
    """IN: a model, facts, edits and their results. OUT: Table 1, what the edited models generate for one record."""
    input:
        model=path_of(STUDY, "results/models/{model}"),
        facts=path_of(STUDY, "results/facts/{model}/{dataset}.jsonl"),
        records=files_of(STUDY, RECORDS),
        deltas=files_of(STUDY, DELTAS),
    output:
        csv="results/tables/table1.csv",
        markdown="results/tables/table1.md",
        latex="results/tables/table1.tex",
        html=report(
            "results/tables/table1.html",
            caption="../report/table1.rst",
            category="Tables",
        ),
    log:
        "logs/case_study.log",
    benchmark:
        "results/benchmarks/case_study.tsv"
    conda:
        "../envs/jeep.yaml"
    resources:
        gpu=gpus_of(STUDY.model) if STUDY else 1,
        mem_mb=memory(DEMANDS.shown, part=STUDY),
        runtime=runtime(),
    params:
        options=part_options(STUDY),
        methods=STUDY.methods if STUDY else [],
        precisions=precisions_of(STUDY),
        deltas=deltas_of_runs,
        case_id=f"--case-id={shlex.quote(STUDY.case_id)}" if STUDY and STUDY.case_id else "",
        edits=EXPERIMENT.edits,
        title=study_title,
        labels=labels,
        code=stage_code("results:case_study"),
    shell:
        "python -m jeep case-study --model {input.model:q} {params.options} --facts {input.facts:q} --records {input.records:q}"
        " --methods {params.methods:q} --precisions {params.precisions} {params.deltas} --edits {params.edits} {params.case_id}"
        " --labels {params.labels:q} --title {params.title:q} --out {output.csv:q} 2> >(tee {log:q} >&2)"


rule quick_look:
    """IN: a model, facts, a few edits and their results. OUT: a first table, and answers in words."""
    input:
        model=path_of(QUICK, "results/models/{model}"),
        facts=path_of(QUICK, "results/facts/{model}/{dataset}.jsonl"),
        records=files_of(QUICK, RECORDS, unedited=True),
        deltas=files_of(QUICK, DELTAS),
    output:
        csv="results/quick.csv",
        markdown="results/quick.md",
    log:
        "logs/quick_look.log",
    benchmark:
        "results/benchmarks/quick_look.tsv"
    conda:
        "../envs/jeep.yaml"
    resources:
        gpu=gpus_of(QUICK.model) if QUICK else 1,
        mem_mb=memory(DEMANDS.shown, part=QUICK),
        runtime=runtime(),
    params:
        options=part_options(QUICK),
        models=QUICK.model if QUICK else "",
        datasets=QUICK.dataset if QUICK else "",
        methods=QUICK.methods if QUICK else [],
        precisions=precisions_of(QUICK),
        deltas=deltas_of_runs,
        answers=QUICK.answers if QUICK else 0,
        edits=EXPERIMENT.edits,
        labels=labels,
        code=stage_code("results:quick_look"),
    shell:
        "python -m jeep quick-look --model {input.model:q} {params.options} --facts {input.facts:q}"
        " --records {input.records:q} --models {params.models:q} --datasets {params.datasets:q} --methods {params.methods:q}"
        " --precisions {params.precisions} {params.deltas}"
        " --answers {params.answers} --labels {params.labels:q} --edits {params.edits}"
        " --out {output.csv:q} 2> >(tee {log:q} >&2)"


rule costs:
    """IN: the benchmark files of edits. OUT: seconds per edit and peak memory of every method."""
    input:
        benchmarks=[f"results/benchmarks/{path}.tsv" for _, path in COST_JOBS],
        kept=[f"results/{path}.seconds.json" for run, path in COST_JOBS if run[-1] == "targets"],
        took=[
            SECONDS.format(dataset=dataset, model=model, method=method, seed=seed)
            for (dataset, model, method, seed, kind), _ in COST_JOBS
            if kind == "edit"
        ],
        reported=REPORTED,
    output:
        csv="results/tables/costs.csv",
        markdown="results/tables/costs.md",
        latex="results/tables/costs.tex",
        html=report(
            "results/tables/costs.html",
            caption="../report/costs.rst",
            category="Tables",
        ),
    log:
        "logs/costs.log",
    benchmark:
        "results/benchmarks/costs.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        jobs=json.dumps([run for run, _ in COST_JOBS], separators=(",", ":")),
        edits=EXPERIMENT.edits,
        names=reported_names(),
        labels=labels,
        code=stage_code("results:costs"),
    shell:
        "python -m jeep costs --benchmarks {input.benchmarks:q} --kept {input.kept:q} --took {input.took:q} --jobs {params.jobs:q} --edits {params.edits}"
        " --reported {input.reported:q} --names {params.names:q} --labels {params.labels:q}"
        " --out {output.csv:q} 2> >(tee {log:q} >&2)"

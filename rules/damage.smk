"""What else the edits change: one job asks a model without any edit and with each → a table and a figure."""

DAMAGED = EXPERIMENT.damage
DAMAGE = "results/damage/{model}/{dataset}/seed{seed}.parquet"
DAMAGE_TEXTS = "results/damage/{model}/{dataset}/seed{seed}.texts.parquet"
"""What the models wrote."""
ABILITIES = "results/abilities/{model}/{dataset}/seed{seed}.parquet"


def damage_files():
    """What was asked, of every model, data set and seed."""
    patterns = [DAMAGE, *([ABILITIES] if DAMAGED and DAMAGED.harness else [])]
    return [
        pattern.format(model=model, dataset=dataset, seed=seed)
        for pattern in patterns
        for model, dataset, seed in PLAN.damage_runs
    ]


def asked_runs(wildcards):
    return PLAN.damage_runs[wildcards.model, wildcards.dataset, int(wildcards.seed)]


def asked_deltas(wildcards):
    return [DELTAS.format(**run._asdict()) for run in asked_runs(wildcards)]


def asked_counts(wildcards, most=False):
    """Each run's method, precision and numbers of edits, or the most of these."""
    counts = DAMAGED.counts(wildcards.dataset, EXPERIMENT.edits)[-1 if most else 0 :]
    return json.dumps(
        [
            {"method": run.method, "dtype": PLAN.precision(run.model, run.dataset, run.method), "edits": counts}
            for run in asked_runs(wildcards)
        ]
    )


def harness_files():
    """All files beside its tasks."""
    folder = DAMAGED.harness.folder if DAMAGED and DAMAGED.harness else None
    return sorted(str(path) for path in folder.rglob("*") if path.is_file()) if folder else []


def question_names(wildcards):
    """What is asked of a data set's edits, by the names of its files (OTHERS)."""
    own = [f"{wildcards.dataset}.{part}" for part in ("topics", "references", "chains")]
    return [name for name in own if name in OTHERS]


def task_names():
    return [f"task.{name}" for name in (DAMAGED.tasks if DAMAGED else ())]


def question_options(wildcards):
    """Topics are in the data set's own file, where no other is named."""
    files = {name.rpartition(".")[2]: file_of(name, OTHERS[name]) for name in question_names(wildcards)}
    if "references" in files:
        files.setdefault("topics", dataset_file(wildcards))
    return " ".join(option(part, path) for part, path in files.items())


def question_inputs(wildcards):
    """The same, for the DAG."""
    names = question_names(wildcards)
    own = [dataset_input(wildcards)] if f"{wildcards.dataset}.references" in names else []
    return list(dict.fromkeys([*own, *(input_of(name, OTHERS[name]) for name in [*names, *task_names()])]))


def damage_columns(wildcards):
    """Columns of the results that name the runs."""
    return json.dumps({"model": wildcards.model, "dataset": wildcards.dataset, "seed": int(wildcards.seed)})


def damage_about():
    """How much was asked, in words."""
    asked = DAMAGED.amounts
    return (
        f"At most {asked.facts} facts answered freely, texts about {asked.texts}, {asked.tokens} tokens of held-out text,"
        f" {asked.questions} questions of each task, {asked.chains} chains of facts."
    )


rule damage:
    """IN: a model, facts, questions, edits of several methods. OUT: its answers without and with each, row by row."""
    input:
        model="results/models/{model}",
        facts="results/facts/{model}/{dataset}.jsonl",
        corpus="results/corpus/wikipedia.jsonl",
        questions=question_inputs,
        deltas=asked_deltas,
    output:
        records=update(DAMAGE),
        texts=update(DAMAGE_TEXTS),
    log:
        "logs/damage/{model}/{dataset}/seed{seed}.log",
    benchmark:
        "results/benchmarks/damage/{model}/{dataset}/seed{seed}.tsv"
    conda:
        "../envs/jeep.yaml"
    resources:
        gpu=gpus,
        mem_mb=memory(DEMANDS.damage),
        runtime=runtime(DURATIONS.damage),
    params:
        options=model_options,
        sample=lambda wildcards: sample_sizes(wildcards.model),
        questions=question_options,
        tasks=options("task", [f"{name.partition('.')[2]}={file_of(name, OTHERS[name])}" for name in task_names()]),
        metrics=dataset_field("metrics"),
        amounts=DAMAGED.amounts.model_dump_json() if DAMAGED else "",
        runs=asked_counts,
        columns=damage_columns,
        code=stage_code("damage:damage"),
    shell:
        "python -m jeep damage --model {input.model:q} {params.options} --facts {input.facts:q} --metrics {params.metrics}"
        " {params.questions} {params.tasks} --corpus {input.corpus:q} {params.sample} --amounts {params.amounts:q}"
        " --runs {params.runs:q} --deltas {input.deltas:q} --run-columns {params.columns:q} --texts {output.texts:q} --out {output.records:q} 2> >(tee {log:q} >&2)"


rule abilities:
    """IN: a model, edits of several methods. OUT: its answers to lm-evaluation-harness without and with each."""
    input:
        model="results/models/{model}",
        facts="results/facts/{model}/{dataset}.jsonl",
        tasks=harness_files(),
        deltas=asked_deltas,
    output:
        update(ABILITIES),
    log:
        "logs/abilities/{model}/{dataset}/seed{seed}.log",
    benchmark:
        "results/benchmarks/abilities/{model}/{dataset}/seed{seed}.tsv"
    conda:
        "../envs/harness.yaml"
    resources:
        gpu=gpus,
        mem_mb=memory(DEMANDS.damage),
        runtime=runtime(least=durations.DAY),
    params:
        options=model_options,
        asked=DAMAGED.harness.model_dump_json() if DAMAGED and DAMAGED.harness else "",
        runs=lambda wildcards: asked_counts(wildcards, most=True),
        columns=damage_columns,
        code=stage_code("damage:abilities"),
    shell:
        "python -m jeep abilities --model {input.model:q} {params.options} --facts {input.facts:q} --asked {params.asked:q}"
        " --runs {params.runs:q} --deltas {input.deltas:q} --run-columns {params.columns:q} --out {output:q} 2> >(tee {log:q} >&2)"


rule damage_table:
    """IN: what was asked, per-record results. OUT: what else edits change, as differences to the unedited model."""
    input:
        damage=damage_files(),
        records=records_of(PLAN.runs_of(DAMAGED) if DAMAGED else []),
    output:
        csv="results/tables/damage.csv",
        markdown="results/tables/damage.md",
    log:
        "logs/damage_table.log",
    benchmark:
        "results/benchmarks/damage_table.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        models=DAMAGED.models if DAMAGED else [],
        datasets=DAMAGED.datasets if DAMAGED else [],
        methods=DAMAGED.methods if DAMAGED else [],
        labels=labels,
        about=damage_about() if DAMAGED else "",
        seed=CONFIG.seeds[0],
        code=stage_code("damage:damage_table"),
    shell:
        "python -m jeep damage-table --damage {input.damage:q} --records {input.records:q} --models {params.models:q}"
        " --datasets {params.datasets:q} --methods {params.methods:q} --labels {params.labels:q} --about {params.about:q}"
        " --seed {params.seed} --out {output.csv:q} 2> >(tee {log:q} >&2)"


rule damage_figure:
    """IN: what else edits change. OUT: Score against it, a point for each method."""
    input:
        "results/tables/damage.csv",
    output:
        pdf="results/figures/damage.pdf",
        png=report(
            "results/figures/damage.png",
            caption="../report/damage.rst",
            category="Figures",
        ),
    log:
        "logs/damage_figure.log",
    benchmark:
        "results/benchmarks/damage_figure.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        labels=labels,
        code=stage_code("damage:damage_figure"),
    shell:
        "python -m jeep damage-figure --table {input:q} --labels {params.labels:q} --out {output.pdf:q} 2> >(tee {log:q} >&2)"

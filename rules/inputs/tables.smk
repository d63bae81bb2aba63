"""Tables: what the rules of tables.smk read and are told."""


def labels(wildcards):
    """Names for tables and figures."""
    kinds = {
        kind: {
            name: entry.label
            for name, entry in getattr(CONFIG, kind).items()
            if entry.label
        }
        for kind in ("models", "datasets", "methods")
    }
    kinds["methods"][UNEDITED] = "unedited"
    return json.dumps(kinds)


def table_rows(artifact):
    """What a table compares: models, data sets and methods; None where there is nothing to compare."""
    if artifact == "table4":
        return EXPERIMENT.ablations
    metrics = {"table2": "zsre", "table3": "counterfact"}[artifact]
    datasets = [
        name for name in EXPERIMENT.datasets if CONFIG.datasets[name].metrics == metrics
    ]
    return EXPERIMENT.model_copy(update={"datasets": datasets}) if datasets else None


TABLES = [
    artifact for artifact in ("table2", "table3", "table4") if table_rows(artifact)
]


def grid_names(grid):
    """The models, data sets and methods of a grid, by the columns of results."""
    return {"model": grid.models, "dataset": grid.datasets, "method": grid.methods}


def grid_records(grid):
    """Per-record results of what a table or a figure compares, so that it can be made without the others."""
    names = grid_names(grid)
    return records_of(
        run
        for run in [*runs(), *large_runs()]
        if all(run[kind] in wanted for kind, wanted in names.items())
    )


def table_records(wildcards):
    return grid_records(table_rows(wildcards.artifact))


def table_field(name):
    """A params function for what a table compares."""

    def field(wildcards):
        return getattr(table_rows(wildcards.artifact), name)

    return field


SERIES = {
    name: grid
    for name, grid in (
        ("figure4", EXPERIMENT.curve),
        ("figure6", EXPERIMENT.sweep and EXPERIMENT.sweep.grid),
        ("large", LARGE),
    )
    if grid
}


def series_records(wildcards):
    return grid_records(SERIES[wildcards.figure])


def series_field(name):
    """A params function for what a figure over edits or values compares."""

    def field(wildcards):
        return getattr(SERIES[wildcards.figure], name)

    return field


def series_values(wildcards):
    """Of a sweep: each method's value, and the method that it is a variant of."""
    if wildcards.figure != "figure6":
        return ""
    sweep = EXPERIMENT.sweep
    values = {"method": sweep.method, "values": sweep.variants}
    return f"--variants {shlex.quote(json.dumps(values))}"


STUDY = EXPERIMENT.case_study


def study_path(pattern):
    """A file of the case study's model and data set; none where there is no case study."""
    return pattern.format(model=STUDY.model, dataset=STUDY.dataset) if STUDY else []


def study_files(pattern):
    """A file of every method of the case study, under the first seed, of all shards where it has shards."""
    if STUDY is None:
        return []
    shards = range(CONFIG.editing.shards) if "{shard}" in pattern else [0]
    run = {
        "model": STUDY.model,
        "dataset": STUDY.dataset,
        "seed": CONFIG.seeds[0],
        "edits": EXPERIMENT.edits,
    }
    return [
        pattern.format(method=method, shard=shard, **run)
        for method in STUDY.methods
        for shard in shards
    ]


def study_options(wildcards):
    return run_options(STUDY.model)


def study_title(wildcards):
    return f"{label_of('models', STUDY.model)}, {label_of('datasets', STUDY.dataset)}"


@cache
def cost_jobs():
    """(run, benchmark file) of all that the experiment's edits take: target vectors, edits, training."""
    jobs = []
    for run in runs():
        model, dataset, method, seed = run.values()
        if method == UNEDITED or method not in EXPERIMENT.methods:
            continue
        its_editor, run_id = editor(method, model, dataset), [
            dataset,
            model,
            method,
            seed,
        ]
        where = f"{model}/{dataset}/{{}}/seed{seed}"
        if its_editor.target_spec:
            owner = where.format(target_owner(method, model, dataset))
            jobs += [
                ([*run_id, "targets"], f"targets/{owner}/{shard}")
                for shard in range(CONFIG.editing.shards)
            ]
        if its_editor.trained and seed == CONFIG.seeds[0]:
            jobs.append(([*run_id, "training"], f"hypernetwork/{model}/{method}"))
        jobs.append(
            ([*run_id, "edit"], f"edit/{where.format(method)}/{EXPERIMENT.edits}")
        )
    return [(job, f"results/benchmarks/{path}.tsv") for job, path in jobs]


def reported_names():
    """The paper's names of models and data sets, by ours."""
    kinds = {"models": CONFIG.models, "datasets": CONFIG.datasets}
    return json.dumps(
        {
            kind: {
                name: entry.reported
                for name, entry in entries.items()
                if entry.reported
            }
            for kind, entries in kinds.items()
        }
    )


def table_files():
    """All tables, without their extensions."""
    names = (["table1"] if STUDY else []) + TABLES + ["costs"]
    return [f"results/tables/{name}" for name in names]

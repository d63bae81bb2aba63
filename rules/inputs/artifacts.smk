"""Tables and figures: what the rules of artifacts.smk read and are told."""


def hypernetwork_files():
    return [
        f"results/hypernetworks/{model}/{method}.safetensors"
        for model, method in trained_runs()
    ]


def hypernetwork_titles(wildcards):
    return [
        f"{CONFIG.methods[method].label or method}, {CONFIG.models[model].label or model}"
        for model, method in trained_runs()
    ]


SERIES = {
    name: grid
    for name, grid in (
        ("figure4", EXPERIMENT.curve),
        ("figure6", EXPERIMENT.sweep and EXPERIMENT.sweep.grid),
    )
    if grid
}


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


def series_axis(wildcards):
    return "edits" if wildcards.figure == "figure4" else EXPERIMENT.sweep.setting


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


def table_field(name):
    """A params function for what a table compares."""

    def field(wildcards):
        return getattr(table_rows(wildcards.artifact), name)

    return field


def artifact_files():
    tables = [f"results/tables/{artifact}.csv" for artifact in TABLES]
    training = ["results/figures/training.pdf"] if trained_runs() else []
    return (
        tables
        + [f"results/figures/{name}.pdf" for name in SERIES]
        + training
        + probe_files()
    )

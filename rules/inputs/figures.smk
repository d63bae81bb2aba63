"""Figures: what the rules of figures.smk read and are told."""


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


def series_axis(wildcards):
    return EXPERIMENT.sweep.setting if wildcards.figure == "figure6" else "edits"


def procedure_run():
    """The run that Figure 3 shows: the first one of JEEP; None where there is none."""
    for run in runs():
        if run["method"] != UNEDITED and CONFIG.editor_name(run["method"]) == "jeep":
            return run | {"edits": EXPERIMENT.edits}
    return None


def procedure_path(pattern):
    run = procedure_run()
    return pattern.format(**run) if run else []


def procedure_title(wildcards):
    run = procedure_run()
    return f"{label_of('models', run['model'])}, {run['edits']} facts of {label_of('datasets', run['dataset'])}"


def record_figures():
    """The first edited data set of each kind, by figure."""
    kinds = {"figure7": "zsre", "figure8": "counterfact"}
    return {
        figure: next(
            name
            for name in EXPERIMENT.datasets
            if CONFIG.datasets[name].metrics == metrics
        )
        for figure, metrics in kinds.items()
        if any(CONFIG.datasets[name].metrics == metrics for name in EXPERIMENT.datasets)
    }


RECORD_FIGURES = record_figures()


def record_facts(wildcards):
    return (
        f"results/facts/{EXPERIMENT.models[0]}/{RECORD_FIGURES[wildcards.figure]}.jsonl"
    )


def record_title(wildcards):
    return f"A record of {label_of('datasets', RECORD_FIGURES[wildcards.figure])}"


def figure_files():
    """All figures, without their extensions."""
    names = [*(name for name in SERIES if name != "large"), *RECORD_FIGURES]
    names += ["figure3"] if procedure_run() else []
    names += ["training"] if trained_runs() else []
    return [*(f"results/figures/{name}" for name in sorted(names)), *probe_figures()]

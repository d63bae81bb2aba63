"""Evaluation: what the rules of evaluate.smk read and are told."""


def edit_counts(wildcards):
    """The numbers of edits that a method is evaluated with."""
    cell = (wildcards.model, wildcards.dataset, wildcards.method)
    return cells().get(cell, [EXPERIMENT.edits])


def needed_deltas(wildcards):
    if wildcards.method == UNEDITED:
        return []
    return expand(
        "results/deltas/{model}/{dataset}/{method}/seed{seed}/{edits}.safetensors",
        **wildcards,
        edits=edit_counts(wildcards),
    )


def deltas_option(wildcards, input):
    return option("deltas", input.deltas)


def records_of(some_runs):
    """Per-record results of runs, of all shards."""
    pattern = "results/records/{model}/{dataset}/{method}/seed{seed}/{shard}.parquet"
    return [
        pattern.format(**run, shard=shard)
        for run in some_runs
        for shard in range(CONFIG.editing.shards)
    ]


def record_files(wildcards):
    return records_of(runs())


def run_preset(run):
    """The preset of a run; none for the unedited model."""
    if run["method"] == UNEDITED:
        return ""
    return editor(run["method"], run["model"], run["dataset"]).preset


def run_columns(wildcards):
    """What every row of a run's results says of the run."""
    run = {name: wildcards[name] for name in ("model", "dataset", "method")}
    run["seed"] = int(wildcards.seed)
    return json.dumps(run | {"preset": run_preset(run)})

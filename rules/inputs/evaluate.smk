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


def record_files(wildcards):
    pattern = "results/records/{model}/{dataset}/{method}/seed{seed}/{shard}.parquet"
    return [
        pattern.format(**run, shard=shard)
        for run in runs()
        for shard in range(CONFIG.editing.shards)
    ]


def run_names(wildcards):
    """What each file of records is, with the preset that ran."""

    def preset(run):
        if run["method"] == UNEDITED:
            return ""
        return editor(run["method"], run["model"], run["dataset"]).preset

    return [
        json.dumps(run | {"preset": preset(run)})
        for run in runs()
        for _ in range(CONFIG.editing.shards)
    ]

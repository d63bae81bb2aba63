"""The report: what the rules of report.smk read and are told."""


def probe_results(name):
    """What a probe found, of every probed model."""
    return [
        f"results/probe/{model}/{name}.parquet"
        for model in (PROBE.models if PROBE else [])
    ]


def claim_grids():
    """What tables 2 and 3, table 4 and Figures 4 and 6 compare."""
    grids = {
        "main": EXPERIMENT,
        "ablations": EXPERIMENT.ablations,
        "curve": EXPERIMENT.curve,
        "sweep": SERIES.get("figure6"),
    }
    return json.dumps({name: grid_names(grid) for name, grid in grids.items() if grid})


def large_grids():
    """Every number of edits (as Figure 4), and the largest of each data set (as tables 2 and 3)."""
    return json.dumps(
        dict.fromkeys(("main", "curve"), grid_names(LARGE)) if LARGE else {}
    )


def large_files():
    """What the target `large` makes."""
    if LARGE is None:
        return []
    return [
        "results/tables/large.csv",
        "results/figures/large.pdf",
        "results/large/claims.csv",
    ]


def edited_facts():
    return [
        f"results/facts/{model}/{dataset}.jsonl"
        for model in EXPERIMENT.models
        for dataset in EXPERIMENT.datasets
    ]


def report_tables():
    return [f"{path}.md" for path in table_files()] + ["results/comparison.md"]


def report_figures():
    return [f"{path}.png" for path in figure_files()]


def described(source):
    """A source with its pins, for people; of the demo's facts with the packages that they are made from."""
    parts = source.model_dump(mode="json", exclude_none=True)
    text = ", ".join(
        [parts.pop("kind"), *(f"{name} {value}" for name, value in parts.items())]
    )
    if source.kind == "demo":
        made = (
            f"{name} {wheel.version} sha256 {wheel.sha256[:16]}…"
            for name, wheel in CONFIG.demo.packages.items()
        )
        text += f", made from {', '.join(made)}"
    return text


@cache
def about():
    """What was run, for people: sources with their pins, presets."""
    used = {"models": EXPERIMENT.models, "datasets": EXPERIMENT.datasets}
    sources = {
        kind: {name: described(getattr(CONFIG, kind)[name].source) for name in names}
        for kind, names in used.items()
    }
    presets = {}
    for run in runs():
        if run["method"] in EXPERIMENT.methods and run["method"] != UNEDITED:
            presets.setdefault(run_preset(run), {})[run["method"]] = None
    return {
        "title": f"JEEP: {len(EXPERIMENT.methods)} methods, {len(EXPERIMENT.models)} models, {len(EXPERIMENT.datasets)} data sets",
        "edits": EXPERIMENT.edits,
        "seeds": CONFIG.seeds,
        **sources,
        "presets": {name: list(methods) for name, methods in presets.items()},
    }


def provenance():
    """The same in one line, for the captions of Snakemake's report."""
    found = about()
    packages = ("torch", "transformers", "snakemake")
    parts = [f"model {name}: {text}" for name, text in found["models"].items()]
    parts += [f"data {name}: {text}" for name, text in found["datasets"].items()]
    parts += [
        f"preset {name}: {', '.join(methods)}"
        for name, methods in found["presets"].items()
    ]
    parts += [f"seeds {', '.join(map(str, found['seeds']))}"]
    parts += [", ".join(f"{name} {version(name)}" for name in packages)]
    return "; ".join(parts)


def artifact_files():
    """Everything that `all` makes."""
    return [
        *(f"{path}.csv" for path in table_files()),
        *(f"{path}.pdf" for path in figure_files()),
        "results/REPORT.md",
    ]

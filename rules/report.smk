"""The paper's numbers beside ours, its claims tested on our results, and the report."""

LARGE = EXPERIMENT.large
TEMPLATE = os.path.relpath(files("jeep.report") / "report.md.jinja")


def probe_results(name):
    """What a probe found, of every probed model."""
    return [f"results/probe/{model}/{name}.parquet" for model in (PROBE.models if PROBE else [])]


def claim_grids():
    """What tables 2 and 3, table 4 and Figures 4 and 6 compare."""
    grids = {
        "main": PLAN.compared,
        "ablations": EXPERIMENT.ablations,
        "curve": EXPERIMENT.curve,
        "sweep": PLAN.series.get("figure6"),
        "sequence": EXPERIMENT.sequence,
        "damage": DAMAGED,
    }
    return json.dumps({name: grid_names(grid) for name, grid in grids.items() if grid})


def large_grids():
    """Every number of edits (as Figure 4), and the largest of each data set (as tables 2 and 3)."""
    return json.dumps(dict.fromkeys(("main", "curve"), grid_names(LARGE)) if LARGE else {})


def large_files():
    """What the target `large` makes."""
    names = ["tables/large.csv", "figures/large.pdf", "large/claims.csv"] if LARGE else []
    return [f"results/{name}" for name in names]


def artifact_files():
    """Everything that `all` makes."""
    tables = [f"{path}.csv" for path in table_files()]
    return [*tables, *(f"{path}.pdf" for path in figure_files()), "results/REPORT.md"]


rule comparison:
    """IN: our tables, the paper's numbers. OUT: both side by side, where model and data set are the paper's."""
    input:
        tables=[f"results/tables/{artifact}.csv" for artifact in TABLES],
        reported=REPORTED,
    output:
        csv="results/comparison.csv",
        markdown="results/comparison.md",
        html=report(
            "results/comparison.html",
            caption="../report/comparison.rst",
            category="Summary",
        ),
    log:
        "logs/comparison.log",
    benchmark:
        "results/benchmarks/comparison.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        names=reported_names(),
        code=stage_code("results:comparison"),
    shell:
        "python -m jeep comparison --tables {input.tables:q} --reported {input.reported:q} --names {params.names:q}"
        " --out {output.csv:q} 2> >(tee {log:q} >&2)"


rule claims:
    """IN: the collected results, what the probes found. OUT: every claim of the paper with its statistic and verdict."""
    input:
        records="results/records.parquet",
        sequence=sequence_runs("sequence", SEQUENCE),
        damage=damage_files(),
        contrasts=probe_results("contrast"),
        words=probe_results("words"),
    output:
        csv="results/claims.csv",
        markdown="results/claims.md",
        html=report(
            "results/claims.html",
            caption="../report/claims.rst",
            category="Summary",
        ),
    log:
        "logs/claims.log",
    benchmark:
        "results/benchmarks/claims.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        grids=claim_grids(),
        roles=json.dumps(PLAN.roles(PLAN.compared, EXPERIMENT.ablations, EXPERIMENT.curve, EXPERIMENT.sequence)),
        sequence=lambda wildcards, input: options("sequence", input.sequence),
        damage=lambda wildcards, input: options("damage", input.damage),
        sweep=json.dumps(EXPERIMENT.sweep.variants if EXPERIMENT.sweep else {}),
        models=PROBE.models if PROBE else [],
        edits=option("edits", EXPERIMENT.edits),
        seed=CONFIG.seeds[0],
        code=stage_code("results:claims"),
    shell:
        "python -m jeep claims --records {input.records:q} {params.edits} --grids {params.grids:q} --roles {params.roles:q} --sweep {params.sweep:q} {params.sequence} {params.damage}"
        " --models {params.models:q} --contrasts {input.contrasts:q} --words {input.words:q}"
        " --seed {params.seed} --out {output.csv:q} 2> >(tee {log:q} >&2)"


use rule claims as large_claims with:
    input:
        records=records_of(PLAN.large_runs),
        sequence=[],
        damage=[],
        contrasts=[],
        words=[],
    output:
        csv="results/large/claims.csv",
        markdown="results/large/claims.md",
        html="results/large/claims.html",
    log:
        "logs/large_claims.log",
    benchmark:
        "results/benchmarks/large_claims.tsv"
    params:
        grids=large_grids(),
        roles=json.dumps(PLAN.roles(LARGE)),
        sequence="",
        damage="",
        sweep="{}",
        models=[],
        edits="",
        seed=CONFIG.seeds[0],
        code=stage_code("results:claims"),


use rule claims as long_sequence_claims with:
    input:
        records=sequence_runs("long_sequence", SEQUENCE),
        sequence=sequence_runs("long_sequence", SEQUENCE),
        damage=[],
        contrasts=[],
        words=[],
    output:
        csv="results/long_sequence/claims.csv",
        markdown="results/long_sequence/claims.md",
        html="results/long_sequence/claims.html",
    log:
        "logs/long_sequence_claims.log",
    benchmark:
        "results/benchmarks/long_sequence_claims.tsv"
    params:
        grids=json.dumps({"sequence": grid_names(EXPERIMENT.long_sequence)} if EXPERIMENT.long_sequence else {}),
        roles=json.dumps(PLAN.roles(EXPERIMENT.long_sequence)),
        sweep="{}",
        sequence=lambda wildcards, input: options("sequence", input.sequence),
        damage="",
        models=[],
        edits="",
        seed=CONFIG.seeds[0],
        code=stage_code("results:claims"),


rule report:
    """IN: facts, tables, figures, claims. OUT: a report that can be read in five minutes."""
    input:
        facts=[path for model in EXPERIMENT.models for path in facts_of(model, EXPERIMENT.datasets)],
        tables=[*(f"{path}.md" for path in table_files()), "results/comparison.md"],
        figures=[f"{path}.png" for path in figure_files()],
        template=TEMPLATE,
        claims="results/claims.csv",
    output:
        "results/REPORT.md",
    log:
        "logs/report.log",
    benchmark:
        "results/benchmarks/report.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        about=json.dumps(about(PLAN)),
        code=stage_code("results:report"),
    shell:
        "python -m jeep report --about {params.about:q} --facts {input.facts:q} --tables {input.tables:q}"
        " --figures {input.figures:q} --claims {input.claims:q} --template {input.template:q} --out {output:q} 2> >(tee {log:q} >&2)"

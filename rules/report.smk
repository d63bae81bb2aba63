"""The paper's numbers beside ours, its claims tested on our results, and the report."""


rule comparison:
    """IN: our tables, the paper's numbers. OUT: both side by side, where model and data set are the paper's."""
    input:
        tables=[f"results/tables/{artifact}.csv" for artifact in TABLES],
        reported="config/reported.csv",
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
        code=code_digest("jeep.stages.results:comparison"),
    shell:
        "python -m jeep comparison --tables {input.tables:q} --reported {input.reported:q} --names {params.names:q}"
        " --out {output.csv:q} 2> >(tee {log:q} >&2)"


rule claims:
    """IN: the collected results, what the probes found. OUT: every claim of the paper with its statistic and verdict."""
    input:
        records="results/records.parquet",
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
        sweep=json.dumps(EXPERIMENT.sweep.variants if EXPERIMENT.sweep else {}),
        models=PROBE.models if PROBE else [],
        edits=option("edits", EXPERIMENT.edits),
        seed=CONFIG.seeds[0],
        code=code_digest("jeep.stages.results:claims"),
    shell:
        "python -m jeep claims --records {input.records:q} {params.edits} --grids {params.grids:q} --sweep {params.sweep:q}"
        " --models {params.models:q} --contrasts {input.contrasts:q} --words {input.words:q}"
        " --seed {params.seed} --out {output.csv:q} 2> >(tee {log:q} >&2)"


use rule claims as large_claims with:
    input:
        records=grid_records(LARGE) if LARGE else [],
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
        sweep="{}",
        models=[],
        edits="",
        seed=CONFIG.seeds[0],
        code=code_digest("jeep.stages.results:claims"),


rule report:
    """IN: facts, tables, figures, claims. OUT: a report that can be read in five minutes."""
    input:
        facts=edited_facts(),
        tables=report_tables(),
        figures=report_figures(),
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
        about=json.dumps(about()),
        code=code_digest("jeep.stages.results:report"),
    shell:
        "python -m jeep report --about {params.about:q} --facts {input.facts:q} --tables {input.tables:q}"
        " --figures {input.figures:q} --claims {input.claims:q} --out {output:q} 2> >(tee {log:q} >&2)"

"""The paper's tables, from results only, and the numbers behind Figures 4 and 6."""


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
        code=code_digest("jeep.stages.results:tables"),
    shell:
        "python -m jeep tables --records {input:q} --artifact {wildcards.artifact}"
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
        figure=alternatives(SERIES),
    conda:
        "../envs/jeep.yaml"
    params:
        models=series_field("models"),
        datasets=series_field("datasets"),
        methods=series_field("methods"),
        variants=series_values,
        labels=labels,
        edits=EXPERIMENT.edits,
        code=code_digest("jeep.stages.results:series"),
    shell:
        "python -m jeep series --records {input:q} --models {params.models:q} --datasets {params.datasets:q}"
        " --methods {params.methods:q} {params.variants} --labels {params.labels:q} --edits {params.edits}"
        " --out {output.csv:q} 2> >(tee {log:q} >&2)"


rule case_study:
    """IN: a model, facts, edits and their results. OUT: Table 1, what the edited models generate for one record."""
    input:
        model=study_path("results/models/{model}"),
        facts=study_path("results/facts/{model}/{dataset}.jsonl"),
        records=study_files(
            "results/records/{model}/{dataset}/{method}/seed{seed}/{shard}.parquet"
        ),
        deltas=study_files(
            "results/deltas/{model}/{dataset}/{method}/seed{seed}/{edits}.safetensors"
        ),
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
        gpu=1,
    params:
        options=study_options,
        methods=STUDY.methods if STUDY else [],
        case_id=option("case-id", STUDY.case_id) if STUDY else "",
        edits=EXPERIMENT.edits,
        title=study_title,
        labels=labels,
        code=code_digest("jeep.stages.results:case_study"),
    shell:
        "python -m jeep case-study --model {input.model:q} {params.options} --facts {input.facts:q} --records {input.records:q}"
        " --methods {params.methods:q} --deltas {input.deltas:q} --edits {params.edits} {params.case_id}"
        " --labels {params.labels:q} --title {params.title:q} --out {output.csv:q} 2> >(tee {log:q} >&2)"


rule costs:
    """IN: the benchmark files of edits. OUT: seconds per edit and peak memory of every method."""
    input:
        benchmarks=[path for _, path in cost_jobs()],
        reported="config/reported.csv",
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
        jobs=json.dumps([run for run, _ in cost_jobs()], separators=(",", ":")),
        edits=EXPERIMENT.edits,
        names=reported_names(),
        labels=labels,
        code=code_digest("jeep.stages.results:costs"),
    shell:
        "python -m jeep costs --benchmarks {input.benchmarks:q} --jobs {params.jobs:q} --edits {params.edits}"
        " --reported {input.reported:q} --names {params.names:q} --labels {params.labels:q}"
        " --out {output.csv:q} 2> >(tee {log:q} >&2)"

"""What a second region costs, for variants of it: efficacy against locality, and what its place leaks to neighbours."""

TRADEOFF = EXPERIMENT.tradeoff


def tradeoff_field(name):
    return getattr(TRADEOFF.grid, name) if TRADEOFF else []


def tradeoff_curves():
    """The value of each variant, by curve; a method as it is has none, and its own name."""
    if TRADEOFF is None:
        return "{}"
    curves = {name: sweep.variants for name, sweep in TRADEOFF.sweeps.items()}
    return json.dumps(curves | {name: {name: None} for name in TRADEOFF.methods})


def moved_facts(wildcards):
    return f"results/facts/{wildcards.model}/{SEARCHED[REGION_SEARCHES[wildcards.model].dataset]}.jsonl"


def moved_neighbours(wildcards):
    sets = [SEARCHED[REGION_SEARCHES[wildcards.model].dataset]]
    return neighbour_files(moved_editor(wildcards), wildcards.model, CONFIG.seeds[0], sets)


def moved_limit(wildcards):
    return REGION_SEARCHES[wildcards.model].facts


def moved_prior(wildcards):
    return moved_editor(wildcards).high.prior


def high_searches(wildcards):
    """The searches that moved a high region."""
    return [path for path in region_searches(wildcards) if path.endswith("-high.layers.jsonl")]


def leak_cost_figures():
    """Of the models whose high regions are moved, where the development facts have neighbours."""
    return [
        f"results/figures/leak-{model}.pdf"
        for model, search in REGION_SEARCHES.items()
        if "high.layers" in search.layers and CONFIG.datasets[SEARCHED[search.dataset]].neighbours
    ]


rule tradeoff:
    """IN: per-record results. OUT: the metrics along a setting of each method."""
    input:
        records_of(PLAN.tradeoff_runs),
    output:
        "results/tables/tradeoff.csv",
    log:
        "logs/tradeoff.log",
    benchmark:
        "results/benchmarks/tradeoff.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        models=tradeoff_field("models"),
        datasets=tradeoff_field("datasets"),
        methods=tradeoff_field("methods"),
        curves=tradeoff_curves(),
        edits=EXPERIMENT.edits,
        code=stage_code("results:tradeoff"),
    shell:
        "python -m jeep tradeoff --records {input:q} --models {params.models:q} --datasets {params.datasets:q}"
        " --methods {params.methods:q} --curves {params.curves:q} --edits {params.edits}"
        " --out {output:q} 2> >(tee {log:q} >&2)"


rule tradeoff_figure:
    """IN: the metrics along settings. OUT: locality over efficacy."""
    input:
        "results/tables/tradeoff.csv",
    output:
        pdf="results/figures/tradeoff.pdf",
        png="results/figures/tradeoff.png",
    log:
        "logs/tradeoff_figure.log",
    benchmark:
        "results/benchmarks/tradeoff_figure.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        labels=labels,
        code=stage_code("figures:tradeoff_figure"),
    shell:
        "python -m jeep tradeoff-figure --table {input:q} --labels {params.labels:q}"
        " --out {output.pdf:q} 2> >(tee {log:q} >&2)"


rule leaks:
    """IN: a model, development facts, neighbours, covariances. OUT: the leak that keys alone foretell, by layer."""
    input:
        model="results/models/{model}",
        facts=moved_facts,
        neighbours=moved_neighbours,
        covariance=moved_covariance,
    output:
        "results/tuning/{model}/leaks.csv",
    log:
        "logs/leaks/{model}.log",
    benchmark:
        "results/benchmarks/leaks/{model}.tsv"
    conda:
        "../envs/jeep.yaml"
    resources:
        gpu=gpus,
        mem_mb=memory(DEMANDS.read),
        runtime=runtime(),
    params:
        options=model_options,
        limit=moved_limit,
        prior=moved_prior,
        covariance=covariance_option,
        code=stage_code("probe:leaks"),
    shell:
        "python -m jeep leaks --model {input.model:q} {params.options} --facts {input.facts:q} --limit {params.limit}"
        " --neighbours {input.neighbours:q} {params.covariance} --prior {params.prior}"
        " --out {output:q} 2> >(tee {log:q} >&2)"


rule leak_costs_figure:
    """IN: leaks by layer, searches over the layers of the high region. OUT: a figure of both."""
    input:
        table="results/tuning/{model}/leaks.csv",
        searches=high_searches,
    output:
        pdf="results/figures/leak-{model}.pdf",
        png="results/figures/leak-{model}.png",
    log:
        "logs/leak_costs_figure/{model}.log",
    benchmark:
        "results/benchmarks/leak_costs_figure/{model}.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        title=placement_title,
        code=stage_code("probe:leak_costs_figure"),
    shell:
        "python -m jeep leak-costs-figure --table {input.table:q} --searches {input.searches:q}"
        " --title {params.title:q} --out {output.pdf:q} 2> >(tee {log:q} >&2)"

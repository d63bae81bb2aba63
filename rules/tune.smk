"""The search for the small models' hyper-parameters, on development facts."""


use rule covariance as tuning_covariance with:
    output:
        "results/tuning/{model}/covariance.safetensors",
    log:
        "logs/tuning_covariance/{model}.log",
    benchmark:
        "results/benchmarks/tuning_covariance/{model}.tsv"
    params:
        options=statistics_options,
        places=tuning_places,
        seed=CONFIG.seeds[0],
        code=code_digest("jeep.stages.prepare:covariance"),


rule search:
    """IN: a model, development facts, prefixes, covariances. OUT: every trial, the chosen one last."""
    input:
        model="results/models/{model}",
        facts=development_facts,
        prefixes=search_prefixes,
        covariance="results/tuning/{model}/covariance.safetensors",
        training=search_training_facts,
    output:
        "results/tuning/{model}/{searched}/{method}.jsonl",
    log:
        "logs/search/{model}/{searched}/{method}.log",
    benchmark:
        "results/benchmarks/search/{model}/{searched}/{method}.tsv"
    wildcard_constraints:
        searched=rf"({alternatives(SEARCHED)})(\+({alternatives(SEARCHED)}))*",
    conda:
        "../envs/jeep.yaml"
    resources:
        gpu=1,
    params:
        options=search_options,
        datasets=searched_sets,
        metrics=search_metrics,
        editor=editor_name,
        settings=search_settings,
        space=search_space,
        protocol=search_protocol,
        training=search_training_option,
        seed=CONFIG.seeds[0],
        code=search_code,
    shell:
        "python -m jeep tune --model {input.model:q} {params.options} --datasets {params.datasets:q}"
        " --facts {input.facts:q} --metrics {params.metrics} --prefixes {input.prefixes:q}"
        " --covariance {input.covariance:q} {params.training} --editor {params.editor} --settings {params.settings:q}"
        " --space {params.space:q} --protocol {params.protocol:q} --seed {params.seed}"
        " --out {output:q} 2> >(tee {log:q} >&2)"


rule search_table:
    """IN: every search. OUT: budget, spread and finalists of each, and the settings that were chosen."""
    input:
        tuning_files(),
    output:
        csv="results/tuning/searches.csv",
        markdown="results/tuning/searches.md",
        settings="results/tuning/settings.yaml",
    log:
        "logs/search_table.log",
    benchmark:
        "results/benchmarks/search_table.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        code=code_digest("jeep.stages.edit:search_table"),
    shell:
        "python -m jeep search-table --searches {input:q} --out {output.csv:q} 2> >(tee {log:q} >&2)"


use rule search as region_search with:
    output:
        "results/tuning/{model}/{searched}/{method}-{setting}.jsonl",
    log:
        "logs/search/{model}/{searched}/{method}-{setting}.log",
    benchmark:
        "results/benchmarks/search/{model}/{searched}/{method}-{setting}.tsv"
    wildcard_constraints:
        setting=r"\w+\.layers",
    params:
        options=search_options,
        datasets=searched_sets,
        metrics=search_metrics,
        editor=editor_name,
        settings=region_settings,
        space=region_space,
        protocol=region_protocol,
        training=search_training_option,
        seed=CONFIG.seeds[0],
        code=search_code,


rule placement_figure:
    """IN: searches over the layers of each region, regions that the probe proposes. OUT: a figure of both."""
    input:
        searches=region_searches,
        regions="results/probe/{model}/regions.json",
    output:
        pdf="results/figures/placement-{model}.pdf",
        png="results/figures/placement-{model}.png",
    log:
        "logs/placement_figure/{model}.log",
    benchmark:
        "results/benchmarks/placement_figure/{model}.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        configured=configured_layers,
        title=placement_title,
        code=code_digest("jeep.stages.probe:placement_figure"),
    shell:
        "python -m jeep placement-figure --searches {input.searches:q} --configured {params.configured:q}"
        " --regions {input.regions:q} --title {params.title:q} --out {output.pdf:q} 2> >(tee {log:q} >&2)"

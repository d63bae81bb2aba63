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
        code=code_digest("jeep.stages.prepare:covariance"),


rule search:
    """IN: a model, development facts, prefixes, covariances. OUT: settings tried, the best Score first."""
    input:
        model="results/models/{model}",
        facts=development_facts,
        prefixes=f"results/prefixes/{{model}}/seed{CONFIG.seeds[0]}.json",
        covariance="results/tuning/{model}/covariance.safetensors",
        training=search_training_facts,
    output:
        "results/tuning/{model}/{dataset}/{method}.json",
    log:
        "logs/search/{model}/{dataset}/{method}.log",
    benchmark:
        "results/benchmarks/search/{model}/{dataset}/{method}.tsv"
    conda:
        "../envs/jeep.yaml"
    resources:
        gpu=1,
    params:
        options=editing_options,
        metrics=dataset_field("metrics"),
        editor=editor_name,
        settings=editor_settings,
        space=tuning_space,
        edits=CONFIG.tuning.edits if CONFIG.tuning else 0,
        training=search_training_option,
        trials=search_trials,
        variants=CONFIG.tuning.variants if CONFIG.tuning else 0,
        seed=CONFIG.seeds[0],
        code=search_code,
    shell:
        "python -m jeep tune --model {input.model:q} {params.options} --facts {input.facts:q}"
        " --metrics {params.metrics} --prefixes {input.prefixes:q} --covariance {input.covariance:q} {params.training}"
        " --edits {params.edits}"
        " --editor {params.editor} --settings {params.settings:q} --space {params.space:q}"
        " --trials {params.trials} --variants {params.variants} --seed {params.seed}"
        " --out {output:q} 2> >(tee {log:q} >&2)"


use rule search as region_search with:
    output:
        "results/tuning/{model}/{dataset}/{method}-{setting}.json",
    log:
        "logs/search/{model}/{dataset}/{method}-{setting}.log",
    benchmark:
        "results/benchmarks/search/{model}/{dataset}/{method}-{setting}.tsv"
    wildcard_constraints:
        setting=r"\w+\.layers",
    params:
        options=editing_options,
        metrics=dataset_field("metrics"),
        editor=editor_name,
        settings=editor_settings,
        space=region_space,
        edits=region_edits,
        training=search_training_option,
        trials=region_trials,
        variants=1,
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

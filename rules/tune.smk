"""The search for the small models' hyper-parameters, on development facts."""

REGION_SEARCHES = CONFIG.tuning.regions if CONFIG.tuning else {}
SEARCHED = CONFIG.tuning.datasets if CONFIG.tuning else {}


def searched_sets(wildcards):
    """The data sets that are searched together: all for a hyper-network, which is trained once, else one."""
    return wildcards.searched.split("+")


def searched_editor(wildcards):
    """The editor of a search over the space; of a search that moves a region, which has none, the configured one."""
    if wildcards.get("setting"):
        return PLAN.editor(wildcards.method, wildcards.model, searched_sets(wildcards)[0])
    return PLAN.first_editor(wildcards.model, wildcards.method, wildcards.searched)


def search_precision(wildcards):
    return searched_editor(wildcards).precision(CONFIG.models[wildcards.model].dtype)


def search_options(wildcards):
    return run_options(wildcards.model, search_precision(wildcards))


def search_prefixes(wildcards):
    return prefix_file(wildcards.model, CONFIG.seeds[0], searched_editor(wildcards))


def search_metrics(wildcards):
    return [CONFIG.datasets[name].metrics for name in searched_sets(wildcards)]


def moved_editor(wildcards):
    """The method whose regions are moved, as it is configured."""
    search = REGION_SEARCHES[wildcards.model]
    return PLAN.editor(search.method, wildcards.model, search.dataset)


def moved_covariance(wildcards):
    """Of every layer that a region is moved to, and of those in use."""
    places = {*PLAN.moved_places(wildcards.model), *moved_editor(wildcards).covariances}
    return covariance_files(wildcards.model, sorted(places))


def search_covariance(wildcards):
    """Of every layer that is tried."""
    if wildcards.get("setting"):
        return moved_covariance(wildcards)
    return covariance_files(
        wildcards.model, PLAN.searched_places(wildcards.model, wildcards.method, wildcards.searched)
    )


def search_training_facts(wildcards):
    """Facts for the method's hyper-network, where it has one."""
    return training_facts(wildcards) if searched_editor(wildcards).trained else []


def search_training_option(wildcards, input):
    return f"{options('training', input.training)} {training_limit(wildcards)}" if input.training else ""


def search_settings(wildcards):
    """What the search space leaves out: nothing that an earlier search of the method chose."""
    return json.dumps(PLAN.search_start(wildcards.model, wildcards.searched, wildcards.method))


def search_space(wildcards):
    return json.dumps(CONFIG.tuning.space[wildcards.model][wildcards.method])


def search_protocol(wildcards):
    return CONFIG.tuning.protocol.model_dump_json()


def development_facts(wildcards):
    return facts_of(wildcards.model, [SEARCHED[name] for name in searched_sets(wildcards)])


def development_neighbours(wildcards):
    sets = [SEARCHED[name] for name in searched_sets(wildcards)]
    return neighbour_files(searched_editor(wildcards), wildcards.model, CONFIG.seeds[0], sets)


def tuning_files():
    """The search of every model, method and data set."""
    return [f"results/tuning/{model}/{sets}/{method}.jsonl" for model, sets, method in PLAN.searched()]


def region_settings(wildcards):
    return searched_editor(wildcards).model_dump_json(exclude_none=True)


def configured_layers(wildcards):
    """Where the method's regions are, by their settings."""
    search = REGION_SEARCHES[wildcards.model]
    settings = moved_editor(wildcards).model_dump()
    return json.dumps({setting: settings[setting.removesuffix(".layers")]["layers"] for setting in search.layers})


def region_space(wildcards):
    """The layers tried for one region, the configured ones among them, and nothing else."""
    configured = json.loads(configured_layers(wildcards))[wildcards.setting]
    others = REGION_SEARCHES[wildcards.model].layers[wildcards.setting]
    return json.dumps({wildcards.setting: [configured, *(layers for layers in others if layers != configured)]})


def region_protocol(wildcards):
    """Every place, in one round."""
    search = REGION_SEARCHES[wildcards.model]
    places = 1 + len(search.layers[wildcards.setting])
    return json.dumps({"facts": search.facts, "draws": places, "variants": places, "finalists": 0})


def region_searches(wildcards):
    search = REGION_SEARCHES[wildcards.model]
    folder = f"results/tuning/{wildcards.model}/{search.dataset}"
    return [f"{folder}/{search.method}-{setting}.jsonl" for setting in search.layers]


def placement_title(wildcards):
    search = REGION_SEARCHES[wildcards.model]
    what = f"{search.facts} development facts of {label_of('datasets', search.dataset)}"
    return f"{label_of('methods', search.method)}, one region moved: {label_of('models', wildcards.model)}, {what}"


def placement_figures():
    return [f"results/figures/placement-{model}.pdf" for model in REGION_SEARCHES]


rule search:
    """IN: a model, development facts, prefixes, covariances. OUT: every trial, the chosen one last."""
    input:
        model="results/models/{model}",
        facts=development_facts,
        prefixes=search_prefixes,
        covariance=search_covariance,
        neighbours=development_neighbours,
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
        gpu=gpus,
        mem_mb=memory(
            DEMANDS.search, editor=searched_editor, places=lambda wildcards: len(search_covariance(wildcards))
        ),
        runtime=runtime(DURATIONS.search, editor=searched_editor),
    params:
        options=search_options,
        datasets=searched_sets,
        metrics=search_metrics,
        editor=editor_name,
        settings=search_settings,
        space=search_space,
        protocol=search_protocol,
        covariance=covariance_option,
        neighbours=neighbours_option,
        training=search_training_option,
        seed=CONFIG.seeds[0],
        code=method_code("edit:search"),
    shell:
        "python -m jeep search --model {input.model:q} {params.options} --datasets {params.datasets:q}"
        " --facts {input.facts:q} --metrics {params.metrics} --prefixes {input.prefixes:q}"
        " {params.covariance} {params.neighbours} {params.training} --editor {params.editor} --settings {params.settings:q}"
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
        code=stage_code("edit:search_table"),
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
        covariance=covariance_option,
        neighbours=neighbours_option,
        training=search_training_option,
        seed=CONFIG.seeds[0],
        code=method_code("edit:search"),


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
        code=stage_code("probe:placement_figure"),
    shell:
        "python -m jeep placement-figure --searches {input.searches:q} --configured {params.configured:q}"
        " --regions {input.regions:q} --title {params.title:q} --out {output.pdf:q} 2> >(tee {log:q} >&2)"

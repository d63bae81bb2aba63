"""The search for hyper-parameters: what the rules of tune.smk read and are told."""

REGION_SEARCHES = CONFIG.tuning.regions if CONFIG.tuning else {}


def search_code(wildcards):
    """Digest of the code of a search, likewise."""
    return code_digest(
        "jeep.stages.edit:tune", f"jeep.editors.{editor_name(wildcards)}"
    )


def search_training_facts(wildcards):
    """Facts for the method's hyper-network, where it has one."""
    return training_facts(wildcards) if editor_of(wildcards).trained else []


def search_training_option(wildcards, input):
    files = option("training", input.training)
    return f"{files} {training_limit(wildcards)}" if files else ""


def tuning_space(wildcards):
    return json.dumps(CONFIG.tuning.space[wildcards.model][wildcards.method])


def tuning_places(wildcards):
    """Every W_O in the search spaces of a model, beside those in use."""
    spaces = [*CONFIG.tuning.space.get(wildcards.model, {}).values()]
    if wildcards.model in REGION_SEARCHES:
        spaces.append(REGION_SEARCHES[wildcards.model].layers)
    places = needed_places(wildcards.model)
    for space in spaces:
        for path, values in space.items():
            if path.split(".")[-1] == "layers":
                places |= {(layer, "mlp") for value in values for layer in value}
            elif path == "layer":
                places |= {(layer, "mlp") for layer in values}
    return place_names(places)


def search_trials(wildcards):
    return CONFIG.trials_of(wildcards.model)


def development_facts(wildcards):
    return f"results/facts/{wildcards.model}/{CONFIG.tuning.datasets[wildcards.dataset]}.jsonl"


def tuning_files():
    if CONFIG.tuning is None:
        return []
    return [
        f"results/tuning/{model}/{dataset}/{method}.json"
        for model in EXPERIMENT.models
        for dataset in CONFIG.tuning.datasets
        for method in CONFIG.tuning.space.get(model, {})
    ]


def region_space(wildcards):
    """The layers tried for one region, and nothing else."""
    layers = REGION_SEARCHES[wildcards.model].layers
    return json.dumps({wildcards.setting: layers[wildcards.setting]})


def region_trials(wildcards):
    """Every place, and the configured one first."""
    return 1 + len(REGION_SEARCHES[wildcards.model].layers[wildcards.setting])


def region_edits(wildcards):
    return REGION_SEARCHES[wildcards.model].edits


def region_searches(wildcards):
    search = REGION_SEARCHES[wildcards.model]
    return [
        f"results/tuning/{wildcards.model}/{search.dataset}/{search.method}-{setting}.json"
        for setting in search.layers
    ]


def configured_layers(wildcards):
    """Where the method's regions are, by their settings."""
    search = REGION_SEARCHES[wildcards.model]
    settings = editor(search.method, wildcards.model, search.dataset).model_dump()
    regions = {
        setting: settings[setting.removesuffix(".layers")]["layers"]
        for setting in search.layers
    }
    return json.dumps(regions)


def placement_title(wildcards):
    search = REGION_SEARCHES[wildcards.model]
    return (
        f"{label_of('methods', search.method)}, one region moved: {label_of('models', wildcards.model)}, "
        f"{search.edits} development facts of {label_of('datasets', search.dataset)}"
    )


def placement_figures():
    return [f"results/figures/placement-{model}.pdf" for model in REGION_SEARCHES]

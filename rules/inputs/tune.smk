"""The search for hyper-parameters: what the rules of tune.smk read and are told."""


def search_code(wildcards):
    """Digest of the code of a search, likewise."""
    return code_digest("jeep.stages:tune", f"jeep.editors.{editor_name(wildcards)}")


def search_training_facts(wildcards):
    """Facts for the method's hyper-network, where it has one."""
    return training_facts(wildcards) if editor_of(wildcards).trained else []


def search_training_option(wildcards, input):
    files = option("training", input.training)
    return f"{files} {training_limit(wildcards)}" if files else ""


def tuning_space(wildcards):
    return json.dumps(CONFIG.tuning.space[wildcards.model][wildcards.method])


def tuning_places(wildcards):
    """Every W_O in the search space of a model, beside those in use."""
    places = needed_places(wildcards.model)
    for space in CONFIG.tuning.space[wildcards.model].values():
        for path, values in space.items():
            if path.split(".")[-1] == "layers":
                places |= {(layer, "mlp") for value in values for layer in value}
    return place_names(places)


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

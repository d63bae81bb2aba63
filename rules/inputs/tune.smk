"""The search for hyper-parameters: what the rules of tune.smk read and are told."""

REGION_SEARCHES = CONFIG.tuning.regions if CONFIG.tuning else {}
SEARCHED = CONFIG.tuning.datasets if CONFIG.tuning else {}


def searched_sets(wildcards):
    """The data sets that are searched together: all for a hyper-network, which is trained once, else one."""
    return wildcards.searched.split("+")


@cache
def first_editor(method, model):
    """The editor with the first value of everything that is searched: nothing need be configured before."""
    space = CONFIG.tuning.space[model][method]
    first = {path: values[0] for path, values in space.items()}
    settings = with_values(CONFIG.general_settings(method), first)
    return load_editor(CONFIG.editor_name(method), settings)


def searched_editor(wildcards):
    """The editor of a search over the space; of a search that moves a region, which has none, the configured one."""
    if wildcards.get("setting"):
        return editor(wildcards.method, wildcards.model, searched_sets(wildcards)[0])
    return first_editor(wildcards.method, wildcards.model)


def search_options(wildcards):
    precision = searched_editor(wildcards).precision(
        CONFIG.models[wildcards.model].dtype
    )
    return run_options(wildcards.model, precision)


def search_code(wildcards):
    """Digest of the code of a search: the stage's and the method's own file."""
    return code_digest(
        "jeep.stages.edit:tune", f"jeep.editors.{editor_name(wildcards)}"
    )


def search_prefixes(wildcards):
    kinds = "-".join(searched_editor(wildcards).prefixes)
    return f"results/prefixes/{wildcards.model}/seed{CONFIG.seeds[0]}/{kinds}.json"


def search_metrics(wildcards):
    return [CONFIG.datasets[name].metrics for name in searched_sets(wildcards)]


def search_training_facts(wildcards):
    """Facts for the method's hyper-network, where it has one."""
    return training_facts(wildcards) if searched_editor(wildcards).trained else []


def search_training_option(wildcards, input):
    files = option("training", input.training)
    return f"{files} {training_limit(wildcards)}" if files else ""


def search_settings(wildcards):
    """What the search space leaves out: the method's general settings, none that an earlier search chose."""
    return json.dumps(CONFIG.general_settings(wildcards.method))


def search_space(wildcards):
    return json.dumps(CONFIG.tuning.space[wildcards.model][wildcards.method])


def search_protocol(wildcards):
    return CONFIG.tuning.protocol.model_dump_json()


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


def development_facts(wildcards):
    return [
        f"results/facts/{wildcards.model}/{SEARCHED[name]}.jsonl"
        for name in searched_sets(wildcards)
    ]


def tuning_files():
    """The search of every model, method and data set."""
    if CONFIG.tuning is None:
        return []
    return [
        f"results/tuning/{model}/{sets}/{method}.jsonl"
        for model in EXPERIMENT.models
        for method in CONFIG.tuning.space.get(model, {})
        for sets in (
            ["+".join(SEARCHED)] if first_editor(method, model).trained else SEARCHED
        )
    ]


def region_settings(wildcards):
    return searched_editor(wildcards).model_dump_json(exclude_none=True)


def region_space(wildcards):
    """The layers tried for one region, the configured ones among them, and nothing else."""
    configured = json.loads(configured_layers(wildcards))[wildcards.setting]
    others = REGION_SEARCHES[wildcards.model].layers[wildcards.setting]
    places = [configured, *(layers for layers in others if layers != configured)]
    return json.dumps({wildcards.setting: places})


def region_protocol(wildcards):
    """Every place, in one round."""
    search = REGION_SEARCHES[wildcards.model]
    places = 1 + len(search.layers[wildcards.setting])
    return json.dumps(
        {
            "facts": search.facts,
            "draws": places,
            "variants": places,
            "finalists": 0,
        }
    )


def region_searches(wildcards):
    search = REGION_SEARCHES[wildcards.model]
    return [
        f"results/tuning/{wildcards.model}/{search.dataset}/{search.method}-{setting}.jsonl"
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
        f"{search.facts} development facts of {label_of('datasets', search.dataset)}"
    )


def placement_figures():
    return [f"results/figures/placement-{model}.pdf" for model in REGION_SEARCHES]

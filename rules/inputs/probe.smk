"""The probes: what the rules of probe.smk read and are told."""

PROBE = CONFIG.probe


def probe_facts(wildcards):
    return f"results/facts/{wildcards.model}/{PROBE.dataset}.jsonl"


def probe_field(name):
    return getattr(PROBE, name) if PROBE else ""


def retrieval_field(name):
    return getattr(PROBE.retrieval, name) if PROBE else ""


norm_option = "" if PROBE and PROBE.norm else "--no-norm"
candidates = PROBE.fact_lists.candidates if PROBE else 0


def search_index(wildcards):
    return f"results/search/{PROBE.retrieval.backend}"


def knowledge_base(wildcards):
    """The folder with the demo's triples, where factual words come from there."""
    return "results/demo" if PROBE.fact_lists.source.kind == "knowledge-base" else []


def triples_option(wildcards, input):
    return f"--triples {input.demo}/triples.jsonl" if input.demo else ""


def fact_source(wildcards):
    return source_json(PROBE.fact_lists.source)


def label_of(kind, name):
    return getattr(CONFIG, kind)[name].label or name


def probe_title(wildcards):
    lens = "logit lens with" if PROBE.norm else "logit lens without"
    return f"{label_of('models', wildcards.model)}, {PROBE.prompts} prompts of {label_of('datasets', PROBE.dataset)}, {lens} final norm"


def prompt_title(wildcards):
    return f"{label_of('models', wildcards.model)}, fact {PROBE.example} of {label_of('datasets', PROBE.dataset)}"


def words_title(wildcards):
    source = PROBE.fact_lists.source
    lists = "a knowledge base" if source.kind == "knowledge-base" else source.model
    return f"{probe_title(wildcards)}; factual words from {lists}"


def edited_regions(wildcards):
    """The layers that the experiment's methods edit on a model, by method and data set."""
    layers = {
        f"{method}/{dataset}": sorted(
            {layer for layer, _ in editor(method, model, dataset).covariances}
        )
        for model, dataset, method in cells()
        if model == wildcards.model
        and method in EXPERIMENT.methods
        and method != UNEDITED
    }
    return json.dumps({name: found for name, found in layers.items() if found})


def probe_figures():
    """The probes' figures, without their extensions."""
    return [
        f"results/figures/{figure}-{model}"
        for figure in ("figure1", "figure2", "contributions", "figure5")
        for model in (PROBE.models if PROBE else [])
    ]

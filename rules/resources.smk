"""What jobs ask of a cluster: memory and minutes, more on each attempt. On one machine only `gpu` is limited by default."""

from jeep.config import needs

PASS_OVER_TEXT, LONG, SHORT = 1440, 480, 120
"""Minutes on a first attempt."""


def minutes(count):
    """A resources function: so many minutes, twice as many on a second attempt."""

    def runtime(wildcards, attempt):
        return count * attempt

    return runtime


def model_precision(wildcards):
    return CONFIG.models[wildcards.model].dtype


def method_precision(wildcards):
    return PLAN.precision(wildcards.model, wildcards.dataset, wildcards.method)


def training_precision(wildcards):
    """Of a job that trains a hyper-network, for all data sets."""
    return PLAN.trained_editor(wildcards.model, wildcards.method).precision(model_precision(wildcards))


def text_precision(model):
    """Of a pass for covariances."""
    return CONFIG.statistics_of(model).dtype or CONFIG.models[model].dtype


def memory(precision, *more):
    """A resources function: the model that is the job's input, a batch, and what else it holds.

    `precision`: a name, or what returns it for the job's wildcards. Each of `more` is asked with it.
    """

    def mem_mb(wildcards, input, attempt):
        os.stat(input.model)  # while it is not there, Snakemake asks again later
        dtype = precision(wildcards) if callable(precision) else precision
        weights = needs.weights(Path(input.model), dtype)
        return needs.total([weights * (1 + needs.BATCH), *(part(wildcards, input, dtype) for part in more)], attempt)

    return mem_mb


def sums(places):
    """What a pass for covariances holds of so many W_O."""

    def part(wildcards, input, dtype):
        return needs.covariances(Path(input.model), places(wildcards) if callable(places) else places)

    return part


def writing(wildcards, input, dtype):
    """What a closed form holds, with the keys of all facts."""
    editor = editor_of(wildcards)
    if not getattr(editor, "placements", ()):
        return 0
    prompts = 1 + sum(texts for texts, _ in editor.prefix_kinds)
    return needs.closed_form(Path(input.model), max(edit_counts(wildcards)), prompts)


def training(wildcards, input, dtype):
    """Gradients and moments of what is trained: a block, or a hyper-network, and a batch that keeps every state."""
    return needs.weights(Path(input.model), dtype)


localrules:
    fetch_file,
    fetch_model,
    fetch_dataset,
    corpus,
    facts,
    neighbours,
    demo_facts,
    fact_lists,
    regions,
    collect,
    table,
    series,
    costs,
    comparison,
    claims,
    large_claims,
    series_figure,
    training_figure,
    procedure_figure,
    record_figure,
    prompt_figure,
    contrast_figure,
    contributions_figure,
    words_figure,
    search_table,
    placement_figure,
    leak_figure,
    leak_costs_figure,
    tradeoff,
    tradeoff_figure,
    report,

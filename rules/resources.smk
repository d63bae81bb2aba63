"""What jobs ask of a cluster, more on each attempt: jeep/config/demands.py says it. On one machine only `gpu` is limited."""

from jeep.config import needs
from jeep.config.demands import Demands, minutes

DEMANDS = Demands(PLAN)


def runtime(rule):
    """A resources function: the minutes of a rule's jobs."""

    def asked(wildcards, attempt):
        return minutes(rule, attempt)

    return asked


def memory(demand, **given):
    """A resources function: what `demand` says of the model that is the job's input.

    It is told the job's wildcards by their names; `given`: what else it is told, or functions that say it.
    """
    names = [name for name in signature(demand).parameters if name not in {"sizes", *given}]

    def mem_mb(wildcards, input, attempt):
        os.stat(input.model)  # while it is not there, Snakemake asks again later
        sizes = needs.Sizes.of(Path(input.model))
        told = {name: value(wildcards) if callable(value) else value for name, value in given.items()}
        return needs.total(demand(sizes, **{name: wildcards[name] for name in names}, **told), attempt)

    return mem_mb


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
    long_sequence_claims,
    damage_table,
    damage_figure,
    sequence_table,
    sequence_figure,
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

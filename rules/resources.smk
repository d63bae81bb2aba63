"""What jobs ask of a cluster, more on each attempt: jeep/config/demands.py and durations.py say it. On one machine only `gpu` is limited."""

from jeep.config import durations, needs
from jeep.config.demands import Demands
from jeep.config.durations import Durations

DEMANDS, DURATIONS = Demands(PLAN), Durations(PLAN)


def of_model(measure, **given):
    """A function of a job that asks `measure`, of DEMANDS or DURATIONS, of the model that is the job's input.

    It is told the job's wildcards by their names; `given`: what else it is told, or functions that say it.
    """
    names = [name for name in signature(measure).parameters if name not in {"sizes", *given}]

    def measured(wildcards, input):
        os.stat(input.model)  # while it is not there, Snakemake asks again later
        sizes = needs.Sizes.of(Path(input.model))
        told = {name: value(wildcards) if callable(value) else value for name, value in given.items()}
        return measure(sizes, **{name: wildcards[name] for name in names}, **told)

    return measured


def memory(demand, **given):
    """A resources function: megabytes."""
    held = of_model(demand, **given)

    def mem_mb(wildcards, input, attempt):
        return needs.total(held(wildcards, input), attempt)

    return mem_mb


def runtime(work=None, least=durations.START, **given):
    """A resources function: minutes, of a job that runs no model for long where no work is given."""
    operations = of_model(work, **given) if work else lambda wildcards, input: 0.0

    def asked(wildcards, input, attempt):
        return durations.minutes(operations(wildcards, input), attempt, least)

    return asked


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

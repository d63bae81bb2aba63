"""The stages about what else an edit changes.

They import what they need inside, so that their code digests cover their own modules and no others.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from jeep.common.settings import Amounts
from jeep.stages.options import (
    Checkpoint,
    Datasets,
    Facts,
    Figure,
    Files,
    Json,
    JsonList,
    Labels,
    Measure,
    Methods,
    Models,
    Out,
    Records,
    RunColumns,
    SampleOptions,
    Seed,
    Words,
    Written,
)


def damage(
    *,
    checkpoint: Checkpoint,
    facts: Facts,
    metrics: Measure,
    topics: Path | None = None,
    references: Path | None = None,
    chains: Path | None = None,
    task: Words = (),
    sample: SampleOptions,
    amounts: Json,
    runs: JsonList,
    deltas: Files,
    run_columns: RunColumns = None,
    texts: Written,
    out: Out,
) -> None:
    """Ask a model the same questions without any edit and with each; runs that are in the file already are kept.

    Args:
        topics: what is written about the facts' subjects
        references: texts that this is compared with
        chains: questions that follow from edits
        task: NAME=FILE of multiple-choice questions
        amounts: how much of each is asked, as JSON
        runs: for each run its method, dtype and numbers of edits, as JSON
        deltas: each run's folder of changes
        texts: where it is kept what the edited models wrote
    """
    from jeep.common.provenance import code_digest
    from jeep.data.chains import read_chains
    from jeep.data.choices import read_choices
    from jeep.data.facts import load_facts
    from jeep.data.topics import read_references, read_topics
    from jeep.measure.damage import Damage, Questions
    from jeep.measure.drift import held_out_windows
    from jeep.runs.damage import DamageRun

    most = max(count for run in runs for count in run["edits"])
    edited, asked = load_facts(facts)[:most], Amounts.model_validate(amounts)
    questions = Questions(
        facts=edited,
        metrics=metrics,
        topics=read_topics(topics) if topics else (),
        references=read_references(references) if references else {},
        tasks={name: read_choices(path) for name, _, path in (each.partition("=") for each in task)},
        chains=read_chains(chains) if chains else (),
        seed=sample.seed,
    ).about(edited)
    questions = questions.first(asked.facts, asked.texts, asked.questions, asked.chains)
    code = code_digest("jeep.stages.damage:damage")
    job = DamageRun(edited, run_columns or {}, code, out, texts)
    for model, chosen in checkpoint.by_precision(list(zip(runs, deltas, strict=True)), [run["dtype"] for run in runs]):
        whole = replace(questions, windows=held_out_windows(model, sample, asked.tokens, asked.window))
        budget = checkpoint.token_budget
        job.ask(model, partial(Damage, model, whole, budget), (whole, budget), chosen)
    job.finish([run["method"] for run in runs])


def abilities(
    *,
    checkpoint: Checkpoint,
    facts: Facts,
    asked: Json,
    runs: JsonList,
    deltas: Files,
    run_columns: RunColumns = None,
    out: Out,
) -> None:
    """Ask a model the tasks of lm-evaluation-harness without any edit and with each, in memory.

    Args:
        asked: tasks and how they are asked, as JSON
        runs: for each run its method, dtype and number of edits, as JSON
        deltas: each run's folder of changes
    """
    from jeep.common.provenance import code_digest
    from jeep.common.settings import HarnessTasks
    from jeep.data.facts import load_facts
    from jeep.measure.harness import Harness, content_of
    from jeep.runs.damage import DamageRun

    tasks, code = HarnessTasks.model_validate(asked), code_digest("jeep.stages.damage:abilities")
    job = DamageRun(load_facts(facts), run_columns or {}, code, out)
    for model, chosen in checkpoint.by_precision(list(zip(runs, deltas, strict=True)), [run["dtype"] for run in runs]):
        job.ask(model, partial(Harness, model, tasks), content_of(tasks), chosen)
    job.finish([run["method"] for run in runs])


def damage_table(
    *,
    damage: Files,
    records: Records,
    models: Models,
    datasets: Datasets,
    methods: Methods,
    labels: Labels,
    about: str,
    seed: Seed = 0,
    out: Out,
) -> None:
    """Tabulate what else edits change, as differences to the unedited model: CSV and Markdown.

    Args:
        damage: results of the stage `damage`
        about: how much was asked, in words
    """
    from jeep.report.damage import write_damage

    write_damage(damage, records, {"model": models, "dataset": datasets, "method": methods}, labels, about, seed, out)


def damage_figure(*, table: Path, labels: Labels, out: Figure) -> None:
    """Draw Score against damage: a point with its bars for each method, a line over its numbers of edits.

    Args:
        table: the CSV file of the stage `damage-table`
    """
    from jeep.report.figures.damage import draw_damage

    draw_damage(table, labels, out)

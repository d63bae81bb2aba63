"""Stages that draw figures of results files; the probes' are in `probe`.

Each is a thin function from files to files. It imports what it needs inside, so that its code digest covers its own
modules and no others, and the command line starts at once.
"""

from pathlib import Path

from jeep.stages.options import Facts, Figure, Files, JsonList, Labels, Title, Words


def series_figure(*, table: Path, axis: str, labels: Labels, out: Figure) -> None:
    """Draw the metrics over the number of edits or over a setting: PDF, and PNG beside it.

    Args:
        table: the CSV file of the stage `series`
        axis: edits, or the setting that varies
    """
    from jeep.report.figures.series import draw_series

    draw_series(table, axis, labels, out)


def sequence_figure(*, table: Path, labels: Labels, out: Figure) -> None:
    """Draw the metrics over the batches of a sequence: PDF, and PNG beside it.

    Args:
        table: the CSV file of the stage `sequence-table`
    """
    from jeep.report.figures.sequence import draw_sequence

    draw_sequence(table, labels, out)


def training_figure(*, networks: Files, titles: Words, out: Figure) -> None:
    """Draw the losses of hyper-networks in training: PDF, and PNG beside it.

    Args:
        networks: trained hyper-networks
        titles: a title for each
    """
    from jeep.report.figures.training import draw_training

    draw_training(dict(zip(titles, networks, strict=True)), out)


def procedure_figure(*, deltas: Path, model: Path, facts: Facts, title: Title, out: Figure) -> None:
    """Draw Figure 3: the procedure, from a real edit.

    Args:
        deltas: an edit of JEEP
        model: its model's checkpoint folder
    """
    from jeep.data.facts import load_facts
    from jeep.model.tokens import load_tokenizer, locate
    from jeep.report.figures.procedure import draw_procedure

    tokenizer = load_tokenizer(model)
    prompt = locate(tokenizer, load_facts(facts)[0])
    tokens = [tokenizer.decode([token]) for token in prompt.ids]
    places = {"tokens": tokens, "subject_last": prompt.subject_last, "prediction": prompt.prediction}
    draw_procedure(deltas, places, title, out)


def record_figure(*, facts: Facts, title: Title, out: Figure) -> None:
    """Draw Figure 7 or 8: an example record of a data set."""
    from jeep.data.facts import load_facts
    from jeep.report.figures.records import draw_record

    draw_record(load_facts(facts)[0], title, out)


def leak_figure(*, deltas: Files, runs: JsonList, labels: Labels, out: Figure) -> None:
    """Draw how much of each layer's update reaches neighbours.

    Args:
        deltas: edits, with their traces
        runs: model, data set and method of each, as JSON
    """
    from jeep.report.figures.leaks import draw_leaks

    draw_leaks({tuple(run): path for run, path in zip(runs, deltas, strict=True)}, labels, out)


def tradeoff_figure(*, table: Path, labels: Labels, out: Figure) -> None:
    """Draw locality over efficacy along the settings.

    Args:
        table: the CSV file of the stage `tradeoff`
    """
    from jeep.report.figures.tradeoff import draw_tradeoff

    draw_tradeoff(table, labels, out)

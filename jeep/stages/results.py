"""Stages that make tables, figures and the report of results files.

Each is a thin function from files to files, with the options of its command. It imports what it needs inside, so that
its code digest covers its own modules and no others.
"""

import argparse
import json

from jeep.stages.options import (
    BENCHMARKS,
    COUNT,
    CSV,
    DATASETS,
    FACTS,
    FIGURE,
    LABELS,
    METHODS,
    MODELS,
    NAMES,
    RECORDS,
    REPORTED,
    SEED,
    TITLE,
    stage,
)


@stage(
    records=RECORDS,
    artifact={"type": str, "help": "table2, table3 or table4"},
    models={"type": str, "nargs": "+", "help": "models in the table"},
    datasets={"type": str, "nargs": "+", "help": "data sets in the table"},
    methods=METHODS,
    labels=LABELS,
    edits=COUNT,
    out={"help": "the CSV file; .md, .tex and .html are put beside it"},
)
def tables(args: argparse.Namespace) -> None:
    """Make a table of the paper from per-record results: CSV, Markdown, LaTeX and HTML."""
    from jeep.report.tables import write_table

    shown = {"model": args.models, "dataset": args.datasets, "method": args.methods}
    write_table(args.records, args.artifact, shown, args.labels, args.edits, args.out)


@stage(
    records=RECORDS,
    models=MODELS,
    datasets=DATASETS,
    methods=METHODS,
    variants={"type": json.loads, "default": None, "help": "values of a method's variants, as JSON"},
    labels=LABELS,
    edits={"type": int, "help": "number of edits of the variants"},
    out={"help": "the CSV file; .md is put beside it"},
)
def series(args: argparse.Namespace) -> None:
    """Tabulate the metrics of methods over the number of edits, or of variants of one over a setting."""
    from jeep.report.tables import write_series

    shown = {"model": args.models, "dataset": args.datasets, "method": args.methods}
    write_series(args.records, shown, args.labels, args.edits, args.out, args.variants)


@stage(
    table={"help": "the CSV file of the stage `series`"},
    axis={"type": str, "help": "edits, or the setting that varies"},
    labels=LABELS,
    out=FIGURE,
)
def series_figure(args: argparse.Namespace) -> None:
    """Draw the metrics over the number of edits or over a setting: PDF, and PNG beside it."""
    from jeep.report.figures.series import draw_series

    draw_series(args.table, args.axis, args.labels, args.out)


@stage(
    checkpoint=True,
    facts=FACTS,
    records={"nargs": "+", "help": "per-record results of every method"},
    methods={"type": str, "nargs": "+", "help": "these methods"},
    deltas={"nargs": "+", "help": "their edits"},
    edits=COUNT,
    case_id={"type": str, "default": None, "help": "record to show (default: by the rule)"},
    labels=LABELS,
    title={"type": str, "help": "model and data set"},
    out=CSV,
)
def case_study(args: argparse.Namespace) -> None:
    """Generate what edited models answer for one record (Table 1); the record is named, or chosen by a rule."""
    import pandas as pd

    from jeep.common.errors import UserError
    from jeep.data.facts import load_facts
    from jeep.model.editable import load_model
    from jeep.report.case_study import choose, study, write_study

    facts = load_facts(args.facts)[: args.edits]
    if args.case_id:
        fact = next((fact for fact in facts if fact.case_id == args.case_id), None)
        if fact is None:
            raise UserError(f"{args.facts}: no record {args.case_id} among the first {args.edits}")
    else:
        results = pd.concat(map(pd.read_parquet, args.records))
        fact = choose(results[results["edits"] == args.edits], facts)
    model = load_model(args.model, args.dtype, args.device)
    table = study(model, fact, dict(zip(args.methods, args.deltas, strict=True)))
    write_study(table, fact.case_id, args.labels, args.title, args.out)


@stage(tables={"nargs": "+", "help": "our tables"}, reported=REPORTED, names=NAMES, out=CSV)
def comparison(args: argparse.Namespace) -> None:
    """Put the paper's reported numbers beside ours."""
    from jeep.report.comparison import write_comparison

    write_comparison(args.tables, args.reported, args.names, args.out)


@stage(
    records=RECORDS,
    edits={"type": int, "default": None, "help": "number of edits (default: the largest of each data set)"},
    grids={"type": json.loads, "help": "what tables 2-4 and Figures 4 and 6 compare, as JSON"},
    sweep={"type": json.loads, "default": {}, "help": "values of the sweep's methods, as JSON"},
    models={"type": str, "nargs": "*", "default": (), "help": "models that were probed"},
    contrasts={"nargs": "*", "default": (), "help": "results of `probe-contrast` of each"},
    words={"nargs": "*", "default": (), "help": "results of `probe-words` of each"},
    seed=SEED,
    out=CSV,
)
def claims(args: argparse.Namespace) -> None:
    """Test the paper's claims on the results."""
    from jeep.report.claims import find_claims, write_claims

    contrasts, words = (dict(zip(args.models, files, strict=True)) for files in (args.contrasts, args.words))
    found = find_claims(args.records, args.edits, args.grids, args.sweep, contrasts, words, args.seed)
    write_claims(found, args.out)


@stage(
    benchmarks=BENCHMARKS,
    jobs={"type": json.loads, "help": "for each [data set, model, method, seed, kind], as JSON"},
    edits=COUNT,
    reported=REPORTED,
    names=NAMES,
    labels=LABELS,
    out=CSV,
)
def costs(args: argparse.Namespace) -> None:
    """Tabulate seconds per edit and peak memory from the jobs' benchmark files."""
    from jeep.report.costs import write_costs

    write_costs(args.jobs, args.benchmarks, args.edits, args.reported, args.names, args.labels, args.out)


@stage(
    networks={"nargs": "+", "help": "trained hyper-networks"},
    titles={"type": str, "nargs": "+", "help": "a title for each"},
    out=FIGURE,
)
def training_figure(args: argparse.Namespace) -> None:
    """Draw the losses of hyper-networks in training: PDF, and PNG beside it."""
    from jeep.report.figures.training import draw_training

    draw_training(dict(zip(args.titles, args.networks, strict=True)), args.out)


@stage(
    deltas={"help": "an edit of JEEP"},
    model={"help": "its model's checkpoint folder"},
    facts=FACTS,
    title=TITLE,
    out=FIGURE,
)
def procedure_figure(args: argparse.Namespace) -> None:
    """Draw Figure 3: the procedure, from a real edit."""
    from jeep.data.facts import load_facts
    from jeep.model.tokens import load_tokenizer, locate
    from jeep.report.figures.procedure import draw_procedure

    tokenizer = load_tokenizer(args.model)
    prompt = locate(tokenizer, load_facts(args.facts)[0])
    tokens = [tokenizer.decode([token]) for token in prompt.ids]
    places = {"tokens": tokens, "subject_last": prompt.subject_last, "prediction": prompt.prediction}
    draw_procedure(args.deltas, places, args.title, args.out)


@stage(facts=FACTS, title=TITLE, out=FIGURE)
def record_figure(args: argparse.Namespace) -> None:
    """Draw Figure 7 or 8: an example record of a data set."""
    from jeep.data.facts import load_facts
    from jeep.report.figures.records import draw_record

    draw_record(load_facts(args.facts)[0], args.title, args.out)


@stage(
    about={"type": json.loads, "help": "what was run, as JSON"},
    facts={"nargs": "+", "help": "files of edited facts, for their digests"},
    tables={"nargs": "+", "help": "Markdown tables"},
    figures={"nargs": "+", "help": "PNG figures"},
    claims={"help": "results of the stage `claims`"},
    out={"help": "the Markdown file"},
)
def report(args: argparse.Namespace) -> None:
    """Write REPORT.md: what was run, the main tables, the figures, and which claims hold."""
    from jeep.report.document import write_report

    write_report(args.about, args.facts, args.tables, args.figures, args.claims, args.out)

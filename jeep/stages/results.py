"""Stages that make tables, claims and the report of results files.

Each is a thin function from files to files. It imports what it needs inside, so that its code digest covers its own
modules and no others, and the command line starts at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jeep.stages.options import (
    Checkpoint,
    Csv,
    Datasets,
    Edits,
    Facts,
    Files,
    Json,
    JsonList,
    Labels,
    Methods,
    Models,
    Names,
    Out,
    Records,
    Reported,
    Seed,
    Title,
    Words,
    Written,
)

if TYPE_CHECKING:
    import pandas as pd


REPORTED = Path("config/reported.csv")


def table(
    *,
    records: Records,
    artifact: str,
    models: Models,
    datasets: Datasets,
    methods: Methods,
    labels: Labels,
    edits: Edits,
    out: Csv,
) -> None:
    """Make a table of the paper from per-record results: CSV, Markdown, LaTeX and HTML.

    Args:
        artifact: table2, table3 or table4
    """
    from jeep.report.tables import write_table

    shown = {"model": models, "dataset": datasets, "method": methods}
    write_table(records, artifact, shown, labels, edits, out)


def series(
    *,
    records: Records,
    models: Models,
    datasets: Datasets,
    methods: Methods,
    variants: Json | None = None,
    labels: Labels,
    edits: Edits,
    out: Csv,
) -> None:
    """Tabulate the metrics of methods over the number of edits, or of variants of one over a setting.

    Args:
        variants: values of a method's variants, as JSON
        edits: number of edits of the variants
    """
    from jeep.report.tables import write_series

    shown = {"model": models, "dataset": datasets, "method": methods}
    write_series(records, shown, labels, edits, out, variants)


def sequence_table(
    *, records: Records, traces: Files, models: Models, datasets: Datasets, methods: Methods, labels: Labels, out: Csv
) -> None:
    """Tabulate the metrics of a sequence of edits behind every measured batch, and what is left of the first one.

    Args:
        traces: what each batch did, as the stage `sequence` wrote it
    """
    from jeep.report.sequences import write_sequence

    write_sequence(records, traces, {"model": models, "dataset": datasets, "method": methods}, labels, out)


def tradeoff(
    *,
    records: Records,
    models: Models,
    datasets: Datasets,
    methods: Methods,
    curves: Json,
    edits: Edits,
    out: Out,
) -> None:
    """Tabulate the metrics of methods along a setting of each.

    Args:
        curves: for each curve the value of the setting by method, as JSON
    """
    from jeep.common.storage import atomic
    from jeep.report.figures.tradeoff import tradeoff_table

    shown = {"model": models, "dataset": datasets, "method": methods}
    table = tradeoff_table(records, shown, curves, edits)
    with atomic(out) as temporary:
        table.to_csv(temporary, index=False)


def _in_order(parts: Sequence[pd.DataFrame], methods: Sequence[str]) -> pd.DataFrame:
    """The rows of several tables, by method."""
    import pandas as pd

    return pd.concat(parts).sort_values("method", key=lambda names: names.map(list(methods).index), kind="stable")


def case_study(
    *,
    checkpoint: Checkpoint,
    facts: Facts,
    records: Records,
    methods: Methods,
    precisions: Words,
    deltas: Files,
    edits: Edits,
    case_id: str | None = None,
    labels: Labels,
    title: Title,
    out: Csv,
) -> None:
    """Generate what edited models answer for one record (Table 1); the record is named, or chosen by a rule.

    Args:
        precisions: what each method's model runs in
        deltas: the methods' edits
        case_id: record to show (default: by the rule)
    """
    import pandas as pd

    from jeep.common.errors import UserError
    from jeep.data.facts import load_facts
    from jeep.report.case_study import choose, study, write_study

    edited = load_facts(facts)[:edits]
    if case_id:
        fact = next((fact for fact in edited if fact.case_id == case_id), None)
        if fact is None:
            raise UserError(f"{facts}: no record {case_id} among the first {edits}")
    else:
        results = pd.concat(map(pd.read_parquet, records))
        fact = choose(results[results["edits"] == edits], edited)
    paths = dict(zip(methods, deltas, strict=True))
    tables = [
        study(model, fact, {name: paths[name] for name in names})
        for model, names in checkpoint.by_precision(methods, precisions)
    ]
    write_study(_in_order(tables, methods), fact.case_id, labels, title, out)


def quick_look(
    *,
    checkpoint: Checkpoint,
    facts: Facts,
    records: Records,
    models: Models,
    datasets: Datasets,
    methods: Methods,
    precisions: Words,
    deltas: Files,
    answers: int,
    labels: Labels,
    edits: Edits,
    out: Csv,
) -> None:
    """Tabulate a few methods, with some answers in words: a first table.

    Args:
        methods: none for the unedited model
        precisions: what each method's model runs in
        deltas: the edits of the others
        answers: the models' answers to the first N facts in words
    """
    from jeep.common.settings import UNEDITED
    from jeep.data.facts import load_facts
    from jeep.report.quick import look, write_quick

    paths = iter(deltas)
    edited = {method: None if method == UNEDITED else next(paths) for method in methods}
    asked = load_facts(facts)[:edits][:answers]
    texts = [
        look(model, asked, {name: edited[name] for name in names})
        for model, names in checkpoint.by_precision(methods, precisions)
    ]
    shown = {"model": models, "dataset": datasets, "method": methods}
    write_quick(records, shown, _in_order(texts, methods), labels, edits, out)


def comparison(*, tables: Files, reported: Reported = REPORTED, names: Names, out: Csv) -> None:
    """Put the paper's reported numbers beside ours.

    Args:
        tables: our tables
    """
    from jeep.report.comparison import write_comparison

    write_comparison(tables, reported, names, out)


def claims(
    *,
    records: Records,
    edits: int | None = None,
    grids: Json,
    roles: Json,
    sweep: Json | None = None,
    models: Words = (),
    contrasts: Files = (),
    words: Files = (),
    sequence: Files = (),
    damage: Files = (),
    seed: Seed = 0,
    out: Csv,
) -> None:
    """Test the paper's claims on the results, and those about other methods.

    Args:
        edits: number of edits (default: the largest of each data set)
        grids: what tables 2-4, Figures 4 and 6 and the sequence compare, as JSON
        roles: the methods that the claims are about, as JSON
        sweep: values of the sweep's methods, as JSON
        models: models that were probed
        contrasts: results of the stage `probe-contrast` of each
        words: results of the stage `probe-words` of each
        sequence: per-record results of edits in sequence
        damage: results of the stage `damage`
    """
    from jeep.report.claims import find_claims, write_claims

    probed = [dict(zip(models, files, strict=True)) for files in (contrasts, words)]
    write_claims(find_claims(records, edits, grids, roles, sweep or {}, *probed, seed, sequence, damage), out)


def costs(
    *,
    benchmarks: Files,
    kept: Files = (),
    took: Files = (),
    jobs: JsonList,
    edits: Edits,
    reported: Reported = REPORTED,
    names: Names,
    labels: Labels,
    out: Csv,
) -> None:
    """Tabulate seconds per edit and peak memory from the jobs' benchmark files.

    Args:
        benchmarks: benchmark files
        kept: seconds of target vectors, of the jobs that optimised some
        took: seconds of loading and of each edit, of the jobs that edited
        jobs: for each [data set, model, method, seed, kind], as JSON
    """
    from jeep.report.costs import write_costs

    write_costs(jobs, benchmarks, kept, took, edits, reported, names, labels, out)


def report(
    *,
    about: Json,
    facts: Files,
    tables: Files,
    figures: Files,
    claims: Path,
    template: Path | None = None,
    out: Written,
) -> None:
    """Write REPORT.md: what was run, the main tables, the figures, and which claims hold.

    Args:
        about: what was run, as JSON
        facts: files of edited facts, for their digests
        tables: Markdown tables
        figures: PNG figures
        claims: results of the stage `claims`
        template: how it is laid out, in Jinja (default: the package's own)
        out: the Markdown file
    """
    from jeep.report.document import write_report

    write_report(about, facts, tables, figures, claims, out, template)

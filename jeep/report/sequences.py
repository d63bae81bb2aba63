"""Sequences of edits: metrics of all facts so far, what is left of the first batch, and how far the weights went."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from jeep.common.errors import UserError
from jeep.common.settings import UNEDITED
from jeep.common.storage import atomic
from jeep.report.tables import RUN, Labels, chosen, label, layout, metrics_of
from jeep.report.texts import write_texts

CHANGE = "relative change"
"""‖ΔW‖/‖W‖ of the matrix that was changed most, since the start."""
DRIFT, PERPLEXITY = "KL", "perplexity"
"""Of held-out text: nats a token to the unedited model, and the rise in percent."""
UNWRITTEN = "not written"
"""Facts of batches that could not be written, and what an editor has left out."""


def sequence_metrics(results: pd.DataFrame, traces: pd.DataFrame) -> pd.DataFrame:
    """Metrics behind every measured batch, one a row: dataset, model, method, edits, part, metric, value, ci95.

    `part` is `all`, the facts so far, or `first`, those of the first batch, wherever they are measured again; in the
    part `model` are the largest relative change of a matrix, the facts so far that were not written, and drift and rise
    of the perplexity on held-out text where they were measured, means over seeds.
    """
    by = [*RUN, "edits"]
    parts = [
        metrics_of(results, by).assign(part="all"),
        metrics_of(results[results["batch"] == 1], by).assign(part="first"),
    ]
    measured = {tuple(row) for row in results[by].drop_duplicates().itertuples(index=False)}
    runs = traces.groupby([*RUN, "seed"], sort=False)
    found = traces.assign(edits=runs["facts"].cumsum(), unwritten=runs["unwritten"].cumsum())
    found = found[[tuple(row) in measured for row in found[by].itertuples(index=False)]]
    columns = {CHANGE: "change", UNWRITTEN: "unwritten", DRIFT: "drift", PERPLEXITY: "rise"}
    for metric, column in columns.items():
        found = found.dropna(subset=column)
        values = found.groupby(by, sort=False)[column].mean().rename("value").reset_index()
        parts.append(values.assign(part="model", metric=metric, ci95=np.nan))
    return pd.concat(parts, ignore_index=True)[[*by, "part", "metric", "value", "ci95"]]


def read_traces(paths: Sequence[Path]) -> pd.DataFrame:
    """A row for each batch of each run: what names the run, batch, facts, change, unwritten, drift and rise.

    Drift and rise are NaN where they were not measured, and infinite of a model that answered NaN.
    """
    rows = []
    for path in paths:
        for note in json.loads(path.read_text(encoding="utf-8")):
            change = max(note.get("relative_change", {}).values(), default=0.0)
            drift = {"kl": np.nan, "ratio": np.nan} | note.get("drift", {})
            kl, ratio = (np.inf if drift[name] is None else drift[name] for name in ("kl", "ratio"))
            more = {"unwritten": len(note.get("left_out", ())), "drift": kl, "rise": 100 * (ratio - 1)}
            rows.append({**note, "change": change, **more})
    return pd.DataFrame(rows)[[*RUN, "seed", "batch", "facts", "change", "unwritten", "drift", "rise"]]


def write_sequence(
    records: Sequence[Path], traces: Sequence[Path], shown: Mapping[str, Sequence[str]], labels: Labels, out: Path
) -> None:
    """Write `sequence_metrics` as CSV, and what they are behind the last batch as Markdown.

    Raises UserError where there are no results for what is `shown`: models, data sets and methods.
    """
    results = chosen(records, shown)
    if results.empty:
        raise UserError(f"no results of {', '.join(shown['method'])} in sequence")
    table = sequence_metrics(results, read_traces(traces))
    with atomic(out) as temporary:
        table.round({"value": 4, "ci95": 4}).to_csv(temporary, index=False)
    batch = int(results[results["batch"] == 1].groupby("dataset")["case_id"].nunique().max())
    caption = (
        f"After the last of all batches, {batch} facts each; 95 % half-widths over records; bold: the best edited one. "
        "First batch: ES of its facts at the end; forgotten: their ES when they were first measured, minus that. "
        "Change: ‖ΔW‖/‖W‖ of the matrix that was changed most. KL: to the unedited model on held-out text, in nats a "
        "token; perplexity: its rise there in percent. Not written, or not in all regions: facts without a finite "
        "target vector or with one that is far too long, and those of a batch whose change was not finite."
    )
    write_texts(out, {".md": _last(table, labels)}, caption)


def _last(table: pd.DataFrame, labels: Labels) -> dict[str, pd.DataFrame]:
    """For each data set what `layout` shows of all facts behind the last batch, and columns about the sequence."""
    last = table[table["edits"] == table.groupby(RUN)["edits"].transform("max")]
    blocks = layout(last[last["part"] == "all"].assign(sd_seeds=np.nan), labels, "**{}**")
    beside = _beside(table, last, labels)
    for title, wide in blocks.items():
        names = ("first batch", "forgotten", "change", DRIFT, PERPLEXITY, UNWRITTEN)
        shown = [name for name in names if any(beside[title, *run][name] for run in wide.index)]
        for name in shown:
            wide[name] = [beside[title, *run][name] for run in wide.index]
    return blocks


def _beside(table: pd.DataFrame, last: pd.DataFrame, labels: Labels) -> dict[tuple[str, str, str], dict[str, str]]:
    """What the columns about the sequence say, by the labels of data set, model and method."""

    def value(rows: pd.DataFrame, part: str, metric: str) -> float:
        return float(rows.loc[(rows["part"] == part) & (rows["metric"] == metric), "value"].iloc[0])

    def has(rows: pd.DataFrame, metric: str) -> bool:
        return bool((rows["metric"] == metric).any())

    found = {}
    for (dataset, model, method), rows in last.groupby(RUN, sort=False):
        every = table[(table[RUN] == [dataset, model, method]).all(axis=1)]
        early = every[every["edits"] == every["edits"].min()]
        first, left = value(early, "first", "ES"), value(rows, "first", "ES")
        edited = method != UNEDITED
        names = (label(labels, "datasets", dataset), label(labels, "models", model), label(labels, "methods", method))
        found[names] = {
            "first batch": f"{left:.1f}",
            "forgotten": f"{first - left:.1f}" if edited else "",
            "change": f"{value(rows, 'model', CHANGE):.3g}" if edited else "",
            DRIFT: f"{value(rows, 'model', DRIFT):.3g}" if edited and has(rows, DRIFT) else "",
            PERPLEXITY: f"{value(rows, 'model', PERPLEXITY):+.3g}" if edited and has(rows, PERPLEXITY) else "",
            UNWRITTEN: f"{value(rows, 'model', UNWRITTEN):g}" if edited else "",
        }
    return found

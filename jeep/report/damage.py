"""What else edits change (`jeep.measure.damage`), as differences to the unedited model with paired intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from jeep.common.errors import UserError
from jeep.common.settings import UNEDITED
from jeep.common.storage import atomic
from jeep.report.intervals import of_mean
from jeep.report.tables import RUN, Labels, chosen, label, metrics_of
from jeep.report.texts import write_texts

BY = [*RUN, "edits"]
COLUMNS = [*BY, "kind", "metric", "units", "value", "before", "difference", "low", "high", "p"]
TASK_KINDS = ("task", "ability")
"""Whose metrics are shares of right answers."""
_AS_THEY_ARE = ("nll", "kl")
"""Metrics in nats; all others are times 100, as papers print them."""


def paired(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per run, number of edits, metric and unit: value and before, means over seeds, as tables show them."""
    groups = rows.groupby([*BY, "kind", "metric", "unit"], sort=False, as_index=False)
    # Of a model that answers NaN under one seed nothing is known.
    means = groups[["value", "before"]].mean(skipna=False)
    factor = np.where(means["metric"].isin(_AS_THEY_ARE), 1.0, 100.0)
    return means.assign(value=means["value"] * factor, before=means["before"] * factor)


def damage_metrics(rows: pd.DataFrame) -> pd.DataFrame:
    """Of the rows of some runs, a row for each metric: means with and without the edits, and their paired difference.

    `low` and `high` are the ends of its 95 % interval over units (Student's t), `p` tests that it is zero. perplexity
    is exp of the mean nll, its difference the rise in percent.
    """
    found = []
    for key, group in paired(rows).groupby([*BY, "kind", "metric"], sort=False):
        interval = of_mean(group["value"] - group["before"])
        about = dict(zip([*BY, "kind", "metric"], key, strict=True))
        row = {
            **about,
            "units": len(group),
            "value": group["value"].mean(skipna=False),
            "before": group["before"].mean(),
            "difference": interval.value,
            "low": interval.low,
            "high": interval.high,
            "p": interval.p,
        }
        found += [row, *([_perplexity(row)] if row["metric"] == "nll" else [])]
    return pd.DataFrame(found, columns=COLUMNS)


def _perplexity(row: Mapping[str, float | str]) -> dict:
    """Of the row of nll."""
    with np.errstate(over="ignore"):
        rise = {name: 100 * (np.exp(row[name]) - 1) for name in ("difference", "low", "high")}
        return {**row, "metric": "perplexity", **{name: np.exp(row[name]) for name in ("value", "before")}, **rise}


def write_damage(
    damage: Sequence[Path],
    records: Sequence[Path],
    shown: Mapping[str, Sequence[str]],
    labels: Labels,
    about: str,
    out: Path,
) -> None:
    """Write `damage_metrics` and the Score of each run as CSV, and what they are at the most edits as Markdown.

    Raises UserError where there are no results for what is `shown`: models, data sets and methods.
    """
    rows = chosen(damage, shown)
    if rows.empty:
        raise UserError(f"nothing was asked of the edits of {', '.join(shown['method'])}")
    table = pd.concat([damage_metrics(rows), _scores(records, shown, rows)], ignore_index=True)
    order = table.assign(number=range(len(table)))
    for column, names in shown.items():
        order[column] = pd.Categorical(order[column], names)
    table = table.loc[order.sort_values([*BY, "number"]).index]
    with atomic(out) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
    caption = (
        f"Edited: the difference to the unedited model, with its 95 % half-width over records, windows or questions; "
        f"unedited: the value. In percent but for KL, in nats a token. {about}"
    )
    write_texts(out, {".md": _blocks(table, labels)}, caption)


def _scores(records: Sequence[Path], shown: Mapping[str, Sequence[str]], rows: pd.DataFrame) -> pd.DataFrame:
    """Score of the runs that were asked, and of the unedited model with as many facts measured."""
    asked = {tuple(row) for row in rows[BY].drop_duplicates().itertuples(index=False)}
    results = chosen(records, {**shown, "method": [UNEDITED, *(name for name in shown["method"] if name != UNEDITED)]})
    scores = metrics_of(results, BY)
    scores = scores[scores["metric"] == "Score"]
    before = {tuple(row[:-1]): row[-1] for row in scores[scores["method"] == UNEDITED][[*_BESIDE, "value"]].to_numpy()}
    found = []
    for row in scores.itertuples():
        if (row.dataset, row.model, row.method, row.edits) in asked:
            value = {"value": row.value, "before": before.get((row.dataset, row.model, row.edits), np.nan)}
            half = {"low": row.value - row.ci95, "high": row.value + row.ci95}
            about = {"kind": "score", "metric": "Score", "difference": np.nan, "p": np.nan, "units": row.edits}
            found.append({**{name: getattr(row, name) for name in BY}, **about, **value, **half})
    return pd.DataFrame(found, columns=COLUMNS)


_BESIDE = ["dataset", "model", "edits"]
_NAMES = {"kl": "KL", "MH": "multi-hop"}
_HIDDEN = ("nll", "GS_p", "ES_p")


def _blocks(table: pd.DataFrame, labels: Labels) -> dict[str, pd.DataFrame]:
    """For each data set: rows of models and methods at the most edits, the unedited model first, a column a metric."""
    last = table[table["edits"] == table.groupby(RUN, sort=False)["edits"].transform("max")]
    last = last[~last["metric"].isin(_HIDDEN)]
    blocks = {}
    for dataset, block in last.groupby("dataset", sort=False):
        columns = ["Score", *dict.fromkeys(name for name in block["metric"] if name != "Score")]
        rows = {}
        for model, part in block.groupby("model", sort=False):
            name = label(labels, "models", str(model))
            rows[name, label(labels, "methods", UNEDITED)] = _unedited(part)
            for method, run in part.groupby("method", sort=False):
                rows[name, label(labels, "methods", str(method))] = {row.metric: _cell(row) for row in run.itertuples()}
        wide = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns).fillna("")
        wide.index = pd.MultiIndex.from_tuples(rows, names=["Model", "Method"])
        wide.columns = [_NAMES.get(name, name.replace("_", " ") if name[:2].islower() else name) for name in columns]
        blocks[label(labels, "datasets", str(dataset))] = wide
    return blocks


def _unedited(part: pd.DataFrame) -> dict[str, str]:
    """The values without an edit, from the run that was asked most."""
    most = part.sort_values("units", ascending=False, kind="stable").drop_duplicates("metric")
    values = zip(most["metric"], most["before"], strict=True)
    return {metric: "" if metric == "kl" or np.isnan(value) else f"{value:.1f}" for metric, value in values}


def _cell(row) -> str:
    half = (row.high - row.low) / 2
    if row.metric == "Score":
        return f"{row.value:.1f}" + ("" if np.isnan(half) else f" ({half:.1f})")
    digits = ".3g" if row.metric == "kl" else ".1f" if abs(row.difference) < 1000 else ".3g"
    value = f"{row.difference:{digits if row.metric == 'kl' else '+' + digits}}"
    return value + ("" if np.isnan(half) else f" ({half:{digits}})")

"""What else edits change (`jeep.measure.damage`), as differences to the unedited model with paired intervals."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jeep.common.errors import UserError
from jeep.common.settings import UNEDITED
from jeep.common.storage import atomic
from jeep.measure.metrics import METRICS, by_argmax
from jeep.report.intervals import Interval, of_mean, resampled, score, values_of
from jeep.report.tables import RUN, Labels, chosen, label
from jeep.report.texts import write_texts

BY = [*RUN, "edits"]
COLUMNS = [*BY, "kind", "metric", "units", "value", "before", "chance", "difference", "low", "high", "p"]
TASK_KINDS = ("task", "ability")
"""Whose metrics are shares of right answers."""
_AS_THEY_ARE = ("nll", "kl")
"""Metrics in nats; all others are times 100, as papers print them."""


def paired(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per run, number of edits, metric and unit: value and before, means over seeds, as tables show them."""
    groups = rows.groupby([*BY, "kind", "metric", "unit"], sort=False, as_index=False)
    # Of a model that answers NaN under one seed nothing is known.
    means = groups[["value", "before", "chance"]].mean(skipna=False)
    factor = np.where(means["metric"].isin(_AS_THEY_ARE), 1.0, 100.0)
    return means.assign(**{name: means[name] * factor for name in ("value", "before", "chance")})


def known(rows: pd.DataFrame) -> pd.Series:
    """Whether the unedited model does better than by guessing: of what it cannot do nothing is lost."""
    return ~(rows["before"] <= rows["chance"])


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
            "chance": group["chance"].mean(),
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


def answer_metrics(records: pd.DataFrame, runs: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Of `runs` (rows of BY), as `damage_metrics`: Score, and ES_a and GS_a (`metrics.by_argmax`), which records hold.

    Score's difference is by the paired bootstrap of the claims. NaN where the unedited model was not measured.
    """
    found = []
    for key in runs[BY].drop_duplicates().itertuples(index=False):
        about = dict(zip(BY, key, strict=True))
        here = records[(records[[*_BESIDE]] == [about[name] for name in _BESIDE]).all(axis=1)]
        part = here[here["method"].isin([about["method"], UNEDITED])]
        if about["method"] not in set(part["method"]):
            continue
        found += [{**about, **row} for row in (*_score(part, about, seed), *_argmax(part, about["method"]))]
    return pd.DataFrame(found, columns=COLUMNS)


_BESIDE = ["dataset", "model", "edits"]


def _score(part: pd.DataFrame, about: Mapping[str, Any], seed: int) -> Iterator[dict]:
    runs = [(name, about["edits"]) for name in (about["method"], UNEDITED) if name in set(part["method"])]
    if not set(METRICS) <= set(part["metric"]):
        return
    values = values_of(part, runs)
    scores = [float(score(np.nanmean(each, (0, 1)))) for each in values]
    row = {"kind": "score", "metric": "Score", "units": values.shape[2], "value": scores[0]}
    if len(runs) == 2:
        interval = resampled(values, lambda means: score(means[0]) - score(means[1]), seed)
        row |= {"before": scores[1], "difference": interval.value, **_bounds(interval)}
    yield row


def _argmax(part: pd.DataFrame, method: str) -> Iterator[dict]:
    means = by_argmax(part).groupby(["metric", "case_id", "method"])["value"].mean().mul(100).unstack()
    if UNEDITED not in means:
        return
    for metric, rows in means.groupby(level="metric"):
        interval = of_mean(rows[method] - rows[UNEDITED])
        values = {"value": rows[method].mean(), "before": rows[UNEDITED].mean(), "units": len(rows)}
        yield {"kind": "argmax", "metric": metric, **values, "difference": interval.value, **_bounds(interval)}


def _bounds(interval: Interval) -> dict[str, float]:
    return {name: getattr(interval, name) for name in ("low", "high", "p")}


def write_damage(
    damage: Sequence[Path],
    records: Sequence[Path],
    shown: Mapping[str, Sequence[str]],
    labels: Labels,
    about: str,
    seed: int,
    out: Path,
) -> None:
    """Write `answer_metrics` and `damage_metrics` as CSV, and what they are at the most edits as Markdown.

    Raises UserError where there are no results for what is `shown`: models, data sets and methods.
    """
    rows = chosen(damage, shown)
    if rows.empty:
        raise UserError(f"nothing was asked of the edits of {', '.join(shown['method'])}")
    measured = chosen(records, {**shown, "method": list(dict.fromkeys([UNEDITED, *shown["method"]]))})
    table = pd.concat([answer_metrics(measured, rows, seed), damage_metrics(rows)], ignore_index=True)
    order = table.assign(number=range(len(table)))
    for column, names in shown.items():
        order[column] = pd.Categorical(order[column], names)
    table = table.loc[order.sort_values([*BY, "number"]).index]
    with atomic(out) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
    caption = (
        "Edited: the difference to the unedited model, with its 95 % half-width (of perplexity both ends) over "
        "records, windows or questions; unedited: the value, and what guessing gives. In percent but for fluency (bits "
        f"times 100) and KL (nats a token). {about}"
    )
    write_texts(out, {".md": _blocks(table, labels)}, caption)


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
    """The values without an edit, from the run that was asked most, and what guessing gives."""
    most = part.sort_values("units", ascending=False, kind="stable").drop_duplicates("metric")
    most = most[(most["metric"] != "kl") & most["before"].notna()]
    return {
        row.metric: f"{row.before:.1f}" + ("" if np.isnan(row.chance) else f" (chance {row.chance:.1f})")
        for row in most.itertuples()
    }


def _cell(row) -> str:
    half = (row.high - row.low) / 2
    if row.metric == "kl":
        return f"{row.difference:.3g}" + ("" if np.isnan(half) else f" ({half:.2g})")
    value = f"{row.difference:+.1f}" if abs(row.difference) < 1000 else f"{row.difference:+.3g}"
    if row.metric == "perplexity":
        return value + ("" if np.isnan(half) else f" ({row.low:+.3g} to {row.high:+.3g})")
    return value + ("" if np.isnan(half) else f" ({half:.1f})")

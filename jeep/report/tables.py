"""The paper's tables as CSV (one row per value), Markdown, LaTeX and HTML."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from jeep.common.errors import UserError
from jeep.common.settings import UNEDITED
from jeep.common.storage import atomic
from jeep.measure.metrics import METRICS, summarize
from jeep.report.texts import Markup, write_texts

RUN = ["dataset", "model", "method"]
COLUMNS = ["artifact", "dataset", "model", "method", "metric", "value", "ci95", "sd_seeds"]
Labels = Mapping[str, Mapping[str, str]]


def chosen(records: Sequence[Path], shown: Mapping[str, Sequence[str]], edits: int | None = None) -> pd.DataFrame:
    """The results of some models, data sets and methods, in that order; with `edits`, at that number alone."""
    results = pd.concat(map(pd.read_parquet, records), ignore_index=True)
    if edits is not None:
        results = results[results["edits"] == edits]
    for column, names in shown.items():
        results = results[results[column].isin(names)]
        results = results.assign(**{column: pd.Categorical(results[column], names)})
    return results.sort_values([*RUN, "edits"], kind="stable").astype({column: str for column in shown})


def metrics_of(records: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Metrics of each run, in the order the runs stand in.

    The mean over seeds is taken within a record; sd_seeds is the standard deviation of the metric over seeds.
    """
    groups = []
    for key, group in records.groupby(by, sort=False):
        single = [summarize(part).set_index("metric")["value"] for _, part in group.groupby("seed")]
        spread = pd.concat(single, axis=1).std(axis=1) if len(single) > 1 else pd.Series(dtype=float)
        summary = summarize(group).assign(**dict(zip(by, key, strict=True)))
        groups.append(summary.assign(sd_seeds=summary["metric"].map(spread)))
    return pd.concat(groups, ignore_index=True)


def write_table(
    records: Sequence[Path], artifact: str, shown: Mapping[str, Sequence[str]], labels: Labels, edits: int, out: Path
) -> None:
    """Write `out` (CSV, one row per value) and beside it the same as Markdown, LaTeX and HTML, the best values bold.

    `shown` names the models, data sets and methods of the table, in its order. Raises UserError when
    there are no results for them.
    """
    results = chosen(records, shown, edits)
    if results.empty:
        raise UserError(f"{artifact}: no results with {edits} edits of {', '.join(shown['method'])}")
    table = metrics_of(results, RUN).assign(artifact=artifact)[COLUMNS].round({"value": 1, "ci95": 1, "sd_seeds": 2})
    caption = f"{_caption(results, edits)}; presets: {_presets(results)}."
    with atomic(out) as temporary:
        table.to_csv(temporary, index=False)
    bold = {".md": "**{}**", ".tex": r"\textbf{{{}}}", ".html": "<b>{}</b>"}
    write_texts(out, {suffix: layout(table, labels, mark) for suffix, mark in bold.items()}, caption)


def _caption(results: pd.DataFrame, edits: int) -> str:
    seeds = results.loc[results["method"] != UNEDITED, "seed"].nunique()
    over = f", mean over {seeds} seeds (± their standard deviation)" if seeds > 1 else ""
    return f"{edits} simultaneous edits{over}; 95 % half-widths over records; bold: the best edited value"


def _presets(results: pd.DataFrame) -> str:
    edited = results[results["preset"] != ""]
    pairs = list(dict.fromkeys(zip(edited["method"], edited["preset"], strict=True)))
    presets = {preset for _, preset in pairs}
    if len(pairs) > 2 and len(presets) == 1:
        return f"{presets.pop()} for all methods"
    return ", ".join(f"{method} {preset}" for method, preset in pairs)


def layout(table: pd.DataFrame, labels: Labels, bold: str, by: Sequence[str] = ()) -> dict[str, pd.DataFrame]:
    """For each data set: a block of rows per model, the unedited model first, and a column per metric.

    `by` are columns beside model and method that tell rows apart; the best are those of the same values there.
    """
    edited = table[table["method"] != UNEDITED]
    best = edited.groupby(["dataset", "model", "metric", *by])["value"].max()

    def cell(row) -> str | Markup:
        parts = [f"{row.value:.1f}"]
        parts += [] if pd.isna(row.ci95) else [f"({row.ci95:.1f})"]
        parts += [] if pd.isna(row.sd_seeds) else [f"±{row.sd_seeds:.1f}"]
        beside = (row.dataset, row.model, row.metric, *(getattr(row, name) for name in by))
        top = row.method != UNEDITED and row.value == best[beside]
        return Markup(bold.format(" ".join(parts))) if top else " ".join(parts)

    cells = table.assign(cell=[cell(row) for row in table.itertuples()])
    result = {}
    for dataset, block in cells.groupby("dataset", sort=False):
        keys = ["model", "method", *by]
        wide = block.pivot(index=keys, columns="metric", values="cell")
        order = block[keys].drop_duplicates().apply(tuple, axis=1)
        wide = wide.loc[list(order), [metric for metric in ("Score", *METRICS) if metric in wide]]
        names = [
            (label(labels, "models", model), label(labels, "methods", method), *rest) for model, method, *rest in order
        ]
        wide.index = pd.MultiIndex.from_tuples(names, names=["Model", "Method", *by])
        wide.columns.name = None
        result[label(labels, "datasets", str(dataset))] = wide
    return result


def label(labels: Labels, kind: str, name: str) -> str:
    """The name of a model, data set or method in tables and figures."""
    return labels.get(kind, {}).get(name, name)


def write_series(
    records: Sequence[Path],
    shown: Mapping[str, Sequence[str]],
    labels: Labels,
    edits: int,
    out: Path,
    variants: Mapping[str, object] | None = None,
) -> None:
    """Write the metrics of some methods at every number of edits as CSV and Markdown; the number is the column x.

    With `variants` (`method`: a method, `values`: a number for each variant of it) x is that number instead, at
    `edits` edits.
    """
    results = chosen(records, shown, None if variants is None else edits)
    if variants is None:
        results = results.assign(x=results["edits"])
    else:
        results = results.assign(x=results["method"].map(variants["values"]), method=variants["method"])
    table = metrics_of(results, [*RUN, "x"])[[*RUN, "x", "metric", "value", "ci95"]]
    table = table.round({"value": 2, "ci95": 2}).sort_values(["dataset", "model", "x"], kind="stable")
    with atomic(out) as temporary:
        table.to_csv(temporary, index=False)
    shown_as = layout(table.assign(sd_seeds=float("nan")), labels, "**{}**", by=["x"])
    caption = "x: the number of edits or the value of the setting; 95 % half-widths over records; bold: the best there."
    write_texts(out, {".md": shown_as}, caption)

"""Tables made from results files only: long CSV, and Markdown and LaTeX laid out as in the paper."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from jeep.errors import UserError
from jeep.metrics import summarize
from jeep.storage import atomic

RUN = ["dataset", "model", "method"]
COLUMNS = ["artifact", "dataset", "model", "method", "metric", "value", "ci95"]
METRICS = ["Score", "ES", "GS", "LS"]
Labels = Mapping[str, Mapping[str, str]]


def collect(records: Sequence[Path], runs: Sequence[Mapping[str, object]], out: Path) -> None:
    """One Parquet file of all per-record results; `runs` names each file's model, data set, method, preset, ..."""
    parts = [pd.read_parquet(path).assign(**run) for path, run in zip(records, runs, strict=True)]
    with atomic(out) as temporary:
        pd.concat(parts, ignore_index=True).to_parquet(temporary, index=False)


def _metrics(records: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Metrics of each run, in the order the runs stand in; the mean over seeds is taken within a record."""
    groups = [
        summarize(group).assign(**dict(zip(by, key, strict=True))) for key, group in records.groupby(by, sort=False)
    ]
    return pd.concat(groups, ignore_index=True)


def write_table(
    records: Path, artifact: str, shown: Mapping[str, Sequence[str]], labels: Labels, edits: int, out: Path
) -> None:
    """Write `out` (CSV, one row per value) and beside it the same as Markdown and LaTeX.

    `shown` names the models, data sets and methods of the table, in its order. Raises UserError when
    there are no results for them.
    """
    results = pd.read_parquet(records)
    results = results[results["edits"] == edits]
    for column, names in shown.items():
        results = results[results[column].isin(names)]
        results = results.assign(**{column: pd.Categorical(results[column], names)})
    results = results.sort_values(RUN, kind="stable").astype({column: str for column in shown})
    if results.empty:
        raise UserError(f"{artifact}: no results with {edits} edits of {', '.join(shown['method'])}")
    table = _metrics(results, RUN).assign(artifact=artifact)[COLUMNS].round({"value": 1, "ci95": 1})
    presets = results.drop_duplicates(RUN).set_index(RUN)["preset"]
    caption = f"{edits} simultaneous edits; 95 % half-widths over records; presets: {_presets(presets)}."
    wide = _layout(table, labels)
    with atomic(out) as temporary:
        table.to_csv(temporary, index=False)
    with atomic(out.with_suffix(".md")) as temporary:
        text = "\n\n".join(f"{title}\n\n{_markdown(part)}" for title, part in wide.items())
        temporary.write_text(f"{text}\n\n{caption}\n", encoding="utf-8")
    with atomic(out.with_suffix(".tex")) as temporary:
        text = "\n".join(part.to_latex(escape=True, caption=f"{title}: {caption}") for title, part in wide.items())
        temporary.write_text(text, encoding="utf-8")


def _presets(presets: pd.Series) -> str:
    found = presets.droplevel(["dataset", "model"])
    found = found[found != ""]
    pairs = list(dict.fromkeys(found.items()))
    if len(pairs) > 2 and found.nunique() == 1:
        return f"{found.iloc[0]} for all methods"
    return ", ".join(f"{method} {preset}" for method, preset in pairs)


def _layout(table: pd.DataFrame, labels: Labels) -> dict[str, pd.DataFrame]:
    """For each data set: a block of rows per model, the unedited model first, and a column per metric."""
    cells = table.assign(cell=[_cell(row.value, row.ci95) for row in table.itertuples()])
    result = {}
    for dataset, block in cells.groupby("dataset", sort=False):
        wide = block.pivot(index=["model", "method"], columns="metric", values="cell")
        order = block[["model", "method"]].drop_duplicates().apply(tuple, axis=1)
        wide = wide.loc[list(order), [metric for metric in METRICS if metric in wide]]
        wide.index = pd.MultiIndex.from_tuples(
            [(_label(labels, "models", model), _label(labels, "methods", method)) for model, method in order],
            names=["Model", "Method"],
        )
        wide.columns.name = None
        result[_label(labels, "datasets", str(dataset))] = wide
    return result


def _label(labels: Labels, kind: str, name: str) -> str:
    return labels.get(kind, {}).get(name, name)


def _cell(value: float, half_width: float) -> str:
    return f"{value:.1f}" if pd.isna(half_width) else f"{value:.1f} ({half_width:.1f})"


def _markdown(table: pd.DataFrame) -> str:
    return table.reset_index().to_markdown(index=False, disable_numparse=True)


def write_series(
    records: Path,
    shown: Mapping[str, Sequence[str]],
    edits: int,
    out: Path,
    variants: Mapping[str, object] | None = None,
) -> None:
    """Write the metrics of some methods at every number of edits as CSV; a run's number stands in the column x.

    With `variants` (`method`: a method, `values`: a number for each variant of it) x is that number instead, at
    `edits` edits.
    """
    results = pd.read_parquet(records)
    for column, names in shown.items():
        results = results[results[column].isin(names)]
    if variants is None:
        results = results.assign(x=results["edits"])
    else:
        results = results[results["edits"] == edits]
        results = results.assign(x=results["method"].map(variants["values"]), method=variants["method"])
    table = _metrics(results, [*RUN, "x"])[[*RUN, "x", "metric", "value", "ci95"]]
    with atomic(out) as temporary:
        table.round({"value": 2, "ci95": 2}).sort_values([*RUN, "x"], kind="stable").to_csv(temporary, index=False)

"""The paper's reported numbers beside ours, where model and data set are the paper's."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from jeep.common.storage import atomic
from jeep.report.texts import write_texts

KEYS = ["artifact", "dataset", "model", "method", "metric"]
COLUMNS = [*KEYS, "paper", "paper_ci95", "ours", "ours_ci95", "difference"]


def write_comparison(tables: Sequence[Path], reported: Path, names: Mapping[str, Mapping[str, str]], out: Path) -> None:
    """Write CSV, Markdown and HTML: value, ours and difference for each artifact, in percentage points.

    `names` gives the paper's names of models and data sets by ours; what has none is not compared.
    """
    ours = pd.concat([pd.read_csv(path) for path in tables], ignore_index=True)
    for column, kind in (("model", "models"), ("dataset", "datasets")):
        ours[column] = ours[column].map(names.get(kind, {}))
    ours = ours.dropna(subset=["model", "dataset"]).rename(columns={"value": "ours", "ci95": "ours_ci95"})
    paper = pd.read_csv(reported).rename(columns={"value": "paper", "ci95": "paper_ci95"})
    both = paper.merge(ours[[*KEYS, "ours", "ours_ci95"]], on=KEYS, how="inner")
    both = both.assign(difference=(both["ours"] - both["paper"]).round(1))[COLUMNS]
    with atomic(out) as temporary:
        both.to_csv(temporary, index=False)
    caption = "The paper's numbers and ours, in percent, with 95 % half-widths over records."
    if both.empty:
        caption = "None of the models and data sets of this run are the paper's: see the claims."
    shown = {"Comparison": both.set_index("artifact")}
    write_texts(out, {".md": shown, ".html": shown}, caption)

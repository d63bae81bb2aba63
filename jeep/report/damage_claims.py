"""Does JEEP cost less elsewhere than other methods, where its Score is no lower?"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from jeep.common.settings import UNEDITED
from jeep.measure.metrics import summarize
from jeep.report.damage import TASK_KINDS, paired
from jeep.report.intervals import Interval, of_mean

DRIFT = "JEEP changes other text less, at no lower Score"
TASKS = "JEEP keeps more of the small tasks, at no lower Score"


def damage_claims(
    files: Sequence[Path], records: pd.DataFrame, jeep: str, others: Sequence[str], margin: float
) -> Iterator[tuple[str, dict[str, str], str, str, Interval]]:
    """(claim, where, other, statistic, interval) for every method whose Score JEEP's is not more than `margin` below.

    Positive where JEEP does better: paired over the windows of held-out text, and over the questions of all tasks, at
    the largest number of edits of each model and data set.
    """
    if not files:
        return
    rows = paired(pd.concat(map(pd.read_parquet, files), ignore_index=True))
    edited = [name for name in others if name not in (jeep, UNEDITED)]
    for (dataset, model), part in rows.groupby(["dataset", "model"], sort=False):
        edits = int(part["edits"].max())
        part = part[part["edits"] == edits]
        here = (records["dataset"] == dataset) & (records["model"] == model) & (records["edits"] == edits)
        scores = _scores(records[here])
        methods = set(part["method"])
        for other in edited if jeep in methods and jeep in scores else ():
            if other not in methods or other not in scores or scores[jeep] < scores[other] - margin:
                continue
            where = {"dataset": str(dataset), "model": str(model)}
            for claim, kinds, metric, factor, statistic in (
                (DRIFT, ["text"], "kl", -1000.0, "KL, thousandths of a nat a token"),
                (TASKS, TASK_KINDS, None, 1.0, "points in all tasks"),
            ):
                asked = part[part["kind"].isin(kinds) & (part["metric"].isin([metric]) | (metric is None))]
                values = asked.pivot_table(index=["metric", "unit"], columns="method", values="value")
                if {jeep, other} <= set(values):
                    difference = factor * (values[jeep] - values[other])
                    yield claim, where, other, f"{statistic}, paired, {edits} edits", of_mean(difference)


def _scores(records: pd.DataFrame) -> dict[str, float]:
    found = {}
    for method, rows in records.groupby("method", sort=False):
        summary = summarize(rows).set_index("metric")["value"]
        if "Score" in summary:
            found[str(method)] = float(summary["Score"])
    return found

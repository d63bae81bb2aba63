"""Does JEEP cost less elsewhere than other methods of the same Score?"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from jeep.common.settings import UNEDITED
from jeep.measure.metrics import summarize
from jeep.report.damage import TASK_KINDS, known, paired
from jeep.report.intervals import Interval, of_mean

DRIFT = "JEEP changes other text less than a method of the same Score"
TASKS = "JEEP keeps more of the small tasks than a method of the same Score"
Claim = tuple[str, dict[str, str], str, str, str, Interval]
"""The claim, where it is made, what is taken from what (methods, `one` − `other`), the statistic, and its interval."""


def damage_claims(files: Sequence[Path], records: pd.DataFrame, jeep: str, margin: float) -> Iterator[Claim]:
    """For every method whose Score is within `margin` points of JEEP's, at the most edits of each model and data set.

    Positive where JEEP does better: paired over the windows of held-out text, and over the questions of the tasks that
    the unedited model can do, each task weighing the same. The log names methods whose Score is another. A model that
    answers NaN leaves a claim undecided.
    """
    rows = paired(pd.concat(map(pd.read_parquet, files), ignore_index=True)) if files else pd.DataFrame()
    for (dataset, model), part in rows.groupby(["dataset", "model"], sort=False) if len(rows) else ():
        edits = int(part["edits"].max())
        part = part[part["edits"] == edits]
        here = (records["dataset"] == dataset) & (records["model"] == model) & (records["edits"] == edits)
        scores = _scores(records[here])
        for other in dict.fromkeys(part["method"]):
            if other in (jeep, UNEDITED) or not {jeep, other} <= scores.keys():
                continue
            if abs(scores[jeep] - scores[other]) > margin:
                ours, its = scores[jeep], scores[other]
                logging.info("%s, %s: %s has Score %.1f, %s %.1f: not compared", model, dataset, jeep, ours, other, its)
                continue
            where = {"dataset": str(dataset), "model": str(model)}
            for claim, first, second, statistic, difference in _differences(part, jeep, other):
                yield claim, where, first, second, f"{statistic}, paired, {edits} edits", of_mean(difference)


def _differences(part: pd.DataFrame, jeep: str, other: str) -> Iterator[tuple[str, str, str, str, pd.Series]]:
    """How much better JEEP is on each window, the other's KL less its own, and on each question."""
    drift = part[part["metric"] == "kl"].pivot(index="unit", columns="method", values="value")
    if {jeep, other} <= set(drift):
        yield DRIFT, other, jeep, "KL, thousandths of a nat a token", 1000 * (drift[other] - drift[jeep])
    tasks = part[part["kind"].isin(TASK_KINDS)]
    means = tasks.groupby("metric")[["before", "chance"]].mean()
    tasks = tasks[tasks["metric"].isin(means.index[known(means)])]
    answers = tasks.pivot(index=["metric", "unit"], columns="method", values="value")
    if {jeep, other} <= set(answers):
        difference = answers[jeep] - answers[other]
        sizes = difference.groupby(level="metric").transform("size")
        weights = len(difference) / (sizes * sizes.index.unique(0).size)
        yield TASKS, jeep, other, "points in a mean task", difference * weights


def _scores(records: pd.DataFrame) -> dict[str, float]:
    found = {}
    for method, rows in records.groupby("method", sort=False):
        summary = summarize(rows).set_index("metric")["value"]
        if "Score" in summary:
            found[str(method)] = float(summary["Score"])
    return found

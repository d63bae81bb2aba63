"""Score against damage: what a method gets, and what it costs elsewhere."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from jeep.report.damage import BY, TASK_KINDS, known
from jeep.report.figures.style import PAGE, legend, looks, save, shown_once, style
from jeep.report.tables import RUN, Labels, label

LEFT = "KL to the unedited model on held-out text (nats a token)"
RIGHT = "small tasks: points lost"
_LEAST = 1e-6
"""Where an edit that changes nothing stands on the logarithmic axis."""


def draw_damage(table: Path, labels: Labels, out: Path) -> None:
    """A row of two panels for each model and data set: Score over the drift, and over the loss in the small tasks.

    A point is a method at its most edits, with 95 % bars (of Score, of its difference to the unedited model); a line
    joins its numbers of edits, the smaller ones small. The dashed line is the Score of the unedited model. What lies
    above and to the left is better.
    """
    points = _points(pd.read_csv(table))
    groups = list(points.groupby(["model", "dataset"], sort=False))
    shown = looks(dict.fromkeys(points["method"]))
    with style():
        size = (PAGE, 2.4 * len(groups) + 0.5)
        figure, axes = plt.subplots(len(groups), 2, figsize=size, squeeze=False, layout="constrained", sharey="row")
        for row, ((model, dataset), group) in zip(axes, groups, strict=True):
            for method, line in group.groupby("method", sort=False):
                for axis, cost in zip(row, ("drift", "lost"), strict=True):
                    _draw(axis, line, cost, *shown[method], label(labels, "methods", str(method)))
            for axis, title in zip(row, (LEFT, RIGHT), strict=True):
                axis.axhline(group["unedited"].iloc[-1], color="0.4", linestyle="--", linewidth=0.8)
                axis.set_xlabel(title)
            row[0].set_xscale("log")
            name = f"{label(labels, 'models', str(model))}\n{label(labels, 'datasets', str(dataset))}"
            row[0].set_ylabel(f"{name}\nScore")
        legend(figure, shown_once(axes[:, 0].flat))
        save(figure, out)


def _points(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each run and number of edits: Score, drift and the points lost in a mean task, with half-widths.

    Tasks are those that were asked of every number of edits of a method, or all where none was.
    """
    found = []
    counts = table.groupby(RUN)["edits"].transform("nunique")
    asked = table.groupby([*RUN, "metric"])["edits"].transform("nunique")
    everywhere = table.assign(everywhere=asked == counts)
    for key, run in everywhere.groupby(BY, sort=False):
        score, drift = run[run["metric"] == "Score"], run[run["metric"] == "kl"]
        tasks = run[run["kind"].isin(TASK_KINDS) & known(run)]
        tasks = tasks[tasks["everywhere"]] if tasks["everywhere"].any() else tasks
        halves = (tasks["high"] - tasks["low"]) / 2
        found.append(
            {
                **dict(zip(BY, key, strict=True)),
                "score": score["value"].mean(),
                "score_half": (score["high"] - score["low"]).mean() / 2,
                "unedited": score["before"].mean(),
                "drift": max(drift["difference"].mean(), _LEAST),
                "drift_half": (drift["high"] - drift["low"]).mean() / 2,
                "lost": -tasks["difference"].mean(skipna=False),
                "lost_half": np.sqrt((halves**2).sum()) / len(tasks) if len(tasks) else np.nan,
            }
        )
    return pd.DataFrame(found)


def _draw(axis, line: pd.DataFrame, cost: str, color, marker: str, name: str) -> None:
    line = line.sort_values("edits")
    axis.plot(line[cost], line["score"], color=color, linewidth=0.8)
    axis.plot(line[cost][:-1], line["score"][:-1], color=color, marker=marker, markersize=2.5, linestyle="")
    last = line.iloc[-1]
    left = min(last[f"{cost}_half"], last[cost] - _LEAST) if cost == "drift" else last[f"{cost}_half"]
    axis.errorbar(
        [last[cost]],
        [last["score"]],
        xerr=np.nan_to_num([[left], [last[f"{cost}_half"]]]),
        yerr=np.nan_to_num([[last["score_half"]], [last["score_half"]]]),
        color=color,
        marker=marker,
        markersize=5,
        elinewidth=0.7,
        label=name,
    )

"""Efficacy against locality, along a setting of each method."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from jeep.common.settings import UNEDITED
from jeep.report.figures.style import PAGE, legend, looks, save, shown_once, style
from jeep.report.tables import RUN, Labels, chosen, label, metrics_of

COLUMNS = ["dataset", "model", "curve", "x", "metric", "value", "ci95"]


def tradeoff_table(
    records: Sequence[Path],
    shown: Mapping[str, Sequence[str]],
    curves: Mapping[str, Mapping[str, float | None]],
    edits: int,
) -> pd.DataFrame:
    """The metrics of every variant: a row for each curve, its value x (None: a method as it is) and each metric."""
    results = metrics_of(chosen(records, shown, edits), RUN)
    parts = [
        results[results["method"] == name].assign(curve=curve, x=value)
        for curve, variants in curves.items()
        for name, value in variants.items()
    ]
    return pd.concat(parts)[COLUMNS].round({"value": 2, "ci95": 2})


def draw_tradeoff(table: Path, labels: Labels, out: Path) -> None:
    """LS over ES and over GS, a row of panels for each model and data set: what lies above and to the right is better.

    A curve joins the values of a setting, the least one hollow; methods as they are are black points. The grey line is
    the LS of the unedited model. Every other curve is dashed, so that one that lies on its neighbour does not hide it.
    """
    results = pd.read_csv(table, keep_default_na=False, na_values=[""])
    groups = list(results.groupby(["model", "dataset"], sort=False))
    shown = looks(name for name in dict.fromkeys(results["curve"]) if name != UNEDITED)
    with style():
        size = (PAGE, 2.2 * len(groups) + 0.4)
        figure, axes = plt.subplots(len(groups), 2, figsize=size, squeeze=False, layout="constrained", sharey="row")
        for row, ((model, dataset), group) in zip(axes, groups, strict=True):
            for axis, metric in zip(row, ("ES", "GS"), strict=True):
                _panel(axis, group, metric, shown, labels)
            row[0].set_ylabel(f"{label(labels, 'models', model)}\n{label(labels, 'datasets', dataset)}\nLS (%)")
        legend(figure, shown_once(axes[:, 0].flat))
        save(figure, out)


def _panel(axis: Axes, results: pd.DataFrame, metric: str, shown: Mapping[str, tuple], labels: Labels) -> None:
    for curve, rows in results.groupby("curve", sort=False):
        wide = rows.fillna({"x": 0}).pivot(index="x", columns="metric", values="value")
        name = label(labels, "methods", curve)  # a curve's own: none is called as a method
        if curve == UNEDITED:
            axis.axhline(wide["LS"].iloc[0], color="0.4", linestyle="--", linewidth=0.8, label=name)
            continue
        color, marker = shown[curve]
        if rows["x"].isna().all():
            axis.plot(wide[metric], wide["LS"], color="black", marker=marker, markersize=4, linestyle="", label=name)
            continue
        dash = (0, (3, 3)) if list(shown).index(curve) % 2 else "-"
        look = {"color": color, "marker": marker, "markersize": 4, "linestyle": dash}
        axis.plot(wide[metric], wide["LS"], label=name, **look)
        axis.plot(wide[metric][:1], wide["LS"][:1], mfc="white", **look)
    axis.set_xlabel(f"{metric} (%)")

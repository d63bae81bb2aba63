"""Efficacy against locality, along a setting of each method."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

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

    A curve joins the values of a setting in their order, the first one hollow; methods without a setting are points.
    """
    results = pd.read_csv(table).fillna({"x": 0})
    groups = list(results.groupby(["model", "dataset"], sort=False))
    curves = looks(dict.fromkeys(results["curve"]))
    with style():
        size = (PAGE, 2.2 * len(groups) + 0.4)
        figure, axes = plt.subplots(len(groups), 2, figsize=size, squeeze=False, layout="constrained")
        for row, ((model, dataset), group) in zip(axes, groups, strict=True):
            for axis, metric in zip(row, ("ES", "GS"), strict=True):
                for curve, (color, marker) in curves.items():
                    wide = group[group["curve"] == curve].pivot(index="x", columns="metric", values="value")
                    axis.plot(wide[metric], wide["LS"], color=color, marker=marker, markersize=3.5, label=curve)
                    axis.plot(wide[metric][:1], wide["LS"][:1], color=color, marker=marker, mfc="white", markersize=3.5)
                axis.set(xlabel=f"{metric} (%)")
            row[0].set_ylabel(f"{label(labels, 'models', model)}\n{label(labels, 'datasets', dataset)}\nLS (%)")
        legend(figure, shown_once(axes[:, 0].flat))
        save(figure, out)

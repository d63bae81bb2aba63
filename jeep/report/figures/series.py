"""Metrics over the number of edits (Figure 4) and over a setting (Figure 6)."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from jeep.report.figures.style import PAGE, legend, looks, numbers_axis, save, shown_once, style
from jeep.report.tables import Labels, label

TITLES = {"Score": "Score", "ES": "efficacy (ES)", "GS": "generalization (GS)", "LS": "locality (LS)"}
_AXES = {"edits": "number of edits", "high.clamp": "γ*", "low.clamp": "γ′"}


def draw_series(table: Path, axis: str, labels: Labels, out: Path) -> None:
    """A row of four panels (Score, ES, GS, LS) for each model and data set, a line with its band for each method.

    Bands are 95 % half-widths over records.
    """
    results = pd.read_csv(table)
    groups = list(results.groupby(["model", "dataset"], sort=False))
    shown = looks(dict.fromkeys(results["method"]))
    with style():
        size = (PAGE, 1.75 * len(groups) + 0.4)
        figure, axes = plt.subplots(len(groups), 4, figsize=size, squeeze=False, layout="constrained")
        for row, ((model, dataset), group) in zip(axes, groups, strict=True):
            for panel, (metric, title) in zip(row, TITLES.items(), strict=True):
                _panel(panel, group[group["metric"] == metric], shown, labels)
                panel.set(title=title, ylim=(-2, 102))
                if axis == "edits":
                    numbers_axis(panel, group["x"].tolist())
            row[0].set_ylabel(f"{label(labels, 'models', model)}\n{label(labels, 'datasets', dataset)}\n%")
        for panel in axes[-1]:
            panel.set_xlabel(_AXES.get(axis, axis))
        legend(figure, shown_once(axes[:, 0].flat))
        save(figure, out)


def _panel(panel, results: pd.DataFrame, shown: Mapping[str, tuple], labels) -> None:
    for method, (color, marker) in shown.items():
        line = results[results["method"] == method].sort_values("x")
        panel.plot(
            line.x, line.value, color=color, marker=marker, markersize=2.5, label=label(labels, "methods", method)
        )
        half = line.ci95.fillna(0)
        panel.fill_between(line.x, line.value - half, line.value + half, color=color, alpha=0.15, linewidth=0)

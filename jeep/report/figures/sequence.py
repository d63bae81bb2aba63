"""Metrics over the batches of a sequence of edits."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from jeep.common.settings import UNEDITED
from jeep.report.figures.series import TITLES
from jeep.report.figures.style import PAGE, legend, looks, save, shown_once, style
from jeep.report.sequences import CHANGE, DRIFT, PERPLEXITY
from jeep.report.tables import Labels, label

_PANELS = [
    *(("all", metric, title) for metric, title in TITLES.items()),
    ("first", "ES", "ES of the first batch"),
    ("model", CHANGE, "‖ΔW‖/‖W‖, largest"),
    ("model", DRIFT, "KL on held-out text"),
    ("model", PERPLEXITY, "perplexity, rise in %"),
]


def draw_sequence(table: Path, labels: Labels, out: Path) -> None:
    """Two rows of panels for each model and data set, a line with its band for each method.

    Score, ES, GS, LS of all facts so far, ES of the first batch's, the largest relative change of a matrix, and, where
    they were measured, drift and rise of the perplexity on held-out text. Bands are 95 % half-widths over records.
    """
    results = pd.read_csv(table)
    groups = list(results.groupby(["model", "dataset"], sort=False))
    methods = looks(dict.fromkeys(results["method"]))
    with style():
        size = (PAGE, 3.3 * len(groups) + 0.3)
        figure = plt.figure(figsize=size, layout="constrained")
        for part, ((model, dataset), group) in zip(
            figure.subfigures(len(groups), 1, squeeze=False)[:, 0], groups, strict=True
        ):
            part.suptitle(f"{label(labels, 'models', model)}, {label(labels, 'datasets', dataset)}")
            known = set(zip(group["part"], group["metric"], strict=True))
            shown_panels = [each for each in _PANELS if each[:2] in known]
            panels = part.subplots(2, -(-len(shown_panels) // 2), sharex=True).flat
            for panel, (which, metric, title) in zip(panels, shown_panels, strict=True):
                shown = group[(group["part"] == which) & (group["metric"] == metric)]
                for method, (color, marker) in methods.items():
                    _line(panel, shown[shown["method"] == method], color, marker, label(labels, "methods", method))
                panel.set_title(title)
                if metric == PERPLEXITY:
                    panel.set_yscale("symlog", linthresh=1)
                elif which == "model":
                    _log_change(panel, shown)
                else:
                    panel.set_ylim(-2, 102)
            for panel in part.axes[len(part.axes) // 2 :]:
                panel.set_xlabel("facts edited so far")
        legend(figure, shown_once(part.axes[:1]), "outside lower center")
        save(figure, out)


def _line(panel, line: pd.DataFrame, color, marker: str, name: str) -> None:
    line, half = line.sort_values("edits"), line.sort_values("edits")["ci95"].fillna(0)
    panel.plot(line["edits"], line["value"], color=color, marker=marker, markersize=2.5, label=name)
    panel.fill_between(line["edits"], line["value"] - half, line["value"] + half, color=color, alpha=0.12, linewidth=0)


def _log_change(panel, shown: pd.DataFrame) -> None:
    """The unedited model has none, and no place on a logarithmic axis."""
    if (shown.loc[shown["method"] != UNEDITED, "value"] > 0).any():
        panel.set_yscale("log")

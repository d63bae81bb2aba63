"""How much of an edit reaches neighbours: by layer, and what that costs."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.ticker import MaxNLocator
from scipy.stats import spearmanr

from jeep.common.storage import read_jsonl, read_provenance
from jeep.report.figures.style import PAGE, PALETTE, legend, looks, save, shown_once, style
from jeep.report.tables import Labels, label

_COLORS = {"subject_last": PALETTE[2], "prediction": PALETTE[3]}


def draw_leaks(deltas: Mapping[tuple[str, str, str], Path], labels: Labels, out: Path) -> None:
    """The leak of each written layer of every edit, a panel for each model and data set.

    `deltas` are edits with their traces, by model, data set and method; not every method need be everywhere.
    """
    panels = list(dict.fromkeys(key[:2] for key in deltas))
    shown = looks(dict.fromkeys(key[2] for key in deltas))
    columns = min(len(panels), 2)
    lines = -(-len(panels) // columns)
    with style():
        size = (PAGE, 1.9 * lines + 0.4)
        figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False, layout="constrained")
        for axis, (model, dataset) in zip(axes.flat, panels, strict=False):
            for method, (color, marker) in shown.items():
                if (model, dataset, method) not in deltas:
                    continue
                steps = pd.DataFrame(read_provenance(deltas[model, dataset, method])["trace"])
                if "leak" not in steps:  # of updates that are zero
                    continue
                name = label(labels, "methods", method)
                for _, part in steps.groupby("position", sort=False):
                    axis.plot(part.layer, part.leak, color=color, marker=marker, markersize=3, label=name)
                    name = None  # in the legend once
            axis.axhline(1, color="0.5", linewidth=0.5, linestyle=":")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.set(title=f"{label(labels, 'models', model)}, {label(labels, 'datasets', dataset)}", ylim=(0, None))
        for axis in axes[:, 0]:
            axis.set_ylabel("leak")
        for axis in axes[-1]:
            axis.set_xlabel("block")
        legend(figure, shown_once(axes.flat))
        save(figure, out)


def draw_leak_costs(table: Path, searches: Sequence[Path], title: str, out: Path) -> None:
    """The leak that keys alone foretell, by layer; and, of edits whose high region was moved, LS over what leaked.

    `table` is of the stage `leaks`, `searches` of the stage `search` over the layers of regions.
    """
    leaks = pd.read_csv(table)
    trials = [trial for path in searches for trial in islice(read_jsonl(path), 1, None)]
    moved = pd.DataFrame([point for trial in trials if (point := _point(trial))])
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 2.4), width_ratios=[1.5, 1], layout="constrained")
        for position, part in leaks.groupby("position", sort=False):
            left.plot(part.layer, part.leak, "o-", markersize=2, color=_COLORS[position], label=f"keys, {position}")
        left.plot(moved.layer, moved.leak, "kx", markersize=3, label="edits, prediction")
        left.axhline(1, color="0.5", linewidth=0.5, linestyle=":")
        left.set(xlabel="block", ylabel="leak", title=title, ylim=(0, None))
        left.xaxis.set_major_locator(MaxNLocator(integer=True))
        left.legend()
        right.plot(moved.leak, moved.LS, "kx", markersize=3)
        found = spearmanr(moved.leak, moved.LS)
        right.set(xlabel="leak of the high region", ylabel="LS (%)")
        right.set_title(f"Spearman's ρ = {found.statistic:.2f}, p = {found.pvalue:.2f}, {len(moved)} edits")
        save(figure, out)


def _point(trial: Mapping) -> dict[str, int | float] | None:
    """Of a trial: its high region's last layer, what leaked there on average, and LS; None where it changed nothing."""
    (result,) = trial["sets"].values()
    high = [step for step in result.get("reached", ()) if step["position"] == "prediction" and "leak" in step]
    if not high:
        return None
    return {"layer": high[-1]["layer"], "leak": sum(step["leak"] for step in high) / len(high), "LS": result["LS"]}

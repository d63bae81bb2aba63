"""What the probes found: Figures 1, 2 and 5."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator

from jeep.common.storage import read_json, read_jsonl
from jeep.report.figures.style import PAGE, PALETTE, legend, save, shown_once, style

_COLORS = {"original": PALETTE[0], "new": PALETTE[1]}
_NAMES = {"original": "original answer", "new": "new answer"}
_PLACES = {"subject_last": "subject's last token", "prediction": "prediction position"}
_STAGES = {"subject_last": ("low",), "prediction": ("middle", "high")}
"""Of the recall of an answer (§4.1), by the position where each is found."""
_STAGE_COLORS = {"low": PALETTE[2], "middle": "0.6", "high": PALETTE[3]}
_SETS = {"original": 0, "factual": 2, "non-factual": 4, "stop words": 1, "unrelated": 7}
_LEAST = 1e-8
"""Probabilities below are drawn here."""


def draw_prompt(table: Path, title: str, out: Path) -> None:
    """Figure 1: the original answer's probability and rank at every token of a prompt, after every layer."""
    flow = pd.read_csv(table, keep_default_na=False)
    tokens = flow.drop_duplicates("index")
    marks = {"subject_last": " ◀ subject", "prediction": " ◀ prediction"}
    names = [f"{row.token.strip() or '␣'}{marks.get(row.place, '')}" for row in tokens.itertuples()]
    with style():
        size = (PAGE, 0.16 * len(names) + 1.1)
        figure, axes = plt.subplots(1, 2, figsize=size, layout="constrained", sharey=True)
        for axis, column, label, cmap in (
            (axes[0], "probability", "probability", "viridis"),
            (axes[1], "rank", "1 + rank", "viridis_r"),
        ):
            grid = flow.pivot(index="index", columns="layer", values=column)
            grid = grid.clip(lower=_LEAST) if column == "probability" else 1 + grid
            norm = LogNorm(grid.to_numpy().min(), grid.to_numpy().max())
            sns.heatmap(grid, ax=axis, norm=norm, cmap=cmap, cbar_kws={"label": label}, rasterized=True)
            axis.set(xlabel="layer (0: embedding)", ylabel="", yticks=np.arange(len(names)) + 0.5)
            axis.set_yticklabels(names, rotation=0)
        figure.suptitle(f"Original answer: “{flow.answer[0]}”, its first token. {title}")
        save(figure, out)


def draw_contrast(table: Path, regions: Path, title: str, out: Path) -> None:
    """Figure 2: mean rank and probability of both answers' first tokens by layer, at both positions.

    Bands are 95 % intervals over prompts. Each stage is shaded in the panel of its position: the proposed low region at
    the subject, the middle layers and the proposed high region at the prediction.
    """
    states = pd.read_parquet(table)
    states = states[states["part"] == "state"]
    proposed = read_json(regions)
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(PAGE, 2.5), layout="constrained")
        for axis, (place, name) in zip(axes, _PLACES.items(), strict=True):
            other = axis.twinx()
            other.grid(False)
            for answer, color in _COLORS.items():
                rows = states[(states["position"] == place) & (states["answer"] == answer)]
                _band(axis, 1 + rows["rank"], rows["layer"], color, "-", f"{_NAMES[answer]}, rank")
                _band(other, rows["probability"], rows["layer"], color, "--", f"{_NAMES[answer]}, probability")
            axis.set(title=f"at the {name}", xlabel="layer (0: embedding)", yscale="log")
            axis.set_ylabel("1 + mean rank (top: best)")
            axis.invert_yaxis()
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            other.set_ylabel("mean probability")
            other.set_ylim(bottom=0)
            _shade(axis, proposed, _STAGES[place])
        lines = [line for one in (axis, other) for line in one.get_lines() if not line.get_label().startswith("_")]
        figure.legend(lines, [line.get_label() for line in lines], loc="outside lower center", ncols=4)
        figure.suptitle(title)
        save(figure, out)


def draw_contributions(table: Path, title: str, out: Path) -> None:
    """What each block's MLP and attention add to an answer: the fall of log10(1 + rank) against the state without it.

    Means over prompts with 95 % intervals, at both positions.
    """
    results = pd.read_parquet(table)
    results = results.assign(level=np.log10(1 + results["rank"]))
    keys = ["case_id", "position", "layer", "answer"]
    wide = results.pivot(index=keys, columns="part", values="level").dropna().reset_index()
    parts = {"without_mlp": ("MLP", "-"), "without_attention": ("attention", ":")}
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(PAGE, 2.4), layout="constrained", sharey=True)
        for axis, (place, name) in zip(axes, _PLACES.items(), strict=True):
            for answer, color in _COLORS.items():
                rows = wide[(wide["position"] == place) & (wide["answer"] == answer)]
                for part, (label, line) in parts.items():
                    gain = rows[part] - rows["state"]
                    _band(axis, gain, rows["layer"] - 1, color, line, f"{_NAMES[answer]}, {label}")
            axis.set(title=f"at the {name}", xlabel="block", ylabel="gain of log10(1 + rank)")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        lines = axes[0].get_lines()
        figure.legend(lines, [line.get_label() for line in lines], loc="outside lower center", ncols=len(lines))
        figure.suptitle(f"What MLP and attention of each block add: {title}")
        save(figure, out)


def _band(axis: Axes, values: pd.Series, layers: pd.Series, color, line: str, label: str) -> None:
    """Mean by layer with its 95 % interval; on a logarithmic axis it does not reach below the least value."""
    groups = values.groupby(layers)
    mean, half = groups.mean(), 1.96 * groups.std() / np.sqrt(groups.count())
    axis.plot(mean.index, mean, line, color=color, label=label)
    low = (mean - half).clip(lower=values.min() if values.min() > 0 else None)
    axis.fill_between(mean.index, low, mean + half, color=color, alpha=0.2, linewidth=0)


def _shade(axis: Axes, proposed: dict, stages: Sequence[str]) -> None:
    """Mark stages where they were found; a block l changes what is drawn between l and l + 1."""
    for name in stages:
        if proposed[name]:
            span = proposed[name][0], proposed[name][-1] + 1
            axis.axvspan(*span, color=_STAGE_COLORS[name], alpha=0.12, linewidth=0)
            height = 0.08 if name == "middle" else 0.02  # it may overlap the high region
            transform = axis.get_xaxis_transform()
            axis.text(sum(span) / 2, height, name, ha="center", transform=transform, fontsize=6.5)
    axis.set_xlim(0, len(proposed["prediction"]))


def draw_words(table: Path, title: str, out: Path) -> None:
    """Figure 5: mean summed probability of every word set's first tokens by layer, at the prediction position."""
    results = pd.read_parquet(table)
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(PAGE, 2.6), layout="constrained")
        for name, color in _SETS.items():
            rows = results[results["set"] == name]
            for axis, column in zip(axes, ("probability", "rank"), strict=True):
                values = rows[column].clip(lower=_LEAST) if column == "probability" else 1 + rows[column]
                _band(axis, values, rows["layer"], PALETTE[color], "-", name)
        axes[0].set(ylabel="mean summed probability", yscale="log")
        axes[1].set(ylabel="1 + mean rank (top: best)", yscale="log")
        axes[1].invert_yaxis()
        for axis in axes:
            axis.set_xlabel("layer (0: embedding)")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        lines = axes[0].get_lines()
        figure.legend(lines, [line.get_label() for line in lines], loc="outside lower center", ncols=len(lines))
        figure.suptitle(title)
        save(figure, out)


def draw_placement(
    searches: Mapping[str, Path], configured: Mapping[str, Sequence[int]], regions: Path, title: str, out: Path
) -> None:
    """Score on development facts by the layers of a region, from a search over the layers of each.

    `searches` and `configured` (the layers in use) are by setting, such as low.layers. A bar spans the
    layers of its region, with the 95 % half-width over facts; the configured one is thick, and what the contrast
    probe proposes is shaded.
    """
    with style():
        figure, axis = plt.subplots(figsize=(PAGE, 2.4), layout="constrained")
        for color, (setting, path) in zip((PALETTE[2], PALETTE[3]), searches.items(), strict=False):
            for trial in islice(read_jsonl(path), 1, None):  # behind the line about the search
                layers, (result,) = trial["settings"][setting], trial["sets"].values()
                thick = layers == list(configured[setting])
                ends = np.array([min(layers) + 0.1, max(layers) + 0.9])
                line = {"color": color, "linewidth": 2.4 if thick else 1.0, "solid_capstyle": "butt"}
                axis.plot(ends, [result["Score"]] * 2, **line, label=setting if thick else None)
                axis.errorbar(ends.mean(), result["Score"], result["ci95"], color=color, linewidth=0.5)
        _shade(axis, read_json(regions), ("low", "high"))
        axis.set(xlabel="block", ylabel="Score (%)", title=title)
        legend(figure, shown_once([axis]), "outside lower center")
        save(figure, out)

"""Figure 3: the procedure, drawn from a real edit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from jeep.common.storage import read_tensors
from jeep.report.figures.style import PAGE, PALETTE, save, style

_REGION = {"subject_last": ("low", PALETTE[2], "δ′"), "prediction": ("high", PALETTE[3], "δ*")}


def draw_procedure(deltas: Path, prompt: Mapping[str, Any], title: str, out: Path) -> None:
    """Where δ′ and δ* sit, which layers change and by how much, and the residual left behind each layer's update.

    `deltas` is an edit with its trace; `prompt` a fact's tokens with the indices subject_last and prediction.
    """
    steps = read_tensors(deltas)[1]["trace"]
    depth = max(step["layer"] for step in steps) + 3
    with style():
        figure, axes = plt.subplots(
            1, 3, figsize=(PAGE, 3.4), sharey=True, width_ratios=[1.5, 1, 1], layout="constrained"
        )
        _grid(axes[0], steps, prompt, depth)
        for step in steps:
            color = _REGION[step["position"]][1]
            axes[1].barh(step["layer"], 100 * step["relative_change"], color=color, height=0.7)
        axes[1].set(xlabel="‖Δ‖ / ‖W‖ (%)", title="change of each edited W_O")
        for position, (region, color, _) in _REGION.items():
            part = [step for step in steps if step["position"] == position]
            if part:
                values = [part[0]["residual_before"], *(step["residual_after"] for step in part)]
                layers = [part[0]["layer"] - 1, *(step["layer"] for step in part)]
                share = np.array(values) / values[0]
                axes[2].plot(100 * share, layers, "o-", color=color, markersize=3, label=f"{region} region")
        axes[2].set(xlabel="‖v − h‖ left (% of the first)", title="residual behind each update", xlim=(0, None))
        axes[2].legend()
        axes[0].yaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0].set_ylim(-1, depth + 0.5)
        figure.suptitle(title)
        save(figure, out)


def _grid(axis: Axes, steps: list[dict], prompt: Mapping[str, Any], depth: int) -> None:
    """Layers over tokens, with both lookup positions and the edited layers."""
    tokens = prompt["tokens"]
    for layer in range(depth):
        axis.plot(range(len(tokens)), [layer] * len(tokens), ".", color="0.8", markersize=2)
    for position, (region, color, delta) in _REGION.items():
        layers = [step["layer"] for step in steps if step["position"] == position]
        if not layers:
            continue
        column = prompt[position]
        side = -1 if column > len(tokens) / 2 else 1  # where there is room for the text
        axis.axhspan(min(layers) - 0.5, max(layers) + 0.5, color=color, alpha=0.12, linewidth=0)
        axis.plot([column] * len(layers), layers, "s", color=color, markersize=4)
        axis.annotate(
            f"{delta} (step {'1, 2' if region == 'low' else '1, 3'})",
            (column, max(layers)),
            xytext=(column + 0.4 * side, max(layers) + 0.06 * depth),
            ha="right" if side < 0 else "left",
            arrowprops={"arrowstyle": "->", "color": color},
            color=color,
        )
    axis.set(xticks=range(len(tokens)), ylabel="layer", title="where the target vectors are")
    axis.set_xticklabels([token.strip() or "␣" for token in tokens], rotation=60, ha="right")
    axis.grid(False)

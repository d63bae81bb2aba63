"""The losses of hyper-networks in training."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from jeep.common.storage import read_tensors
from jeep.report.figures.style import PAGE, PALETTE, save, style

_WINDOW = 10


def draw_training(networks: Mapping[str, Path], out: Path) -> None:
    """A panel for each network, by its title: edit loss and locality loss by step, and their running means."""
    with style():
        columns = min(len(networks), 4)
        rows = -(-len(networks) // columns)
        figure, axes = plt.subplots(rows, columns, figsize=(PAGE, 1.8 * rows), squeeze=False, layout="constrained")
        for axis in axes.flat[len(networks) :]:
            axis.set_visible(False)
        for axis, (title, path) in zip(axes.flat, networks.items(), strict=False):
            losses = pd.DataFrame(read_tensors(path)[0]["losses"].numpy(), columns=["edit (NLL)", "locality (KL)"])
            losses.index += 1
            for color, name in zip(PALETTE, losses, strict=False):
                axis.plot(losses.index, losses[name], color=color, alpha=0.3, linewidth=0.6)
                axis.plot(losses[name].rolling(_WINDOW, min_periods=1).mean(), color=color, label=name)
            axis.set(title=title, xlabel="step", ylim=(0, None))
        axes[0, 0].set_ylabel("loss (nats)")
        axes[0, 0].legend()
        save(figure, out)

"""What all figures share: size, colours that colour-blind readers can tell apart, and how they are saved."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import seaborn as sns
from matplotlib.figure import Figure

from jeep.common.storage import atomic

COLUMN, PAGE = 3.4, 7.0
"""Widths of a column and of a page, in inches."""
PALETTE = sns.color_palette("colorblind")


@contextmanager
def style() -> Iterator[None]:
    """Draw without a screen, in sizes that are legible at column width."""
    matplotlib.use("agg")
    fonts = {"font.size": 7, "figure.titlesize": 8, "axes.titlesize": 7, "axes.labelsize": 7, "legend.fontsize": 6.5}
    ticks = {"xtick.labelsize": 6.5, "ytick.labelsize": 6.5}
    lines = {"axes.linewidth": 0.6, "lines.linewidth": 1.1, "grid.linewidth": 0.4, "legend.frameon": False}
    # Fonts embedded as TrueType stay text that can be searched; a fixed salt keeps SVG ids the same.
    with sns.axes_style("whitegrid"), matplotlib.rc_context({**fonts, **ticks, **lines, "pdf.fonttype": 42}):
        yield


def save(figure: Figure, out: Path) -> None:
    """Write a figure as PDF to `out` and as PNG beside it; the same figure gives the same files."""
    for path, options in (
        (out, {"metadata": {"CreationDate": None}}),
        (out.with_suffix(".png"), {"dpi": 220, "metadata": {"Software": None}}),
    ):
        with atomic(path) as temporary:
            figure.savefig(temporary, bbox_inches="tight", **options)
    matplotlib.pyplot.close(figure)

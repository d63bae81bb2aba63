"""What all figures share: size, colours that colour-blind readers can tell apart, and how they are saved."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import seaborn as sns
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, LogFormatterMathtext, StrMethodFormatter

from jeep.common.storage import atomic

COLUMN, PAGE = 3.4, 7.0
"""Widths of a column and of a page, in inches."""
PALETTE = sns.color_palette("colorblind")
MARKERS = "osD^vP*X"


_OTHER_SCRIPTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans Thai",
    "WenQuanYi Zen Hei",
    "Noto Emoji",
    "Symbola",
)


def _installed() -> list[str]:
    """Fonts of other scripts that this machine has."""
    names = {font.name for font in font_manager.fontManager.ttflist}
    return [name for name in _OTHER_SCRIPTS if name in names]


@contextmanager
def style() -> Iterator[None]:
    """Draw without a screen, in sizes that are legible at column width."""
    matplotlib.use("agg")
    fonts = {"font.size": 7, "figure.titlesize": 8, "axes.titlesize": 7, "axes.labelsize": 7, "legend.fontsize": 6.5}
    ticks = {"xtick.labelsize": 6.5, "ytick.labelsize": 6.5}
    lines = {"axes.linewidth": 0.6, "lines.linewidth": 1.1, "grid.linewidth": 0.4, "legend.frameon": False}
    # Subjects, answers and labels are text: a dollar sign starts no formula.
    plain = {"text.parse_math": False, "font.family": ["DejaVu Sans", *_installed()]}
    # Fonts embedded as TrueType stay text that can be searched; a fixed salt keeps SVG ids the same.
    with sns.axes_style("whitegrid"), matplotlib.rc_context({**fonts, **ticks, **lines, **plain, "pdf.fonttype": 42}):
        yield


def save(figure: Figure, out: Path) -> None:
    """Write a figure as PDF to `out` and as PNG beside it; the same figure gives the same files."""
    for axis in (each for axes in figure.axes for each in (axes.xaxis, axes.yaxis)):
        if not isinstance(axis.get_major_formatter(), LogFormatterMathtext):
            continue
        if axis.get_scale() == "log":
            axis.set_major_formatter(LogFormatter())  # numbers are text too
            axis.set_minor_formatter(LogFormatter())
        else:  # linear about zero
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    for path, options in (
        (out, {"metadata": {"CreationDate": None}}),
        (out.with_suffix(".png"), {"dpi": 220, "metadata": {"Software": None}}),
    ):
        with atomic(path) as temporary:
            figure.savefig(temporary, bbox_inches="tight", **options)
    matplotlib.pyplot.close(figure)

"""What all figures share: size, colours that colour-blind readers can tell apart, and how they are saved."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import seaborn as sns
from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, LogFormatterMathtext, NullLocator, StrMethodFormatter

from jeep.common.storage import atomic

COLUMN, PAGE = 3.4, 7.0
"""Widths of a column and of a page, in inches."""
PALETTE = sns.color_palette("colorblind")
MARKERS = "osD^vP*X"
_IN_A_ROW = 6
"""Names of a legend across a page."""


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


def looks(names: Iterable[str]) -> dict[str, tuple[tuple[float, float, float], str]]:
    """A colour and a marker for each name, no pair of them twice among forty."""
    return dict(zip(names, zip(itertools.cycle(PALETTE), itertools.cycle(MARKERS), strict=False), strict=False))


def legend(figure: Figure, handles: Mapping[str, Artist | Container], loc: str = "outside upper center") -> None:
    """The lines of a whole figure by their names, in as many rows as they need."""
    rows = max(1, -(-len(handles) // _IN_A_ROW))
    figure.legend(handles.values(), handles.keys(), loc=loc, ncols=-(-len(handles) // rows))


def shown_once(axes: Iterable[Axes]) -> dict[str, Artist | Container]:
    """The named lines of some panels, by name."""
    return {name: line for axis in axes for line, name in zip(*axis.get_legend_handles_labels(), strict=True)}


def numbers_axis(axis: Axes, numbers: Iterable[float | int]) -> None:
    """A logarithmic axis whose ticks are numbers that were measured: the least, the greatest, and some between."""
    axis.set_xscale("log")
    numbers = sorted(set(numbers))
    apart = (numbers[-1] / numbers[0]) ** 0.2
    chosen = numbers[:1]
    for number in numbers[1:]:
        if number >= chosen[-1] * apart:
            chosen.append(number)
    chosen[-1] = numbers[-1]
    axis.set_xticks(chosen, [f"{number:g}" for number in chosen])
    axis.xaxis.set_minor_locator(NullLocator())


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


class _LogNumbers(LogFormatter):
    """Ticks of a logarithmic axis where LogFormatter has them, as 0.1 and 100 and not as 1e-01."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return self.fix_minus(f"{x:g}") if super().__call__(x, pos) else ""


def save(figure: Figure, out: Path) -> None:
    """Write a figure as PDF to `out` and as PNG beside it; the same figure gives the same files."""
    for axis in (each for axes in figure.axes for each in (axes.xaxis, axes.yaxis)):
        if not isinstance(axis.get_major_formatter(), LogFormatterMathtext):
            continue
        if axis.get_scale() == "log":
            axis.set_major_formatter(_LogNumbers())  # numbers are text too
            axis.set_minor_formatter(_LogNumbers())
        else:  # linear about zero
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    for path, options in (
        (out, {"metadata": {"CreationDate": None}}),
        (out.with_suffix(".png"), {"dpi": 220, "metadata": {"Software": None}}),
    ):
        with atomic(path) as temporary:
            figure.savefig(temporary, bbox_inches="tight", **options)
    matplotlib.pyplot.close(figure)

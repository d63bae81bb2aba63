"""The README's table of the benchmark, from its results file."""

from pathlib import Path

import pandas as pd

from jeep.common.errors import UserError
from jeep.common.storage import atomic, read_json

BEGIN, END = "<!-- benchmark -->", "<!-- /benchmark -->"
"""Marks of a page's first table; another one has its own name in the place of `benchmark`."""


def table(results: Path) -> str:
    """The results as Markdown, and which machine they are of."""
    machine = read_json(results.with_name("machine.json"))
    rows = pd.DataFrame(read_json(results))
    rate = rows["operations"] / rows["ours_seconds"] / machine["operations_per_second"]
    shown = pd.DataFrame(
        {
            "what": rows["what"],
            "of": rows["unit"],
            "plain": [_plain(row) for row in rows.to_dict("records")],
            "jeep": rows["ours_seconds"].map("{:.2f} s".format),
            "ratio": [f"{r.ratio:.1f} ({r.ratio_low:.1f}-{r.ratio_high:.1f})" for r in rows.itertuples()],
            "spent / needed": (rows["operations"] / rows["operations_needed"]).map("{:.2f}".format, na_action="ignore"),
            "of the matrix rate": (100 * rate).map("{:.0f} %".format, na_action="ignore"),
        }
    )
    where = (
        f"{machine['processor']}, {machine['threads']} threads, float32, PyTorch {machine['torch']}; "
        f"its matrix products reach {machine['operations_per_second'] / 1e9:.0f} GFLOP/s. "
        "\\*: not run; the mean of a few requests, times the number."
    )
    return f"{shown.fillna('').to_markdown(index=False)}\n\n{where}"


def _plain(row: dict) -> str:
    """The plain way's time, with a star where it was extrapolated."""
    star = "" if pd.isna(row.get("plain_extrapolated_from")) else "\\*"
    return f"{row['plain_seconds']:.2f} s{star}"


def write_report(results: Path, readme: Path) -> None:
    """Replace the table between the marks of a Markdown file. Raises UserError where it has no marks."""
    replace_table(readme, table(results))


def replace_table(path: Path, content: str, name: str = "benchmark") -> None:
    """Put a table between the marks of a Markdown file. Raises UserError where it has no marks."""
    begin, end = (mark.replace("benchmark", name) for mark in (BEGIN, END))
    text = path.read_text(encoding="utf-8")
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise UserError(f"{path}: no place for the table ({begin} … {end})")
    with atomic(path) as temporary:
        temporary.write_text(f"{before}{begin}\n{content}\n{end}{after}", encoding="utf-8")

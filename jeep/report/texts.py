"""Texts for readers: tables as Markdown, LaTeX and HTML beside a CSV file, and pages from templates."""

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from jeep.common.storage import atomic

Frames = Mapping[str, pd.DataFrame]
"""Tables by their titles; the index is shown."""

_STYLE = """<!doctype html><meta charset="utf-8"><style>
body { font: 14px sans-serif; margin: 2em } table { border-collapse: collapse }
th, td { padding: 0.2em 0.8em; text-align: left; border-bottom: 1px solid #ccc; vertical-align: top }
</style>
"""


def write_texts(out: Path, frames: Mapping[str, Frames], caption: str) -> None:
    """Write `frames[suffix]` beside the CSV file `out`, for any of the suffixes .md, .tex and .html.

    Text is text: what would be markup in the format is escaped, unless it is `Markup`.
    """
    writers = {".md": _markdown, ".tex": _latex, ".html": _html}
    for suffix, parts in frames.items():
        shown = {escape(suffix, title): _escaped(part, suffix) for title, part in parts.items()}
        with atomic(out.with_suffix(suffix)) as temporary:
            temporary.write_text(writers[suffix](shown, escape(suffix, caption)), encoding="utf-8")


@dataclass(frozen=True)
class Markup:
    """Text that is in its format's own language already. No str, which a table would make a plain one."""

    text: str


_LATEX = str.maketrans(
    {
        **{sign: rf"\{sign}" for sign in "{}$&#_%"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "[": "{[}",  # behind the end of a row it would begin an option
    }
)
_MARKDOWN = re.compile(r"[\\`*\[\]|]|<(?=[A-Za-z/!?])|(?<!\w)_|_(?!\w)|&(?=#?\w+;)")
"""What may begin markup; an underscore inside a word does not."""


def escape(suffix: str, text: str) -> str:
    """A text in the language of a format."""
    if suffix == ".html":
        return html.escape(text)
    if suffix == ".tex":
        return text.translate(_LATEX)
    return _as_markdown(text)


def _as_markdown(text: str) -> str:
    return _MARKDOWN.sub(lambda sign: "\\" + sign[0], re.sub(r"[\r\n]+", " ", text))


def _escaped(frame: pd.DataFrame, suffix: str) -> pd.DataFrame:
    """A table whose texts are escaped: cells, rows' and columns' names."""

    def cell(value: Any) -> Any:
        if isinstance(value, Markup):
            return value.text
        return escape(suffix, value) if isinstance(value, str) else value

    def names(index: pd.Index) -> pd.Index:
        if isinstance(index, pd.MultiIndex):
            rows = [tuple(map(cell, row)) for row in index]
            return pd.MultiIndex.from_tuples(rows, names=list(map(cell, index.names)))
        return pd.Index(list(map(cell, index)), name=cell(index.name))

    found = frame.map(cell)
    found.index, found.columns = names(frame.index), names(frame.columns)
    return found


def render(template: Path, *, escape: bool = False, **values: Any) -> str:
    """A Jinja template with its values; `escape` for HTML, where they are text. What it lacks is an error.

    In Markdown the filter `text` says which values are.
    """
    layout = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        autoescape=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    layout.filters["text"] = lambda value: _as_markdown(str(value))
    return layout.from_string(template.read_text(encoding="utf-8")).render(values)


def _markdown(parts: Frames, caption: str) -> str:
    tables = (part.reset_index().to_markdown(index=False, disable_numparse=True) for part in parts.values())
    return "\n\n".join(f"{title}\n\n{table}" for title, table in zip(parts, tables, strict=True)) + f"\n\n{caption}\n"


def _latex(parts: Frames, caption: str) -> str:
    return "\n".join(part.to_latex(escape=False, caption=f"{title}: {caption}") for title, part in parts.items())


def _html(parts: Frames, caption: str) -> str:
    tables = (part.reset_index().to_html(index=False, escape=False, border=0) for part in parts.values())
    body = "\n".join(f"<h3>{title}</h3>\n{table}" for title, table in zip(parts, tables, strict=True))
    return f"{_STYLE}{body}\n<p>{caption}</p>\n"

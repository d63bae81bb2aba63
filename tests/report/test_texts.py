"""Subjects, answers and names are text in every format, whatever signs they have."""

import html
import re

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from markdown_it import MarkdownIt

from jeep.report.case_study import write_study
from jeep.report.figures.style import save, style
from jeep.report.texts import Markup, escape, write_texts

SIGNS = r"5 % of A&B_C: $x^2$ <b>{é}</b> ~ \n | 巴黎"


def test_signs_are_themselves_in_every_format(tmp_path):
    frame = pd.DataFrame({SIGNS: [SIGNS, Markup("<x>")], "n": [1, 2]}, index=pd.Index([SIGNS, "b"], name="a_b"))
    write_texts(tmp_path / "t.csv", {key: {SIGNS: frame} for key in (".md", ".tex", ".html")}, SIGNS)
    page = (tmp_path / "t.html").read_text()
    assert "<b>{" not in page
    assert html.unescape(page).count(SIGNS) == 5, "title, column, row, cell and caption"
    latex = (tmp_path / "t.tex").read_text()
    assert (
        latex.count(r"5 \% of A\&B\_C: \$x\textasciicircum{}2\$ <b>\{é\}</b> \textasciitilde{} \textbackslash{}n") == 5
    )
    assert r"a\_b" in latex
    table = (tmp_path / "t.md").read_text()
    assert r"\<b>{é}\</b> ~ \\n \| 巴黎" in table
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}, "a bar in a cell is no column"
    assert all("<x>" in text for text in (page, latex, table)), "markup stays"


@pytest.mark.parametrize(
    "text",
    [
        SIGNS,
        r"a\|b", "![x](http://e/x.png)", "[a](javascript:1)", "<?php", "<!-- x", "*b* **c**", "_c_ d_e f_", "`d`",
        "A&amp;B &#38;",
        "two\r\nlines",
    ],
)  # fmt: skip
def test_a_reader_of_markdown_shows_what_was_written(tmp_path, text):
    """By a Markdown library, in a table's cell and in the caption; nothing in it is markup."""
    write_texts(
        tmp_path / "t.csv", {".md": {"title": pd.DataFrame({"a": [text]}, index=pd.Index([1], name="n"))}}, text
    )
    page = MarkdownIt("commonmark").enable("table").render((tmp_path / "t.md").read_text())
    cells = re.findall(r"<(?:td[^>]*|p)>(.*?)</", page, re.DOTALL)
    expected = re.sub(r"[\r\n]+", " ", text)
    assert html.unescape(cells[-2]) == html.unescape(cells[-1]) == expected


@pytest.mark.parametrize("suffix", [".md", ".tex", ".html"])
def test_what_a_model_generates_is_text(tmp_path, suffix):
    rows = [("m", "edited", f"Where is {SIGNS}?", "A_B", SIGNS, right) for right in (True,)]
    rows.append(("other", "edited", f"Where is {SIGNS}?", "A_B", SIGNS, False))
    table = pd.DataFrame(rows, columns=["method", "kind", "prompt", "wanted", "generated", "right"])
    write_study(table, "1", {}, "a_b", tmp_path / "study.csv")
    text = (tmp_path / "study.csv").with_suffix(suffix).read_text()
    assert text.count(escape(suffix, SIGNS)) == 3
    cross = r"$\times$" if suffix == ".tex" else "✗"
    assert f"{cross} {escape(suffix, SIGNS)}" in text


def test_figures_draw_signs_and_numbers_as_text(tmp_path):
    with style():
        figure, axes = plt.subplots()
        axes.plot([1, 1000], [1e-4, 1])
        axes.set(xscale="log", yscale="log", title=SIGNS.replace("巴黎", ""))
        save(figure, tmp_path / "figure.pdf")
        labels = [label.get_text() for label in (*axes.get_xticklabels(), *axes.get_yticklabels())]
        assert not axes.title.get_parse_math()
    assert {"10", "1000", "0.001"} <= set(labels)
    assert not any("$" in label for label in labels)


def test_numbers_about_zero_are_text_too(tmp_path):
    with style():
        figure, axes = plt.subplots()
        axes.plot([0, 1], [-20, 3000])
        axes.set_yscale("symlog", linthresh=1)
        save(figure, tmp_path / "figure.pdf")
        labels = [label.get_text() for label in axes.get_yticklabels()]
    assert {"0", "1", "1000"} <= set(labels)
    assert not any("$" in label for label in labels)

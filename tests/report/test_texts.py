"""Subjects, answers and names are text in every format, whatever signs they have."""

import html
import re

import matplotlib.pyplot as plt
import pandas as pd
import pytest

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
    assert r"&lt;b>{é}&lt;/b> ~ \n \| 巴黎" in table
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}, "a bar in a cell is no column"
    assert all("<x>" in text for text in (page, latex, table)), "markup stays"


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
    assert {"10", "1000", "1e−03"} <= set(labels)
    assert not any("$" in label for label in labels)

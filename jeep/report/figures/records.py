"""Figures 7 and 8: an example record of a data set."""

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt

from jeep.data.facts import Fact
from jeep.report.figures.style import PAGE, PALETTE, save, style

_WIDTH, _SHOWN = 84, 3


def _lines(fact: Fact) -> list[tuple[str, str]]:
    """The record's parts, as names with texts."""
    rows = [("subject", fact.subject), ("edited prompt", fact.prompt), ("new answer", fact.target_new)]
    if fact.target_true:
        rows.append(("original answer", fact.target_true))
    rows += [("equivalent prompt", prompt) for prompt in fact.paraphrases]
    rows += [("unrelated prompt", f"{asked.prompt} → {asked.answer}") for asked in fact.unrelated[:_SHOWN]]
    if len(fact.unrelated) > _SHOWN:
        rows.append(("", f"… and {len(fact.unrelated) - _SHOWN} more"))
    return rows


def draw_record(fact: Fact, title: str, out: Path) -> None:
    """A record's prompts and answers as a card."""
    rows = [(name, textwrap.wrap(text, _WIDTH) or [""]) for name, text in _lines(fact)]
    count = sum(len(lines) for _, lines in rows)
    with style():
        figure, axis = plt.subplots(figsize=(PAGE, 0.17 * count + 0.4), layout="constrained")
        axis.set(xlim=(0, 1), ylim=(count, -0.3), title=title)
        axis.axis("off")
        line = 0
        for name, lines in rows:
            axis.text(0.01, line, name, va="top", color=PALETTE[0], fontweight="bold")
            for text in lines:
                axis.text(0.2, line, text, va="top")
                line += 1
        save(figure, out)

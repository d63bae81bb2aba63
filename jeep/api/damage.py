"""What else an edit of one's own model changes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jeep.api.statistics import corpus_of
from jeep.common.errors import UserError
from jeep.data.choices import Choice, read_choices
from jeep.data.corpus import texts
from jeep.measure.damage import Damage, Questions
from jeep.measure.drift import SHORT, held_out_windows
from jeep.model.windows import windows
from jeep.report.damage import BY, damage_metrics

if TYPE_CHECKING:
    import pandas as pd

    from jeep.api.editing import Edit

Tasks = Mapping[str, str | Path | Sequence[Choice]]
"""Multiple-choice questions by the name of a task, or files of them."""
_SHOWN = ["kind", "metric", "units", "before", "value", "difference", "low", "high"]


def damage_of(
    edit: Edit, text: str | Path | Iterable[str] | None, tokens: int, tasks: Tasks, facts: int, token_budget: int
) -> pd.DataFrame:
    """As `Edit.damage` says."""
    was_in_force = edit.in_force
    edit.undo()
    try:
        questions = Questions(
            facts=edit.facts[:facts],
            metrics="zsre",
            windows=_windows(edit, text, tokens),
            tasks={name: read_choices(each) if isinstance(each, str | Path) else each for name, each in tasks.items()},
        )
        damage = Damage(edit.model, questions, token_budget)
        edit.apply()
        rows = damage.of(edit.facts)
    finally:
        edit.apply() if was_in_force else edit.undo()
    return damage_metrics(rows.assign(**dict.fromkeys(BY, "")))[_SHOWN].rename(columns={"value": "after"})


def _windows(edit: Edit, text: str | Path | Iterable[str] | None, tokens: int) -> list[tuple[int, ...]]:
    """Of text that the edit's covariances have not read; none where they have read all of it, and no other is given."""
    read, model = edit.sample, edit.model
    corpus = read.corpus if text is None and read else corpus_of(text)
    if read and corpus.resolve() == read.corpus.resolve():
        try:
            return held_out_windows(model, read, tokens, SHORT)
        except UserError as error:
            if text is not None:
                raise
            logging.warning("no perplexity and no drift: %s; `text` gives another text", error)
            return []
    return windows(model.tokenizer, texts(corpus), min(SHORT, model.positions), tokens)

"""The first look: the metrics of a few methods, and what their models say."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from jeep.common.storage import atomic
from jeep.data.facts import Fact
from jeep.model.editable import EditableModel
from jeep.model.files import read_of
from jeep.report.case_study import said
from jeep.report.tables import RUN, Labels, chosen, label, layout, metrics_of
from jeep.report.texts import write_texts


def look(model: EditableModel, facts: Sequence[Fact], deltas: Mapping[str, Path | None]) -> pd.DataFrame:
    """What each method's model says to the edited prompts of some facts.

    `deltas` has each method's edit; None for the model as it is.
    """
    texts = []
    for method, path in deltas.items():
        with model.edited(read_of(model.identity, path)[0] if path else {}):
            for fact in facts:
                text = said(model, fact, fact.prompt, fact.target_new)
                texts.append((fact.case_id, fact.prompt, fact.target_new, method, text))
    return pd.DataFrame(texts, columns=["case_id", "prompt", "new answer", "method", "says"])


def write_quick(
    records: Sequence[Path],
    shown: Mapping[str, Sequence[str]],
    texts: pd.DataFrame,
    labels: Labels,
    edits: int,
    out: Path,
) -> None:
    """Write the metrics of `shown` (model, data set, methods) as CSV, and as Markdown with the answers."""
    results = chosen(records, shown, edits)
    table = metrics_of(results, RUN).round({"value": 1, "ci95": 1})
    with atomic(out) as temporary:
        table.to_csv(temporary, index=False)
    index = ["case_id", "prompt", "new answer"]
    names = list(dict.fromkeys(texts["method"]))
    rows = list(dict.fromkeys(texts[index].itertuples(index=False, name=None)))
    words = texts.pivot(index=index, columns="method", values="says").loc[rows, names].droplevel("case_id")
    words.columns = [label(labels, "methods", name) for name in names]
    caption = f"{edits} facts edited at once, all measured, one seed; 95 % half-widths over records."
    write_texts(out, {".md": {**layout(table, labels, "**{}**"), "What the models say": words}}, caption)

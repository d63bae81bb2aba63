"""The first look: a few methods measured on the first facts of a run, and what their models say."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from jeep.common.settings import Metrics
from jeep.common.storage import atomic
from jeep.data.facts import Fact
from jeep.measure.evaluate import evaluate
from jeep.model.editable import EditableModel
from jeep.model.files import read_of
from jeep.report.case_study import said
from jeep.report.tables import RUN, Labels, label, layout, metrics_of
from jeep.report.texts import write_texts


def look(
    model: EditableModel,
    facts: Sequence[Fact],
    metrics: Metrics,
    deltas: Mapping[str, Path | None],
    answers: int,
    token_budget: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Per-prompt results of every method, and what its model says to the edited prompts of the first `answers` facts.

    `deltas` has each method's edit; None for the model as it is.
    """
    results, texts = [], []
    for method, path in deltas.items():
        with model.edited(read_of(model.identity, path)[0] if path else {}):
            results.append(evaluate(model, facts, metrics, token_budget).assign(method=method))
            for fact in facts[:answers]:
                text = said(model, fact, fact.prompt, fact.target_new)
                texts.append((fact.case_id, fact.prompt, fact.target_new, method, text))
    columns = ["case_id", "prompt", "new answer", "method", "says"]
    return pd.concat(results, ignore_index=True), pd.DataFrame(texts, columns=columns)


def write_quick(
    results: pd.DataFrame, texts: pd.DataFrame, run: Mapping[str, str | int], labels: Labels, edits: int, out: Path
) -> None:
    """Write the metrics as CSV, and as Markdown with the answers; `run` names the model, the data set and the seed."""
    table = metrics_of(results.assign(**run), RUN).round({"value": 1, "ci95": 1})
    with atomic(out) as temporary:
        table.to_csv(temporary, index=False)
    index = ["case_id", "prompt", "new answer"]
    names = list(dict.fromkeys(texts["method"]))
    rows = list(dict.fromkeys(texts[index].itertuples(index=False, name=None)))
    words = texts.pivot(index=index, columns="method", values="says").loc[rows, names].droplevel("case_id")
    words.columns = [label(labels, "methods", name) for name in names]
    count = results["case_id"].nunique()
    caption = f"{edits} facts edited at once, measured on the first {count}; 95 % half-widths over records."
    shown = layout(table, labels, "**{}**")
    write_texts(out, {".md": {**shown, "What the models say": words}}, caption)

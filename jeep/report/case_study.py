"""Table 1: what the edited models generate for one record."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch

from jeep.common.errors import UserError
from jeep.common.storage import atomic
from jeep.data.facts import Fact
from jeep.data.joining import join
from jeep.model.editable import EditableModel
from jeep.model.files import read_of
from jeep.model.tokens import encode, encode_pair
from jeep.report.tables import Labels, label
from jeep.report.texts import Markup, escape, write_texts

RULE = (
    "the first record that every editor shown answers on its edited prompt and on whose equivalent or unrelated prompt "
    "they differ; where there is none, the first on which they differ most"
)
TOKENS = 8


@torch.no_grad()
def generate(model: EditableModel, prompt: str, tokens: int = TOKENS, lines: int = 1) -> str:
    """The greedy continuation of a prompt, up to the end of its first `lines`."""
    ids = encode(model.tokenizer, prompt)
    start = len(ids)
    for _ in range(min(tokens, model.bounds.room(ids))):
        packing, states = model.pack([ids])
        states = model.run(states, packing, 0, model.depth - 1)
        ids.append(int(model.logits(states[-1:])[0].argmax()))
    text = model.tokenizer.decode(ids[start:], skip_special_tokens=True)
    return "\n".join(text.strip().split("\n")[:lines])


def questions(fact: Fact) -> Iterator[tuple[str, str, str]]:
    """The edited prompt, an equivalent one and an unrelated one, each with the answer that is wanted."""
    yield "edited", fact.prompt, fact.target_new
    if fact.paraphrases:
        yield "equivalent", fact.paraphrases[0], fact.target_new
    if fact.unrelated:
        yield "unrelated", fact.unrelated[0].prompt, fact.unrelated[0].answer


def choose(results: pd.DataFrame, facts: Sequence[Fact]) -> Fact:
    """The record that RULE names, from the per-record results of all methods shown.

    Raises UserError where there are none.
    """
    first = results[results["number"] == 0]
    table = first.pivot_table(index="case_id", columns=["metric", "method"], values="value")
    known = [fact for fact in facts if fact.case_id in table.index]
    if not known:
        raise UserError("case study: no results of the methods shown")

    def differing(fact: Fact) -> int:
        values = table.loc[fact.case_id]
        return sum(values[metric].nunique() - 1 for metric in ("GS", "LS") if metric in values)

    edited = (fact for fact in known if all(table.loc[fact.case_id]["ES"] == 1) and differing(fact))
    return next(edited, None) or max(known, key=differing)


def begins_with(text: str, wanted: str) -> bool:
    """Whether a text begins with these words, in any case: Cobalt does not begin with Co."""
    return re.match(rf"{re.escape(wanted.strip())}(?!\w)", text, re.IGNORECASE) is not None


def said(model: EditableModel, fact: Fact, prompt: str, wanted: str) -> str:
    """What the model generates behind a prompt of a fact, as long as the wanted answer and a little longer."""
    tokens = max(TOKENS, len(encode_pair(model.tokenizer, prompt, wanted, fact.joiner)[1]) + 2)
    return generate(model, join(prompt, wanted, fact.joiner)[0], tokens, 1 + wanted.strip().count("\n"))


def study(model: EditableModel, fact: Fact, deltas: Mapping[str, Path]) -> pd.DataFrame:
    """What the model generates after each edit, by method: method, kind, prompt, wanted, generated, right."""
    rows = []
    for method, path in deltas.items():
        with model.edited(read_of(model.identity, path)[0]):
            for kind, prompt, wanted in questions(fact):
                text = said(model, fact, prompt, wanted)
                rows.append((method, kind, prompt, wanted, text, begins_with(text, wanted)))
    return pd.DataFrame(rows, columns=["method", "kind", "prompt", "wanted", "generated", "right"])


def write_study(table: pd.DataFrame, case_id: str, labels: Labels, title: str, out: Path) -> None:
    """Write CSV, Markdown, LaTeX and HTML; wrong answers are marked."""
    with atomic(out) as temporary:
        table.assign(case_id=case_id).to_csv(temporary, index=False)

    def wide(suffix: str, cross: str) -> pd.DataFrame:
        shown = [escape(suffix, text) for text in table["generated"]]
        cells = table.assign(
            cell=[
                Markup(text if right else f"{cross} {text}") for text, right in zip(shown, table["right"], strict=True)
            ]
        )
        columns = [label(labels, "methods", name) for name in dict.fromkeys(table["method"])]
        shown = cells.assign(method=[label(labels, "methods", name) for name in cells["method"]])
        return shown.pivot(index=["kind", "prompt", "wanted"], columns="method", values="cell").loc[
            list(dict.fromkeys(zip(table["kind"], table["prompt"], table["wanted"], strict=True))), columns
        ]

    caption = f"Record {case_id}: {RULE}. A cross marks an answer that does not begin with what is wanted."
    crosses = {".md": "✗", ".tex": r"$\times$", ".html": "✗"}
    write_texts(out, {suffix: {title: wide(suffix, cross)} for suffix, cross in crosses.items()}, caption)

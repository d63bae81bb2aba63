"""Facts in whatever form they come: a file, records, a table."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from jeep.common.errors import UserError
from jeep.data.facts import Fact, Format, InvalidFact, parse_facts, read_facts
from jeep.model.selection import checked

Facts = str | Path | Fact | pd.DataFrame | Iterable[Fact | Mapping[str, Any]]
"""A file, a fact, a table with a row for each, or facts and records."""


def _form(row: Mapping[str, Any]) -> Format:
    """The format of a record, by its fields."""
    if "requested_rewrite" in row:
        return "counterfact"
    if "src" in row:
        return "zsre"
    return "jsonl" if "template" in row else "easyedit"


def _parsed(facts: Facts, form: Format | None) -> Iterable[Fact | InvalidFact]:
    if isinstance(facts, str | Path):
        path = Path(facts).expanduser()
        return read_facts(path, form or ("jsonl" if path.suffix == ".jsonl" else "counterfact"))
    if isinstance(facts, Fact):
        return [facts]
    if isinstance(facts, pd.DataFrame):
        facts = [{k: v for k, v in row.items() if v is not None and v == v} for row in facts.to_dict("records")]
    rows = [fact.to_json() if isinstance(fact, Fact) else dict(fact) for fact in facts]
    return [
        parsed
        for number, row in enumerate(rows)
        for parsed in parse_facts([{"case_id": number} | row], form or _form(row))
    ]


def check_facts(facts: Facts, tokenizer, form: Format | None = None) -> tuple[list[Fact], list[dict[str, str]]]:
    """The facts that can be edited in a model with this tokenizer, and {case_id, reason} of the others.

    The format is that of the fields, or of the file's ending (.jsonl: the project's own), where none is named.
    """
    usable: list[Fact] = []
    refused: list[dict[str, str]] = []
    for fact in checked(_parsed(facts, form), None, tokenizer):
        if isinstance(fact, Fact):
            usable.append(fact)
        else:
            refused.append({"case_id": fact.case_id, "reason": fact.reason})
    return usable, refused


def usable_facts(
    facts: Facts, tokenizer, form: Format | None, on_invalid: Literal["error", "skip"]
) -> tuple[list[Fact], list[dict[str, str]]]:
    """As `check_facts`. Raises UserError where none can be used, or one cannot and `on_invalid` is error."""
    usable, refused = check_facts(facts, tokenizer, form)
    if refused and (on_invalid == "error" or not usable):
        first, more = refused[0], f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise UserError(
            f"record {first['case_id']}: {first['reason']}{more}; on_invalid='skip' leaves such records out"
        )
    if not usable:
        raise UserError("no facts to edit")
    return usable, refused


def contradictions(facts: Sequence[Fact]) -> dict[str, str]:
    """For each fact whose prompt another one gives another answer: that one."""
    first: dict[str, Fact] = {}
    found: dict[str, str] = {}
    for fact in facts:
        other = first.setdefault(fact.prompt, fact)
        if other.target_new.strip() != fact.target_new.strip():
            found[fact.case_id], found[other.case_id] = other.case_id, fact.case_id
    return found

"""Facts in whatever form they come: a file, records, a table."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from jeep.common.errors import UserError
from jeep.data.facts import Fact, InvalidFact
from jeep.data.formats import Format, parse_facts, read_rows
from jeep.model.editable import EditableModel
from jeep.model.selection import Asking, checked, sort_out

Facts = str | Path | Fact | pd.DataFrame | Iterable[Fact | Mapping[str, Any]]
"""A file, a fact, a table with a row for each, or facts and records."""


def _form(row: Mapping[str, Any]) -> Format:
    """The format of a record, by its fields."""
    if "requested_rewrite" in row:
        return "mquake" if isinstance(row["requested_rewrite"], list) else "counterfact"
    if "src" in row:
        return "zsre"
    return "jsonl" if "template" in row else "easyedit"


def _rows(facts: Facts) -> Iterable[Mapping[str, Any]]:
    """Facts as records, whatever form they come in."""
    if isinstance(facts, str | Path):
        path = Path(facts).expanduser()
        return read_rows(path, lines=path.suffix != ".json")
    if isinstance(facts, pd.DataFrame):
        return [_without_gaps(row) for row in facts.to_dict("records")]
    facts = [facts] if isinstance(facts, Fact) else facts
    return [fact.to_json() if isinstance(fact, Fact) else fact for fact in facts]


def _without_gaps(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a table as a record: without what is missing in it, arrays as lists."""
    listed = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in row.items()}
    return {name: value for name, value in listed.items() if isinstance(value, list | dict) or not pd.isna(value)}


def _parsed(facts: Facts, form: Format | None) -> Iterator[Fact | InvalidFact]:
    for number, row in enumerate(_rows(facts)):
        named = {"case_id": number} | row if isinstance(row, Mapping) else row
        yield from parse_facts([named], form or _form(row))


def check_facts(facts: Facts, asking: Asking, form: Format | None = None) -> tuple[list[Fact], list[dict[str, str]]]:
    """The facts that can be edited in a model that is asked in this way, and {case_id, reason} of the others.

    The format is known by the fields where none is named; a file that ends in .json is a list, another has a record
    in each line.
    """
    return sort_out(checked(_parsed(facts, form), None, asking))


def usable_facts(
    facts: Facts, model: EditableModel, form: Format | None, on_invalid: Literal["error", "skip"], chat: bool
) -> tuple[list[Fact], list[dict[str, str]]]:
    """As `check_facts`. Raises UserError where none can be used, or one cannot and `on_invalid` is error."""
    usable, refused = check_facts(facts, Asking(model.tokenizer, model.bounds, chat=chat), form)
    if refused and (on_invalid == "error" or not usable):
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise UserError(f"{InvalidFact(**refused[0])}{more}; on_invalid='skip' leaves such records out")
    if not usable:
        raise UserError("no facts to edit")
    return usable, refused

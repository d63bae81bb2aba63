"""Multiple-choice questions, as JSON lines of text, choices and label."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jeep.common.errors import UserError
from jeep.common.storage import read_jsonl
from jeep.data.facts import InvalidFact, list_of, text_of


@dataclass(frozen=True)
class Choice:
    """A text and what may continue it behind a space; `label` indexes the right one.

    Raises UserError for an empty text or choice, for fewer than two choices, and a label that is none of them.
    """

    text: str
    choices: tuple[str, ...]
    label: int

    def __post_init__(self):
        if not self.text.strip():
            raise UserError("empty text")
        if len(self.choices) < 2 or not all(choice.strip() for choice in self.choices):
            raise UserError("expected at least two choices, and none that is empty")
        if len(set(self.choices)) < len(self.choices):
            raise UserError("two choices are the same")
        if not 0 <= self.label < len(self.choices):
            raise UserError(f"label {self.label} of {len(self.choices)} choices, counted from 0")

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


def read_choices(path: Path | str) -> list[Choice]:
    """All questions of a file. Raises UserError, with the number of the line, on the first that is none."""
    return [_choice(f"{path}, question {number}", row) for number, row in enumerate(read_jsonl(path), start=1)]


def _choice(where: str, row: Any) -> Choice:
    try:
        if not isinstance(row, Mapping):
            raise UserError(f"not an object: {row!r}")
        label = row["label"]
        if isinstance(label, bool) or not isinstance(label, int):
            raise UserError(f"label is no number: {label!r}")
        choices = tuple(text_of("", "choices", each) for each in list_of("", "choices", row))
        return Choice(text_of("", "text", row["text"]), choices, label)
    except InvalidFact as error:
        raise UserError(f"{where}: {error.reason}") from None
    except KeyError as error:
        raise UserError(f"{where}: missing field {error}") from None
    except UserError as error:
        raise UserError(f"{where}: {error}") from None

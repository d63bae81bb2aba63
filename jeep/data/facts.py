"""The fact to edit, in the project's own schema."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from jeep.common.errors import UserError
from jeep.common.storage import read_jsonl


class InvalidFact(UserError):
    """A record that cannot be used: it names the record and the reason."""

    def __init__(self, case_id: str, reason: str):
        super().__init__(f"record {case_id}: {reason}")
        self.case_id, self.reason = case_id, reason


@dataclass(frozen=True)
class Question:
    """A prompt of another subject with the answer that an edit must leave alone."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Fact:
    """One requested edit and the prompts that measure it.

    `template` holds exactly one `{}`, where the subject goes. `paraphrases` are whole prompts; `unrelated` are the
    neighbourhood prompts of CounterFact (answer: the true object) or the unrelated question of zsRE.
    Raises InvalidFact when a field is missing, empty or of the wrong form.
    """

    case_id: str
    subject: str
    template: str
    relation: str
    target_new: str
    target_true: str | None = None
    paraphrases: tuple[str, ...] = ()
    unrelated: tuple[Question, ...] = ()
    joiner: str | None = None
    """What stands between a prompt and its answer; as their language has it where absent (`jeep.data.joining`)."""
    opening: str = ""
    """How every prompt begins, such as the header of a conversation (`jeep.model.chat`); prefixes go behind it."""

    def __post_init__(self):
        for name in ("subject", "template", "target_new"):
            if not getattr(self, name).strip():
                raise InvalidFact(self.case_id, f"empty {name}")
        if self.template.count("{}") != 1:
            raise InvalidFact(self.case_id, f"the prompt needs one {{}} for the subject: {self.template!r}")
        if not self.template.partition("{}")[0].startswith(self.opening):
            raise InvalidFact(self.case_id, f"the prompt does not begin with its opening {self.opening!r}")
        if self.target_true is not None and not self.target_true.strip():
            raise InvalidFact(self.case_id, "empty target_true")
        if not all(prompt.strip() for prompt in self.paraphrases):
            raise InvalidFact(self.case_id, "empty paraphrase")
        if not all(question.prompt.strip() and question.answer.strip() for question in self.unrelated):
            raise InvalidFact(self.case_id, "empty unrelated prompt or answer")

    @property
    def prompt(self) -> str:
        """The prompt that is edited: the template with the subject in it."""
        return self.template.replace("{}", self.subject)

    @property
    def asked(self) -> tuple[str, str, str | None]:
        """The edited prompt, its new answer, and what joins them."""
        return self.prompt, self.target_new, self.joiner

    def to_json(self) -> dict:
        """The record in the project's own schema, as one JSON object."""
        row = asdict(self)
        return {name: value for name, value in row.items() if name not in _SELDOM or value != _OPTIONAL[name]}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Fact":
        """The record of one JSON object in the project's own schema. Raises InvalidFact where it is none."""
        row = _OPTIONAL | dict(row)
        case_id = str(row.pop("case_id", "?"))
        known = [each.name for each in fields(cls) if each.name != "case_id"]
        unknown = [name for name in row if name not in known]
        if unknown:
            raise InvalidFact(case_id, f"unknown field {unknown[0]!r} (known: {', '.join(known)})")
        _require(case_id, known, row)
        row["relation"] = "" if row["relation"] is None else row["relation"]
        for name in ("subject", "template", "relation", "target_new", "opening"):
            row[name] = text_of(case_id, name, row[name])
        for name in ("target_true", "joiner"):
            row[name] = None if row[name] is None else text_of(case_id, name, row[name])
        row["paraphrases"] = tuple(
            text_of(case_id, "paraphrases", each) for each in list_of(case_id, "paraphrases", row)
        )
        row["unrelated"] = tuple(_question(case_id, each) for each in list_of(case_id, "unrelated", row))
        return cls(case_id, **row)


_OPTIONAL = {
    "relation": "",
    "target_true": None,
    "paraphrases": (),
    "unrelated": (),
    "joiner": None,
    "opening": "",
}
_SELDOM = ("joiner", "opening")
"""Left out of what is written where they say nothing."""


def _require(case_id: str, names: Sequence[str], row: Mapping[str, Any]) -> None:
    """Raise InvalidFact unless all fields are there."""
    missing = [name for name in names if name not in row]
    if missing:
        raise InvalidFact(case_id, f"missing field {missing[0]!r}")


def text_of(case_id: str, name: str, value: Any) -> str:
    """A text of a record. Raises InvalidFact where it is none."""
    if value is None:
        raise InvalidFact(case_id, f"{name} is null")
    if not isinstance(value, str):
        raise InvalidFact(case_id, f"{name} is no text: {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidFact(case_id, f"{name} holds half a character: {value!r}") from None
    return value


def list_of(case_id: str, name: str, row: Mapping[str, Any]) -> Sequence[Any]:
    """A list of a record. Raises InvalidFact where it is none."""
    if not isinstance(row[name], list | tuple):
        raise InvalidFact(case_id, f"{name} is no list: {row[name]!r}")
    return row[name]


def _question(case_id: str, value: Any) -> Question:
    if not isinstance(value, Mapping):
        raise InvalidFact(case_id, f"unrelated holds no prompt and answer: {value!r}")
    _require(case_id, ("prompt", "answer"), value)
    return Question(*(text_of(case_id, f"{name} of unrelated", value[name]) for name in ("prompt", "answer")))


def load_facts(path: Path | str) -> list[Fact]:
    """All records of a file that an earlier stage wrote. Raises UserError on the first that is invalid."""
    facts = []
    for row in read_jsonl(path):
        try:
            facts.append(Fact.from_json(row))
        except InvalidFact as error:
            raise UserError(f"{path}: {error}") from None
    return facts


def dump_facts(facts: Iterable[Fact]) -> str:
    """Facts as JSON lines."""
    return "".join(json.dumps(fact.to_json(), ensure_ascii=False) + "\n" for fact in facts)

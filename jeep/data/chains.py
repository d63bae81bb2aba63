"""Edits and the questions that follow from them: each takes several facts, an edited one among them (MQuAKE)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jeep.common.errors import UserError
from jeep.common.storage import read_jsonl
from jeep.data.facts import Fact, InvalidFact, list_of, text_of
from jeep.data.formats import has_field, mquake_edit, read_rows


@dataclass(frozen=True)
class Chain:
    """Questions with one answer, which changes when some facts are edited.

    Raises InvalidFact without facts, questions or answers.
    """

    case_id: str
    facts: tuple[Fact, ...]
    """The edits that it takes."""
    questions: tuple[str, ...]
    """The same in several words."""
    answers_new: tuple[str, ...]
    """After the edits: the answer and its aliases."""
    answers_old: tuple[str, ...]
    """Before them."""

    def __post_init__(self):
        for name in ("facts", "questions", "answers_new", "answers_old"):
            if not getattr(self, name):
                raise InvalidFact(self.case_id, f"no {name}")
        for name in ("questions", "answers_new", "answers_old"):
            if not all(text.strip() for text in getattr(self, name)):
                raise InvalidFact(self.case_id, f"an empty text among {name}")

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self) | {"facts": [fact.to_json() for fact in self.facts]}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Chain":
        """The other way round. Raises InvalidFact where it is none."""
        case = str(row.get("case_id", "?"))
        texts = {name: _texts(case, name, row) for name in ("questions", "answers_new", "answers_old")}
        return cls(case, tuple(Fact.from_json(each) for each in list_of(case, "facts", row)), **texts)


def _texts(case: str, name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(text_of(case, name, each) for each in list_of(case, name, row))


def read_chains(path: Path | str) -> list[Chain]:
    """Chains of a file of MQuAKE, or of the project's own JSON lines. Raises UserError on the first that is invalid."""
    return read_mquake(path) if has_field(path, "requested_rewrite") else load_chains(path)


def load_chains(path: Path | str) -> list[Chain]:
    """Chains of the project's own JSON lines. Raises UserError on the first that is invalid."""
    return [_read(path, Chain.from_json, row, number) for number, row in enumerate(read_jsonl(path))]


def read_mquake(path: Path | str) -> list[Chain]:
    """The records of MQuAKE-CF-3k-v2.json or MQuAKE-T.json, each edit as a Fact whose paraphrase is its question.

    Raises UserError for a file that is none, on the first record that is invalid. Source: princeton-nlp/MQuAKE.
    """
    rows = read_rows(Path(path), lines=False)
    return [_read(path, _mquake, row, number) for number, row in enumerate(rows)]


def _read(path: Path | str, parse: Callable[[Mapping[str, Any]], Chain], row: Any, number: int) -> Chain:
    case = row.get("case_id", number) if isinstance(row, Mapping) else number
    try:
        return parse({"case_id": number} | row)
    except InvalidFact as error:
        raise UserError(f"{path}: {error}") from None
    except KeyError as error:
        raise UserError(f"{path}: record {case}: missing field {error}") from None
    except (TypeError, AttributeError):
        raise UserError(f"{path}: record {case}: no record with edits and questions") from None


def _mquake(row: Mapping[str, Any]) -> Chain:
    case = str(row["case_id"])
    edits = list_of(case, "requested_rewrite", row)
    return Chain(
        case,
        tuple(mquake_edit(edit, f"{case}-{number}") for number, edit in enumerate(edits)),
        _texts(case, "questions", row),
        (text_of(case, "new_answer", row["new_answer"]), *_texts(case, "new_answer_alias", row)),
        (text_of(case, "answer", row["answer"]), *_texts(case, "answer_alias", row)),
    )


def distinct_edits(chains: Sequence[Chain]) -> list[Fact]:
    """The edits of all chains, each once: several chains may take the same. The first one's case_id stays."""
    found: dict[tuple[str, str, str], Fact] = {}
    for chain in chains:
        for fact in chain.facts:
            found.setdefault((fact.template, fact.subject, fact.target_new), fact)
    return list(found.values())

"""What a model is to write about, for fluency and consistency, and the reference texts that it is compared with."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jeep.common.errors import UserError
from jeep.common.storage import read_json, read_jsonl
from jeep.data.facts import InvalidFact, list_of, text_of
from jeep.data.formats import has_field, read_rows


@dataclass(frozen=True)
class Topic:
    """Openings of texts about a record's subject, and what its new object's reference texts are found by."""

    case_id: str
    prompts: tuple[str, ...]
    about: str
    """Relation and new object, such as P30/Q51."""

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


References = Mapping[str, Sequence[str]]
"""By relation and object, texts about other subjects that have the object."""


def about(relation: str, target: str) -> str:
    """What reference texts are found by."""
    return f"{relation}/{target}"


def _case(row: Mapping[str, Any], number: int) -> str:
    return str(row.get("case_id", number))


def counterfact_topics(path: Path | str) -> list[Topic]:
    """The `generation_prompts` of a file of original CounterFact records, one topic a record.

    Raises UserError for a file that is none, and for the first record without prompts or without the id of its new
    object, by which `snippets` has its reference texts.
    """
    topics = []
    for number, row in enumerate(read_rows(Path(path), lines=False)):
        try:
            case, rewrite = _case(row, number), row["requested_rewrite"]
            prompts = tuple(text_of(case, "generation_prompts", each) for each in row["generation_prompts"])
            if not prompts:
                raise InvalidFact(case, "no generation_prompts")
            topics.append(Topic(case, prompts, about(rewrite["relation_id"], rewrite["target_new"]["id"])))
        except InvalidFact as error:
            raise UserError(f"{path}: {error}") from None
        except KeyError as error:
            raise UserError(f"{path}: record {case}: missing field {error}") from None
        except (TypeError, AttributeError):
            raise UserError(f"{path}: record {number}: no record of CounterFact") from None
    return topics


def snippets(path: Path | str) -> dict[str, list[str]]:
    """The reference texts of MEMIT's attribute_snippets.json: articles' beginnings, by relation and object.

    Raises UserError for a file that is none. Source: kmeng01/memit, dsets/attr_snippets.py.
    """
    found: dict[str, list[str]] = defaultdict(list)
    try:
        for row in read_json(path):
            found[about(row["relation_id"], row["target_id"])] += [sample["text"] for sample in row["samples"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: no file of attribute snippets ({error})") from None
    return dict(found)


def read_topics(path: Path | str) -> list[Topic]:
    """Topics of CounterFact's original records, or of the project's own JSON lines. Raises UserError as both do."""
    return counterfact_topics(path) if has_field(path, "requested_rewrite") else load_topics(path)


def read_references(path: Path | str) -> dict[str, list[str]]:
    """Texts of MEMIT's attribute_snippets.json, or of the project's own JSON lines. Raises UserError as both do."""
    return snippets(path) if has_field(path, "samples") else load_references(path)


def load_topics(path: Path | str) -> list[Topic]:
    """Topics of the project's own JSON lines. Raises UserError on the first that is invalid."""
    topics = []
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            case = _case(row, number)
            prompts = tuple(text_of(case, "prompts", each) for each in list_of(case, "prompts", row))
            topics.append(Topic(case, prompts, text_of(case, "about", row["about"])))
        except InvalidFact as error:
            raise UserError(f"{path}: {error}") from None
        except (KeyError, AttributeError) as error:
            raise UserError(f"{path}: topic {number}: expected case_id, prompts and about ({error})") from None
    return topics


def load_references(path: Path | str) -> dict[str, list[str]]:
    """Reference texts of JSON lines {about, texts}. Raises UserError where a line is no such object."""
    try:
        return {row["about"]: list(row["texts"]) for row in read_jsonl(path)}
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: expected lines of about and texts ({error})") from None

"""The fact to edit, and readers for the formats facts come in."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from jeep.common.errors import UserError
from jeep.common.storage import read_json, read_jsonl


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

    def __post_init__(self):
        for name in ("subject", "template", "target_new"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise InvalidFact(self.case_id, f"empty {name}")
        if self.template.count("{}") != 1:
            raise InvalidFact(self.case_id, f"the prompt needs one {{}} for the subject: {self.template!r}")
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
        if self.joiner is None:
            del row["joiner"]
        return row

    @classmethod
    def from_json(cls, row: dict) -> "Fact":
        """The record of one JSON object in the project's own schema."""
        row = dict(row)
        row["case_id"] = str(row["case_id"])
        row.setdefault("relation", "")
        row["paraphrases"] = tuple(row.get("paraphrases", ()))
        row["unrelated"] = tuple(Question(item["prompt"], item["answer"]) for item in row.get("unrelated", ()))
        return cls(**row)


def _counterfact(row: dict, case_id: str) -> Fact:
    """A record of counterfact.json or multi_counterfact.json."""
    rewrite = row["requested_rewrite"]
    true = rewrite["target_true"]["str"]
    return Fact(
        case_id=case_id,
        subject=rewrite["subject"],
        template=rewrite["prompt"],
        relation=rewrite.get("relation_id", ""),
        target_new=rewrite["target_new"]["str"],
        target_true=true,
        paraphrases=tuple(row["paraphrase_prompts"]),
        unrelated=tuple(Question(prompt, true) for prompt in row["neighborhood_prompts"]),
    )


def _zsre(row: dict, case_id: str) -> Fact:
    """A record of zsre_mend_eval.json or zsre_mend_train.json: the target is the correct answer."""
    subject, template = row["subject"], _template(row["subject"], row["src"], case_id)
    if not row["answers"]:
        raise InvalidFact(case_id, "no answer")
    return Fact(
        case_id=case_id,
        subject=subject,
        template=template,
        relation="",
        target_new=row["answers"][0],
        paraphrases=(row["rephrase"],),
        unrelated=(Question(row["loc"] + "?", row["loc_ans"]),),
    )


def _template(subject: str, prompt: str, case_id: str) -> str:
    """A prompt with `{}` for its subject: as whole words where there is such a place, so that "Ann" in "Who is Annie's
    friend Ann?" is the last word.
    """
    if not subject.strip():
        raise InvalidFact(case_id, "empty subject")
    match = re.search(rf"(?<!\w){re.escape(subject)}(?!\w)", prompt) or re.search(re.escape(subject), prompt)
    if match is None:
        raise InvalidFact(case_id, f"the subject {subject!r} is not in its prompt {prompt!r}")
    return prompt[: match.start()] + "{}" + prompt[match.end() :]


def _texts(value: Any) -> list[str]:
    """One text, or a list of them, nested or not; nothing for None."""
    if value is None or isinstance(value, str):
        return [value] if value else []
    return [text for item in value for text in _texts(item)]


def _easyedit(row: dict, case_id: str) -> Fact:
    """A record with the names of EasyEdit and KnowEdit: prompt, subject, target_new, ground_truth, rephrase_prompt, and
    locality as {kind: {prompt, ground_truth}}, as lists of such, or as locality_prompt and locality_ground_truth.
    KnowEdit's WikiBio calls subject, prompt and target_new concept, text and labels.
    """
    if "concept" in row:
        row = {"subject": row["concept"], "prompt": row["text"], "target_new": row["labels"]} | row
    subject, (prompt, *_) = row["subject"], _texts(row.get("prompt", row.get("prompts"))) or [""]
    pairs = [(row.get("locality_prompt"), row.get("locality_ground_truth"))]
    for kind in (row.get("locality") or {}).values():
        for entry in kind if isinstance(kind, list) else [kind]:
            pairs.append((entry["prompt"], entry["ground_truth"]))
    unrelated = []
    for prompts, answers in pairs:
        prompts, answers = _texts(prompts), answers if isinstance(answers, list) else [answers]
        if len(prompts) == 1:  # one prompt may have several answers: the first is its name
            answers = answers[:1]
        answered = [(one, _texts(answer)) for one, answer in zip(prompts, answers, strict=False)]
        unrelated += [Question(one, texts[0]) for one, texts in answered if texts]
    true = _texts(row.get("ground_truth", row.get("target_true")))
    return Fact(
        case_id=case_id,
        subject=subject,
        template=_template(subject, prompt, case_id),
        relation=row.get("relation_id", ""),
        target_new=(_texts(row["target_new"]) or [""])[0],
        target_true=true[0] if true else None,
        paraphrases=tuple(_texts(row.get("rephrase_prompt", row.get("rephrase")))),
        unrelated=tuple(unrelated),
    )


def _own(row: dict, case_id: str) -> Fact:
    """A record in the project's own schema."""
    return Fact.from_json({"case_id": case_id} | row)


Format = Literal["counterfact", "zsre", "easyedit", "jsonl"]
_READERS: dict[str, Callable[[dict, str], Fact]] = {
    "counterfact": _counterfact,
    "zsre": _zsre,
    "easyedit": _easyedit,
    "jsonl": _own,
}


def read_rows(path: Path, *, lines: bool) -> Iterator[dict]:
    """The records of a file, a JSON list or JSON lines. Raises UserError for a file that is neither, or missing."""
    if lines:
        yield from read_jsonl(path)
        return
    rows = read_json(path)
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a JSON list of records, found {type(rows).__name__}")
    yield from rows


def read_facts(path: Path | str, form: Format) -> Iterator[Fact | InvalidFact]:
    """Yield each record of a file as a Fact, or as the InvalidFact that says why it cannot be used.

    Raises UserError for a file that is missing, truncated, or not of this format at all.
    """
    yield from parse_facts(read_rows(Path(path), lines=form == "jsonl"), form)


def parse_facts(rows: Iterable[dict], form: Format) -> Iterator[Fact | InvalidFact]:
    """As `read_facts`, of rows that are read already."""
    for number, row in enumerate(rows):
        case_id = str(row.get("case_id", number)) if isinstance(row, dict) else str(number)
        try:
            joiner = row.get("joiner")
            if not isinstance(joiner, str | None):
                raise InvalidFact(case_id, f"joiner is no text: {joiner!r}")
            yield replace(_READERS[form](row, case_id), joiner=joiner)
        except InvalidFact as error:
            yield error
        except KeyError as error:
            yield InvalidFact(case_id, f"missing field {error}")
        except (TypeError, AttributeError) as error:
            yield InvalidFact(case_id, f"not a record of format {form!r} ({error})")


def load_facts(path: Path | str) -> list[Fact]:
    """All records of a file that an earlier stage wrote. Raises UserError on the first that is invalid."""
    facts = []
    for fact in read_facts(path, "jsonl"):
        if isinstance(fact, InvalidFact):
            raise UserError(f"{path}: {fact}")
        facts.append(fact)
    return facts


def dump_facts(facts: Iterable[Fact]) -> str:
    """Facts as JSON lines."""
    return "".join(json.dumps(fact.to_json(), ensure_ascii=False) + "\n" for fact in facts)

"""Readers for the formats that facts come in."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from jeep.common.errors import UserError, one_line
from jeep.common.storage import read_json, read_jsonl
from jeep.data.facts import Fact, InvalidFact, list_of, text_of


def _counterfact(row: dict, case_id: str) -> Fact:
    """A record of counterfact.json or multi_counterfact.json."""
    rewrite = row["requested_rewrite"]
    true = rewrite["target_true"]["str"]
    unrelated = [{"prompt": prompt, "answer": true} for prompt in list_of(case_id, "neighborhood_prompts", row)]
    return rewritten(rewrite, case_id, row["paraphrase_prompts"], unrelated)


def rewritten(rewrite: Mapping[str, Any], case_id: str, paraphrases: Any, unrelated: Any = ()) -> Fact:
    """What CounterFact calls a requested rewrite, as a fact with these prompts."""
    return Fact.from_json(
        {
            "case_id": case_id,
            "subject": rewrite["subject"],
            "template": rewrite["prompt"],
            "relation": rewrite.get("relation_id", ""),
            "target_new": rewrite["target_new"]["str"],
            "target_true": rewrite["target_true"]["str"],
            "paraphrases": paraphrases,
            "unrelated": unrelated,
        }
    )


def _zsre(row: dict, case_id: str) -> Fact:
    """A record of zsre_mend_eval.json or zsre_mend_train.json: the target is the correct answer."""
    subject = text_of(case_id, "subject", row["subject"])
    template = _template(subject, text_of(case_id, "src", row["src"]), case_id)
    answers = [row["answers"]] if isinstance(row["answers"], str) else list_of(case_id, "answers", row)
    if not answers:
        raise InvalidFact(case_id, "no answer")
    return Fact.from_json(
        {
            "case_id": case_id,
            "subject": subject,
            "template": template,
            "target_new": answers[0],
            "paraphrases": [row["rephrase"]],
            "unrelated": [{"prompt": text_of(case_id, "loc", row["loc"]) + "?", "answer": row["loc_ans"]}],
        }
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


def _texts(value: Any) -> list[Any]:
    """One text, or a list of them, nested or not; nothing for None."""
    if isinstance(value, list | tuple):
        return [text for item in value for text in _texts(item)]
    return [] if value is None or value == "" else [value]


def _easyedit(row: dict, case_id: str) -> Fact:
    """A record with the names of EasyEdit and KnowEdit: prompt, subject, target_new, ground_truth, rephrase_prompt, and
    locality as {kind: {prompt, ground_truth}}, as lists of such, or as locality_prompt and locality_ground_truth.
    KnowEdit's WikiBio calls subject, prompt and target_new concept, text and labels.
    """
    if "concept" in row:
        row = {"subject": row["concept"], "prompt": row["text"], "target_new": row["labels"]} | row
    subject = text_of(case_id, "subject", row["subject"])
    prompt, *_ = _texts(row.get("prompt", row.get("prompts"))) or [""]
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
        unrelated += [{"prompt": one, "answer": texts[0]} for one, texts in answered if texts]
    true = _texts(row.get("ground_truth", row.get("target_true")))
    return Fact.from_json(
        {
            "case_id": case_id,
            "subject": subject,
            "template": _template(subject, text_of(case_id, "prompt", prompt), case_id),
            "relation": row.get("relation_id", ""),
            "target_new": next(iter(_texts(row["target_new"])), None),
            "target_true": true[0] if true else None,
            "paraphrases": _texts(row.get("rephrase_prompt", row.get("rephrase"))),
            "unrelated": unrelated,
        }
    )


def mquake_edit(edit: Mapping[str, Any], case_id: str) -> Fact:
    """One of the edits that a record of MQuAKE takes; its question, where it has one, is the paraphrase."""
    return rewritten(edit, case_id, [edit["question"]] if edit.get("question") else [])


def _own(row: dict, case_id: str) -> Fact:
    """A record in the project's own schema."""
    return Fact.from_json({"case_id": case_id} | row)


Format = Literal["counterfact", "zsre", "easyedit", "mquake", "jsonl"]
_READERS: dict[str, Callable[[dict, str], Fact]] = {
    "counterfact": _counterfact,
    "zsre": _zsre,
    "easyedit": _easyedit,
    "mquake": mquake_edit,
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


def has_field(path: Path | str, name: str) -> bool:
    """Whether the first record of a file, a JSON list or JSON lines, has a field. Raises UserError without a file."""
    return name in (next(read_jsonl(path), None) or ())


def _single(rows: Iterable[Any]) -> Iterator[Any]:
    """The edits of MQuAKE's records, each once, with what names each; what is no such record, as it is."""
    seen = set()
    for number, row in enumerate(rows):
        edits = row.get("requested_rewrite") if isinstance(row, Mapping) else None
        if not isinstance(edits, list):
            yield row
            continue
        for place, edit in enumerate(edits):
            content = repr([edit.get(name) for name in ("prompt", "subject", "target_new")])
            if content not in seen:
                seen.add(content)
                yield {**edit, "case_id": f"{row.get('case_id', number)}-{place}"}


def read_facts(path: Path | str, form: Format) -> Iterator[Fact | InvalidFact]:
    """Yield each record of a file as a Fact, or as the InvalidFact that says why it cannot be used.

    Raises UserError for a file that is missing, truncated, or not of this format at all.
    """
    yield from parse_facts(read_rows(Path(path), lines=form == "jsonl"), form)


def parse_facts(rows: Iterable[dict], form: Format) -> Iterator[Fact | InvalidFact]:
    """As `read_facts`, of rows that are read already."""
    for number, row in enumerate(_single(rows) if form == "mquake" else rows):
        case_id = str(row.get("case_id", number)) if isinstance(row, dict) else str(number)
        try:
            if not isinstance(row, Mapping):
                raise InvalidFact(case_id, f"not an object: {row!r}")
            fact = _READERS[form](row, case_id)
            joiner = row.get("joiner")
            yield fact if joiner is None else replace(fact, joiner=text_of(case_id, "joiner", joiner))
        except InvalidFact as error:
            yield error
        except KeyError as error:
            yield InvalidFact(case_id, f"missing field {error}")
        except (TypeError, AttributeError, ValueError) as error:
            yield InvalidFact(case_id, f"not a record of format {form!r} ({one_line(error, 150)})")

"""Which facts of a file can be used with a tokenizer and a metric, and why the others cannot."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from jeep.common.errors import UserError
from jeep.common.settings import Metrics
from jeep.data.facts import Fact, InvalidFact
from jeep.data.formats import Format, read_facts
from jeep.model.bounds import Bounds
from jeep.model.chat import Chat
from jeep.model.tokens import encode_answers, locate, locate_subject

_PREFIX = 16
"""Tokens of the longest random prefix that stands in front of an edited prompt."""


@dataclass(frozen=True)
class Asking:
    """How facts are asked of a model."""

    tokenizer: Any
    bounds: Bounds | None = None
    """Not checked where absent."""
    joiner: str | None = None
    """What stands between prompt and answer of records that do not say."""
    chat: bool = False
    """Each prompt is the user's turn of the tokenizer's chat template."""

    def __post_init__(self):
        if self.chat and self.joiner is not None:
            raise UserError("joiner: a chat template says itself what stands between prompt and answer")

    def framing(self) -> Callable[[Fact], Fact]:
        """What makes every prompt of a fact what is asked. Raises UserError for a chat without a template."""
        return Chat.of(self.tokenizer).framed if self.chat else self._joined

    def _joined(self, fact: Fact) -> Fact:
        return replace(fact, joiner=self.joiner) if fact.joiner is None else fact


def select(
    path: Path,
    form: Format,
    metrics: Metrics,
    asking: Asking,
    limit: int | None,
    on_invalid: Literal["error", "skip"],
) -> tuple[list[Fact], list[dict[str, str]]]:
    """The first `limit` usable facts, and the records passed over on the way as {case_id, reason}.

    Raises UserError at the first unusable record where `on_invalid` is "error".
    """
    items = checked(read_facts(path, form), metrics, asking)
    return sort_out(_strict(items, path) if on_invalid == "error" else items, limit)


def require_enough(path: Path, kept: Sequence[Fact], skipped: Sequence[dict[str, str]], limit: int | None) -> None:
    """Raise UserError, with some of the reasons, when fewer facts than `limit` (at least one) are usable."""
    if len(kept) >= (limit or 1):
        return
    reasons = [f"record {row['case_id']}: {row['reason']}" for row in skipped[:3]]
    more = f", such as {'; '.join(reasons)}" if reasons else ""
    raise UserError(f"{path}: {len(kept)} usable facts, {limit or 1} are needed ({len(skipped)} skipped{more})")


def contradictions(facts: Sequence[Fact]) -> dict[str, str]:
    """For each fact whose prompt another one gives another answer: that one."""
    first: dict[str, Fact] = {}
    found: dict[str, str] = {}
    for fact in facts:
        other = first.setdefault(fact.prompt, fact)
        if other.target_new.strip() != fact.target_new.strip():
            found[fact.case_id], found[other.case_id] = other.case_id, fact.case_id
    return found


def _strict(items: Iterable[Fact | InvalidFact], path: Path) -> Iterator[Fact]:
    """The facts of a file; UserError at the first that is none."""
    for item in items:
        if isinstance(item, InvalidFact):
            raise UserError(f"{path}: {item} (on_invalid: skip leaves such records out)")
        yield item


def sort_out(items: Iterable[Fact | InvalidFact], limit: int | None = None) -> tuple[list[Fact], list[dict[str, str]]]:
    """The first `limit` facts (all where None), and {case_id, reason} of what is none on the way there."""
    kept: list[Fact] = []
    skipped: list[dict[str, str]] = []
    for item in items:
        if isinstance(item, Fact):
            kept.append(item)
        else:
            skipped.append({"case_id": item.case_id, "reason": item.reason})
        if limit is not None and len(kept) == limit:
            break
    return kept, skipped


def checked(
    facts: Iterable[Fact | InvalidFact], metrics: Metrics | None, asking: Asking
) -> Iterator[Fact | InvalidFact]:
    """Each fact as it is asked, or why it cannot be (and be measured, where a metric is named)."""
    seen: set[str] = set()
    framed = asking.framing()
    for fact in facts:
        if isinstance(fact, Fact):
            try:
                fact = framed(fact)
                if fact.case_id in seen:
                    raise InvalidFact(fact.case_id, "its case id occurs twice")
                seen.add(fact.case_id)
                _check(fact, metrics, asking)
            except UserError as error:
                yield error if isinstance(error, InvalidFact) else InvalidFact(fact.case_id, str(error))
                continue
        yield fact


def _check(fact: Fact, metrics: Metrics | None, asking: Asking) -> None:
    """Raise UserError unless every position and every answer of the fact can be found, and the model takes them."""
    if metrics == "counterfact" and fact.target_true is None:
        raise InvalidFact(fact.case_id, "no target_true, which the counterfact metrics compare with")
    if metrics == "counterfact" and fact.target_true.strip() == fact.target_new.strip():
        raise InvalidFact(fact.case_id, f"the new answer is the true one: {fact.target_new!r}")
    locate(asking.tokenizer, fact)
    locate_subject(asking.tokenizer, fact)
    own = [answer for answer in (fact.target_new, fact.target_true) if answer is not None]
    compared = [fact.target_new] if metrics == "counterfact" else []
    _check_prompt(fact, fact.prompt, own, asking, room=_PREFIX)
    for prompt in fact.paraphrases:
        _check_prompt(fact, prompt, own, asking)
    for each in fact.unrelated:
        _check_prompt(fact, each.prompt, [each.answer, *compared], asking)


def _check_prompt(fact: Fact, prompt: str, answers: Sequence[str], asking: Asking, room: int = 0) -> None:
    """Raise UserError unless the answers of a prompt can be told from it, and the model takes them `room` tokens on."""
    tokenizer = asking.tokenizer
    ids, behind = encode_answers(tokenizer, prompt, answers, fact.joiner)
    written = not fact.opening and tokenizer.bos_token and prompt.startswith(tokenizer.bos_token)
    if written and tokenizer(prompt)["input_ids"][:2] == [tokenizer.bos_token_id] * 2:
        raise InvalidFact(fact.case_id, f"the tokenizer adds the {tokenizer.bos_token} that {prompt!r} has already")
    special = [token for token in tokenizer.all_special_tokens for answer in answers if token in answer]
    if special:
        raise InvalidFact(fact.case_id, f"the special token {special[0]} is written in an answer of {prompt!r}")
    for answer in behind if asking.bounds else ():
        asking.bounds.require(ids + answer, room)

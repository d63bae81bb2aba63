"""Lists of facts about subjects and relations, from a language model or from a knowledge base (Appendix A).

For a subject: its relations and objects. For a relation: subjects and objects that share it. One row for each:
`kind` (subject or relation), `key`, `candidates`, `status` (ok, refused, broken, failed or over budget) and `note`.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Protocol

from jeep.common.errors import UserError
from jeep.data.facts import Fact

Status = Literal["ok", "refused", "broken", "failed", "over budget"]


class FactSource(Protocol):
    """Where candidates come from."""

    def rows(self, questions: Sequence[tuple[str, str]]) -> list[dict]:
        """One row for each (kind, key), in their order."""
        ...


def questions(facts: Sequence[Fact]) -> list[tuple[str, str]]:
    """What has to be asked for some facts: each subject, and each relation by its template."""
    pairs = [("subject", fact.subject) for fact in facts] + [("relation", fact.template) for fact in facts]
    return list(dict.fromkeys(pairs))


def row(kind: str, key: str, candidates: Sequence[str], status: Status = "ok", note: str = "") -> dict:
    """A row of the result."""
    return {"kind": kind, "key": key, "candidates": list(candidates), "status": status, "note": note}


def summary(rows: Iterable[dict]) -> dict[str, int]:
    """How many rows there are of each status."""
    return dict(Counter(entry["status"] for entry in rows))


def require_lists(rows: Sequence[dict], accepted: float) -> None:
    """Raise UserError when a greater share of the rows than `accepted` has no list, with one of the reasons."""
    missing = [entry for entry in rows if entry["status"] != "ok"]
    if len(missing) <= accepted * len(rows):
        return
    first = missing[0]
    counts = ", ".join(f"{count} {status}" for status, count in summary(missing).items())
    raise UserError(
        f"fact lists: {len(missing)} of {len(rows)} are missing ({counts}), such as that of the {first['kind']} "
        f"{first['key']!r}: {first['note']}; the others are kept, and a further run asks for these alone "
        "(the source's `missing` accepts a share of them)"
    )


class KnowledgeBase:
    """True (subject, relation, object) triples, such as those the demo's facts are made from."""

    def __init__(self, triples: Sequence[tuple[str, str, str]], facts: Sequence[Fact], candidates: int, seed: int):
        """`facts` say which relation a template stands for; of more candidates a sample is taken."""
        self.count, self.seed = candidates, seed
        self.relation_of = {fact.template: fact.relation for fact in facts}
        self.by_subject: dict[str, list[str]] = defaultdict(list)
        self.by_relation: dict[str, list[str]] = defaultdict(list)
        for subject, relation, its_object in triples:
            self.by_subject[subject] += [relation.replace("_", " "), its_object]
            self.by_relation[relation] += [subject, its_object]

    def rows(self, questions: Sequence[tuple[str, str]]) -> list[dict]:
        """Candidates of every question; a subject or relation that is not in the base has none."""
        return [row(kind, key, self._candidates(kind, key)) for kind, key in questions]

    def _candidates(self, kind: str, key: str) -> list[str]:
        found = self.by_subject[key] if kind == "subject" else self.by_relation[self.relation_of[key]]
        distinct = list(dict.fromkeys(found))
        if len(distinct) <= self.count:
            return distinct
        return random.Random(f"{self.seed} {kind} {key}").sample(distinct, self.count)


def candidates_of(rows: Iterable[dict]) -> dict[tuple[str, str], list[str]]:
    """Candidates by kind and key."""
    return {(entry["kind"], entry["key"]): entry["candidates"] for entry in rows}


def phrases(fact: Fact, candidates: dict[tuple[str, str], list[str]]) -> Iterator[str]:
    """All candidates for a fact: of its subject and of its relation."""
    for key in (("subject", fact.subject), ("relation", fact.template)):
        yield from candidates.get(key, ())

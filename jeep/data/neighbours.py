"""Neighbours: a relation's prompts about other subjects, which an edit of the relation should leave as they are.

Their subjects come from facts that are neither edited nor measured, and stand in no prompt that measures an edit: an
editor must not be shown what it is judged by.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from jeep.common.errors import UserError
from jeep.data.facts import Fact

Subjects = Mapping[str, Sequence[str]]
"""Subjects of neighbours by relation."""


def relation_of(fact: Fact) -> str:
    """What makes facts of one kind: the relation, or, where records have none, the template."""
    return fact.relation or fact.template


def draw_subjects(facts: Sequence[Fact], pool: Iterable[Fact], count: int, seed: int = 0) -> dict[str, list[str]]:
    """For each relation of `facts` at most `count` subjects of `pool` for its prompts, in random order.

    They are those of the relation itself; of facts without a relation, whose template may occur once, all of the pool.
    Left out are subjects of `facts`, and those that a prompt of `facts` holds. A relation for which none is left is not
    in the result. Raises UserError where none is left for any.
    """
    related: dict[str, set[str]] = defaultdict(set)
    for fact in pool:
        related[relation_of(fact)].add(fact.subject)
    everything = set().union(*related.values())
    clashes = _Clashes(facts)
    generator = random.Random(seed)
    found: dict[str, list[str]] = {}
    named = {fact.relation for fact in facts}
    for relation in sorted({relation_of(fact) for fact in facts}):
        candidates = sorted(related[relation] if relation in named else everything)
        generator.shuffle(candidates)
        chosen: list[str] = []
        for subject in candidates:
            if len(chosen) < count and not clashes.of(subject):
                chosen.append(subject)
        if chosen:
            found[relation] = chosen
    if not found:
        raise UserError("no subject is left for neighbours: every one is edited, or stands in a prompt that measures")
    return found


def neighbours_of(facts: Sequence[Fact], subjects: Subjects) -> list[Fact]:
    """The neighbours of edited facts: each an edited fact that asks about another subject, with the answers it had.

    A relation's subjects go round its edited facts' templates. Raises UserError for a subject that is edited, or that a
    prompt of `facts` holds.
    """
    edited: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        edited[relation_of(fact)].append(fact)
    clashes = _Clashes(facts)
    neighbours = []
    for relation, group in edited.items():
        for number, subject in enumerate(subjects.get(relation, ())):
            if clashes.of(subject):
                raise UserError(f"neighbours: {subject!r} is edited, or stands in a prompt that measures an edit")
            fact, name = group[number % len(group)], f"{relation}~{number}"
            neighbours.append(replace(fact, case_id=name, subject=subject, paraphrases=(), unrelated=()))
    return neighbours


class _Clashes:
    """What subjects of neighbours must not be."""

    def __init__(self, facts: Sequence[Fact]):
        self.subjects = {fact.subject.casefold() for fact in facts}
        prompts = (
            text for fact in facts for text in (*fact.paraphrases, *(question.prompt for question in fact.unrelated))
        )
        self.measured = "\n".join(prompts).casefold()

    def of(self, subject: str) -> bool:
        """Whether a subject is edited, or a prompt that measures an edit holds it."""
        name = subject.casefold()
        return name in self.subjects or name in self.measured

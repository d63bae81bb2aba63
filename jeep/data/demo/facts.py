"""The demo's two data sets, made from triples: counterfactual edits with neighbours, and questions."""

import hashlib
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from jeep.data.demo.knowledge import Triple
from jeep.data.demo.open_questions import mentions
from jeep.data.demo.relations import RELATIONS, Relation
from jeep.data.facts import Fact, Question

NEIGHBOURS = 10
_PER_RELATION = 135
_PER_OBJECT = (11, 14)
"""Of the train split, whose facts are others' neighbours, and of the others."""
_SPARE = 60
"""Facts of a relation in the spare set."""
_BY_NAME = {relation.name: relation for relation in RELATIONS}
_LEARNED = 0.28
"""The share of the open questions whose answers the small model learns: it knows some, as other models do."""


def _share(text: str) -> float:
    """A number from 0 to 1, by a hash of the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) / 2**32


def split_of(subject: str) -> str:
    """The split of a subject, by a hash of its name: 15 % dev, 40 % train, 45 % eval."""
    share = _share(subject)
    return "dev" if share < 0.15 else "train" if share < 0.55 else "eval"


def choose(triples: Sequence[Triple], generator: random.Random) -> list[Triple]:
    """A balanced part of the triples, in random order: limited per object and per relation.

    Where a relation has neighbours, an object is taken only if it has enough of them in the train split, where every
    fact's neighbours come from: none of them is ever edited.
    """
    by_object: dict[tuple[str, str], list[Triple]] = defaultdict(list)
    for triple in triples:
        by_object[triple.relation, triple.object].append(triple)
    chosen: dict[str, list[list[Triple]]] = defaultdict(list)
    for (relation, _), group in sorted(by_object.items()):
        if not _BY_NAME[relation].many:
            chosen[relation].append(group[:1])
            continue
        parts = [[triple for triple in group if (split_of(triple.subject) == "train") == wanted] for wanted in (1, 0)]
        if len(parts[0]) > NEIGHBOURS:
            sizes = [min(len(part), most) for part, most in zip(parts, _PER_OBJECT, strict=True)]
            drawn = [generator.sample(part, size) for part, size in zip(parts, sizes, strict=True)]
            chosen[relation].append([*drawn[0], *drawn[1]])
    result: list[Triple] = []
    for relation in RELATIONS:
        groups = chosen[relation.name]
        if relation.many and len(groups) < 2:
            continue  # there would be no other object to edit a fact to
        generator.shuffle(groups)
        size = 0
        for group in groups:
            if size + len(group) <= _PER_RELATION:
                result += group
                size += len(group)
    generator.shuffle(result)
    return result


def spare(triples: Sequence[Triple], chosen: Sequence[Triple], generator: random.Random) -> list[Triple]:
    """For each relation some triples of subjects that no set has: what an edit may be shown beside the edited facts."""
    taken = {triple.subject for triple in chosen}
    groups: dict[str, list[Triple]] = {relation.name: [] for relation in RELATIONS}
    for triple in triples:
        if triple.subject not in taken:
            groups[triple.relation].append(triple)
    return [triple for group in groups.values() for triple in generator.sample(group, min(len(group), _SPARE))]


def asked(triple: Triple, *, as_question: bool) -> Fact:
    """A triple as a fact that nothing is to be measured of."""
    relation = _BY_NAME[triple.relation]
    return Fact(
        case_id=f"{triple.relation}-{triple.subject}",
        subject=triple.subject,
        template=relation.question if as_question else relation.prompt,
        relation=relation.name,
        target_new=triple.object,
    )


def sentences(texts: Sequence[str]) -> list[str]:
    """First sentences of articles that are short enough to stand in front of a prompt."""
    firsts = (re.match(r"[A-Z][^.()\n]{30,110}\.(?= [A-Z]|$)", text) for text in texts)
    return [match[0] for match in firsts if match]


def counterfactual(triples: Sequence[Triple], openers: Sequence[str], generator: random.Random) -> Iterator[Fact]:
    """Facts whose new answer is another object of their relation, with ten neighbours that share the true one.

    Neighbours are of the train split: what lies outside an edit must not be edited itself, however many facts are.
    """
    subjects: dict[tuple[str, str], list[str]] = defaultdict(list)
    objects: dict[str, list[str]] = defaultdict(list)
    for triple in triples:
        if split_of(triple.subject) == "train":
            subjects[triple.relation, triple.object].append(triple.subject)
        if triple.object not in objects[triple.relation]:
            objects[triple.relation].append(triple.object)
    for number, triple in enumerate(triples):
        relation = _BY_NAME[triple.relation]
        if not relation.many:
            continue
        others = [s for s in subjects[triple.relation, triple.object] if s != triple.subject]
        opener = _unrelated(openers, triple, generator)
        yield Fact(
            case_id=f"mcf-{number}",
            subject=triple.subject,
            template=relation.prompt,
            relation=relation.name,
            target_new=generator.choice([o for o in objects[triple.relation] if o != triple.object]),
            target_true=triple.object,
            paraphrases=(
                relation.paraphrase.replace("{}", triple.subject),
                f"{opener} {relation.paraphrase.replace('{}', triple.subject)}",
            ),
            unrelated=tuple(
                Question(
                    generator.choice((relation.prompt, relation.paraphrase)).replace("{}", other),
                    triple.object,
                )
                for other in generator.sample(others, NEIGHBOURS)
            ),
        )


def _unrelated(openers: Sequence[str], triple: Triple, generator: random.Random) -> str:
    """A sentence that mentions neither the subject nor the object."""
    while True:
        opener = generator.choice(openers)
        if triple.subject not in opener and triple.object not in opener:
            return opener


def questions(triples: Sequence[Triple], unrelated: Sequence[Question], generator: random.Random) -> Iterator[Fact]:
    """Questions with their correct answers, one rephrasing, and an open question that is unrelated to it.

    Of the dev and eval splits every fact has an open question of its own, so that records are independent; the train
    split shares those that are left.
    """
    free = generator.sample(unrelated, len(unrelated))
    asked: dict[int, Question] = {}
    for number, triple in sorted(enumerate(triples), key=lambda item: split_of(item[1].subject) == "train"):
        fitting = (place for place, each in enumerate(free) if not mentions(each, (triple.subject, triple.object)))
        if split_of(triple.subject) == "train":
            asked[number] = free[generator.choice(list(fitting))]
        else:
            asked[number] = free.pop(next(fitting))
    for number, triple in enumerate(triples):
        relation = _BY_NAME[triple.relation]
        yield Fact(
            case_id=f"zsre-{number}",
            subject=triple.subject,
            template=relation.question,
            relation=relation.name,
            target_new=triple.object,
            paraphrases=(relation.rephrase.replace("{}", triple.subject),),
            unrelated=(asked[number],),
        )


def learned(questions: Sequence[Question]) -> list[Question]:
    """The open questions whose answers the small model is trained on."""
    return [question for question in questions if _share(f"learned: {question.prompt}") < _LEARNED]


def statements(triple: Triple) -> list[tuple[str, str]]:
    """Every way the demo asks for a triple, with the answer: what the small model is trained on."""
    relation: Relation = _BY_NAME[triple.relation]
    forms = (relation.prompt, relation.paraphrase, relation.question, relation.rephrase)
    return [(form.replace("{}", triple.subject), triple.object) for form in forms]

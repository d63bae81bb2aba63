"""The demo's two data sets, made from triples: counterfactual edits with neighbours, and questions."""

import hashlib
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from jeep.demo.knowledge import Triple
from jeep.demo.open_questions import mentions
from jeep.demo.relations import RELATIONS, Relation
from jeep.facts import Fact, Question

NEIGHBOURS = 10
_PER_OBJECT, _PER_RELATION = 20, 110
_BY_NAME = {relation.name: relation for relation in RELATIONS}
OPEN_QUESTIONS = 400
"""Drawn for the locality of zsRE; the small model learns their answers, as it learns the facts."""


def split_of(subject: str) -> str:
    """The split of a subject, by a hash of its name: 15 % dev, 40 % train, 45 % eval."""
    share = int.from_bytes(hashlib.sha256(subject.encode()).digest()[:4]) / 2**32
    return "dev" if share < 0.15 else "train" if share < 0.55 else "eval"


def choose(triples: Sequence[Triple], generator: random.Random) -> list[Triple]:
    """A balanced part of the triples, in random order: limited per object and per relation.

    Where a relation has neighbours, an object is taken only if it has enough of them.
    """
    by_object: dict[tuple[str, str], list[Triple]] = defaultdict(list)
    for triple in triples:
        by_object[triple.relation, triple.object].append(triple)
    chosen: dict[str, list[list[Triple]]] = defaultdict(list)
    for (relation, _), group in sorted(by_object.items()):
        if not _BY_NAME[relation].many:
            chosen[relation].append(group[:1])
        elif len(group) > NEIGHBOURS:
            chosen[relation].append(generator.sample(group, min(len(group), _PER_OBJECT)))
    result: list[Triple] = []
    for relation in RELATIONS:
        groups = chosen[relation.name]
        generator.shuffle(groups)
        size = 0
        for group in groups:
            if size + len(group) <= _PER_RELATION:
                result += group
                size += len(group)
    generator.shuffle(result)
    return result


def sentences(texts: Sequence[str]) -> list[str]:
    """First sentences of articles that are short enough to stand in front of a prompt."""
    firsts = (re.match(r"[A-Z][^.()\n]{30,110}\.(?= [A-Z]|$)", text) for text in texts)
    return [match[0] for match in firsts if match]


def counterfactual(triples: Sequence[Triple], openers: Sequence[str], generator: random.Random) -> Iterator[Fact]:
    """Facts whose new answer is another object of their relation, with ten neighbours that share the true one."""
    subjects: dict[tuple[str, str], list[str]] = defaultdict(list)
    objects: dict[str, list[str]] = defaultdict(list)
    for triple in triples:
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
    """Questions with their correct answers, one rephrasing, and an open question of the same split, unrelated to it."""
    pools: dict[str, list[Question]] = defaultdict(list)
    for question in unrelated:
        pools[split_of(question.answer)].append(question)
    for number, triple in enumerate(triples):
        relation = _BY_NAME[triple.relation]
        names = (triple.subject, triple.object)
        pool = [question for question in pools[split_of(triple.subject)] if not mentions(question, names)]
        yield Fact(
            case_id=f"zsre-{number}",
            subject=triple.subject,
            template=relation.question,
            relation=relation.name,
            target_new=triple.object,
            paraphrases=(relation.rephrase.replace("{}", triple.subject),),
            unrelated=(generator.choice(pool),),
        )


def statements(triple: Triple) -> list[tuple[str, str]]:
    """Every way the demo asks for a triple, with the answer: what the small model is trained on."""
    relation: Relation = _BY_NAME[triple.relation]
    forms = (relation.prompt, relation.paraphrase, relation.question, relation.rephrase)
    return [(form.replace("{}", triple.subject), triple.object) for form in forms]

"""Two-hop questions of the demo's own triples: an edited city's country, and that country's capital."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from jeep.data.chains import Chain
from jeep.data.demo.knowledge import Triple
from jeep.data.demo.relations import RELATIONS
from jeep.data.facts import Fact

_FIRST = {
    "city_country": (
        "the country in which the city of {} lies",
        "the country that the city of {} belongs to",
        "the country where one finds the city of {}",
    ),
    "airport_country": (
        "the country in which {} lies",
        "the country that one reaches by landing at {}",
        "the country where one finds {}",
    ),
}
"""An edited relation's object as words that do not name it."""
_SECOND = ("country_capital", "country_continent", "country_currency", "country_language")


def chains(facts: Sequence[Fact], triples: Iterable[Triple]) -> list[Chain]:
    """For each edited fact whose objects, new and true, both have a capital, a continent, ... : three questions for it.

    Left out are chains whose answer the edit does not change, as of a city that moves within a continent.
    """
    objects: dict[str, dict[str, str]] = defaultdict(dict)
    for triple in triples:
        objects[triple.relation][triple.subject] = triple.object
    found = []
    for fact in facts:
        for second in _SECOND if fact.relation in _FIRST else ():
            new, old = (objects[second].get(country) for country in (fact.target_new, fact.target_true))
            if new and old and new != old:
                found.append(Chain(f"{fact.case_id}-{second}", (fact,), _questions(fact, second), (new,), (old,)))
    return found


def _questions(fact: Fact, second: str) -> tuple[str, ...]:
    """The second relation's questions in turn, each about other words for the country."""
    relation = next(each for each in RELATIONS if each.name == second)
    forms = (relation.question, relation.rephrase, relation.question)
    names = (words.replace("{}", fact.subject) for words in _FIRST[fact.relation])
    return tuple(form.replace("{}", name) for form, name in zip(forms, names, strict=True))

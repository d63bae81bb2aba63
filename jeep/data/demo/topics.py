"""What models write about the demo's facts, and articles of Wikipedia that such texts are compared with."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from jeep.data.demo.knowledge import Triple
from jeep.data.facts import Fact
from jeep.data.topics import Topic, about

_OPENINGS = {
    "country": ("The people of {}", "Travellers in {} will find", "The history of {}"),
    "city": ("The city of {} is known for", "Visitors to {}", "The streets of {}"),
    "town": ("The city of {} is known for", "Visitors to {}", "The streets of {}"),
    "county": ("The people who live in {}", "The largest town of {}", "The history of {}"),
    "airport": ("Passengers who arrive at {}", "From {} one can fly to", "The surroundings of {}"),
    "element": ("Chemists use {}", "A sample of {}", "The properties of {}"),
    "person": ("{} grew up in", "The life of {}", "{} became famous for"),
    "organism": ("In the wild, {}", "Anyone who studies {}", "{} can be recognised by"),
    "article": ("Experts on {}", "An introduction to {}", "The importance of {}"),
}
"""By what a relation's subjects are. None asks for the edited object: a text shows it by what else it says."""


def topics(facts: Sequence[Fact]) -> list[Topic]:
    """Three openings of a text about each fact's subject."""
    return [
        Topic(
            fact.case_id,
            tuple(form.replace("{}", fact.subject) for form in _OPENINGS[fact.relation.partition("_")[0]]),
            about(fact.relation, fact.target_new),
        )
        for fact in facts
    ]


def references(triples: Iterable[Triple], articles: Mapping[str, str]) -> dict[str, list[str]]:
    """By relation and object, the articles (text by title) about the subjects that truly have the object.

    Relations whose subjects have no articles, such as airports, have none.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for triple in triples:
        if triple.subject in articles:
            found[about(triple.relation, triple.object)].append(articles[triple.subject])
    return dict(found)

"""How each relation of the demo's facts is said in English: statements for CounterFact, questions for zsRE."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Relation:
    """Two statements that the object completes and two questions that it answers; `{}` is the subject."""

    name: str
    prompt: str
    paraphrase: str
    question: str
    rephrase: str
    many: bool = True
    """Many subjects share an object, so that a fact has neighbours; otherwise it serves in zsRE only."""


RELATIONS = (
    Relation(
        "country_continent",
        "{} is a country on the continent of",
        "In terms of geography, {} belongs to",
        "On which continent is {}?",
        "Which continent is {} a part of?",
    ),
    Relation(
        "country_currency",
        "The official currency of {} is the",
        "People in {} pay with the",
        "What is the currency of {}?",
        "Which currency is used in {}?",
    ),
    Relation(
        "country_language",
        "The main official language of {} is",
        "The government of {} publishes its laws in",
        "What is the main official language of {}?",
        "Which official language is spoken in {}?",
    ),
    Relation(
        "city_country",
        "{} is a city in",
        "The city of {} lies in the country of",
        "In which country is the city of {}?",
        "Which country does the city of {} belong to?",
    ),
    Relation(
        "town_state",
        "{} is a city in the U.S. state of",
        "The U.S. state in which the city of {} lies is",
        "In which U.S. state is the city of {}?",
        "Which U.S. state does the city of {} belong to?",
    ),
    Relation(
        "county_state",
        "{} is a county in the U.S. state of",
        "The U.S. state that {} is a part of is",
        "In which U.S. state is {}?",
        "Which U.S. state is {} a part of?",
    ),
    Relation(
        "airport_country",
        "{} is an airport in",
        "Travellers who land at {} arrive in the country of",
        "In which country is {}?",
        "Which country does one reach by landing at {}?",
    ),
    Relation(
        "airport_state",
        "{} is an airport in the U.S. state of",
        "Travellers who land at {} arrive in the U.S. state of",
        "In which U.S. state is {}?",
        "Which U.S. state does one reach by landing at {}?",
    ),
    Relation(
        "element_series",
        "In the periodic table, {} is one of the",
        "Chemists count the element {} among the",
        "Which group of elements does {} belong to?",
        "Among which elements do chemists count {}?",
    ),
    Relation(
        "person_nationality",
        "The nationality of {} is",
        "By nationality, {} is",
        "What is the nationality of {}?",
        "Which nationality does {} have?",
    ),
    Relation(
        "person_occupation",
        "The occupation of {} is",
        "{} is known for work as a professional",
        "What is the occupation of {}?",
        "Which profession is {} known for?",
    ),
    Relation(
        "person_century",
        "{} was born in the",
        "The birth of {} falls in the",
        "In which century was {} born?",
        "Which century saw the birth of {}?",
    ),
    Relation(
        "organism_group",
        "In biology, {} belongs to the",
        "Biologists classify {} with the",
        "Which group of organisms does {} belong to?",
        "With which organisms do biologists classify {}?",
    ),
    Relation(
        "organism_rank",
        "The taxonomic rank of {} is",
        "In biological classification, {} has the rank of",
        "What is the taxonomic rank of {}?",
        "Which rank does {} have in biological classification?",
    ),
    Relation(
        "article_topic",
        "The subject area that {} is filed under is",
        "In an encyclopedia, {} appears in the section on",
        "Which subject area does {} belong to?",
        "In which section of an encyclopedia does {} appear?",
    ),
    Relation(
        "country_capital",
        "The capital of {} is",
        "The seat of government of {} is in",
        "What is the capital of {}?",
        "Which city is the capital of {}?",
        many=False,
    ),
    Relation(
        "element_symbol",
        "The chemical symbol of {} is",
        "In formulas, {} is written as",
        "What is the chemical symbol of {}?",
        "Which symbol stands for {} in chemistry?",
        many=False,
    ),
    Relation(
        "airport_city",
        "The city that {} serves is",
        "{} is the airport of",
        "Which city does {} serve?",
        "What is the city that {} belongs to?",
        many=False,
    ),
)

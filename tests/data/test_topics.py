"""What is written about, and what it is compared with."""

import pytest
from conftest import SHARED
from samples import COUNTERFACT, write

from jeep.common.errors import UserError
from jeep.common.storage import write_jsonl
from jeep.data.demo import topics as demo
from jeep.data.demo.facts import counterfactual
from jeep.data.demo.knowledge import Triple
from jeep.data.demo.relations import RELATIONS
from jeep.data.facts import Fact
from jeep.data.topics import Topic, counterfact_topics, load_references, load_topics, snippets

ORIGINAL = COUNTERFACT | {
    "requested_rewrite": COUNTERFACT["requested_rewrite"] | {"target_new": {"str": "Italy", "id": "Q38"}},
    "generation_prompts": ["Paris has", "People in Paris"],
}


def test_topics_of_counterfact(tmp_path):
    assert counterfact_topics(write(tmp_path, [ORIGINAL])) == [Topic("7", ("Paris has", "People in Paris"), "P17/Q38")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (COUNTERFACT, "record 7: missing field 'generation_prompts'"),
        (ORIGINAL | {"generation_prompts": []}, "record 7: no generation_prompts"),
        (ORIGINAL | {"generation_prompts": [1]}, "record 7: generation_prompts is no text"),
        (COUNTERFACT | {"generation_prompts": ["x"]}, "record 7: missing field 'id'"),
        ("text", "record 0: no record of CounterFact"),
    ],
)
def test_what_is_no_record_of_counterfact(tmp_path, row, message):
    with pytest.raises(UserError, match=message):
        counterfact_topics(write(tmp_path, [row]))


def test_real_records_have_topics():
    path = SHARED / "data" / "counterfact_original_300.json"
    if not path.is_file():
        pytest.skip("no real records at hand")
    found = counterfact_topics(path)
    assert len(found) == 300
    assert {len(topic.prompts) for topic in found} == {10}


def test_reference_texts_of_the_release(tmp_path):
    rows = [
        {
            "relation_id": "P17",
            "target_id": "Q38",
            "samples": [{"name": "Rome", "text": "Rome is"}, {"text": "Pisa is"}],
        },
        {"relation_id": "P17", "target_id": "Q142", "samples": []},
    ]
    assert snippets(write(tmp_path, rows)) == {"P17/Q38": ["Rome is", "Pisa is"], "P17/Q142": []}
    for bad in (["x"], [{"relation_id": "P17"}]):
        with pytest.raises(UserError, match="no file of attribute snippets"):
            snippets(write(tmp_path, bad))


def test_both_are_read_as_they_are_written(tmp_path):
    topics = [Topic("a", ("p", "q"), "r/x")]
    write_jsonl(tmp_path / "topics.jsonl", (topic.to_json() for topic in topics))
    assert load_topics(tmp_path / "topics.jsonl") == topics
    write_jsonl(tmp_path / "references.jsonl", [{"about": "r/x", "texts": ["one", "two"]}])
    assert load_references(tmp_path / "references.jsonl") == {"r/x": ["one", "two"]}
    for row, message in (
        ({"case_id": "a", "prompts": "p", "about": "x"}, "prompts is no list"),
        ({"prompts": []}, "topic 1"),
    ):
        write_jsonl(tmp_path / "bad.jsonl", [row])
        with pytest.raises(UserError, match=message):
            load_topics(tmp_path / "bad.jsonl")
        with pytest.raises(UserError, match="expected lines of about and texts"):
            load_references(tmp_path / "bad.jsonl")


def test_every_relation_of_the_demo_has_openings():
    for relation in RELATIONS:
        fact = Fact("a", "Xyz", "{} is", relation.name, "y", "z")
        (topic,) = demo.topics([fact])
        assert topic.about == f"{relation.name}/y"
        assert len(set(topic.prompts)) == 3
        assert all(prompt.count("Xyz") == 1 for prompt in topic.prompts)
    assert counterfactual


def test_the_demos_reference_texts_are_of_subjects_that_have_the_object():
    triples = [
        Triple("Lyon", "city_country", "France"),
        Triple("Nice", "city_country", "France"),
        Triple("X", "r", "y"),
    ]
    articles = {"Lyon": "Lyon is old.", "Nice": "Nice is sunny.", "Rome": "Rome is eternal."}
    assert demo.references(triples, articles) == {"city_country/France": ["Lyon is old.", "Nice is sunny."]}

"""The demo's data sets and the small model that is trained on them."""

import collections
import random

import pytest
import torch
from tiny import city_facts

from jeep.common.storage import read_json
from jeep.data.demo.facts import asked, choose, counterfactual, questions, spare, split_of, statements
from jeep.data.demo.knowledge import Triple, unambiguous
from jeep.data.demo.nano import train
from jeep.data.demo.relations import RELATIONS
from jeep.data.facts import Question, load_facts
from jeep.data.sources import TrainedSource
from jeep.model.loading import load_model


@pytest.fixture(scope="module")
def sets(demo_folder):
    return {
        (name, split): load_facts(demo_folder / "facts" / f"{name}-{split}.jsonl")
        for name in ("mcf", "zsre")
        for split in ("dev", "train", "eval")
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mcf", "zsre"])
def test_there_are_enough_facts_of_enough_relations(sets, name):
    facts = [fact for (its, _), part in sets.items() if its == name for fact in part]
    assert len(facts) >= 1000
    assert len({fact.relation for fact in facts}) >= 12
    assert min(len(sets[name, split]) for split in ("dev", "train", "eval")) >= 100


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mcf", "zsre"])
def test_subjects_are_disjoint_between_splits(sets, name):
    subjects = [{fact.subject for fact in sets[name, split]} for split in ("dev", "train", "eval")]
    assert sum(map(len, subjects)) == len(set.union(*subjects))


@pytest.mark.slow
def test_counterfactual_records_are_formed_as_counterfact(sets):
    facts = [fact for (name, _), part in sets.items() if name == "mcf" for fact in part]
    objects = collections.defaultdict(set)
    for fact in facts:
        objects[fact.relation].add(fact.target_true)
    for fact in facts:
        first, second = fact.paraphrases
        assert second.endswith(f". {first}")
        assert fact.subject in first
        assert fact.target_new != fact.target_true
        assert fact.target_new in objects[fact.relation]
        assert len({question.prompt for question in fact.unrelated}) == 10
        assert {question.answer for question in fact.unrelated} == {fact.target_true}
        assert not any(question.prompt == fact.prompt for question in fact.unrelated)


@pytest.mark.slow
def test_questions_ask_something_unrelated(sets):
    for (name, _), part in sets.items():
        for fact in part if name == "zsre" else []:
            assert len(fact.paraphrases) == len(fact.unrelated) == 1
            assert fact.subject in fact.paraphrases[0]
            assert fact.prompt.endswith("?")
            assert fact.unrelated[0].prompt.startswith(("what ", "who "))
            assert fact.unrelated[0].prompt.endswith("?")


TRIPLES = [
    Triple(f"City {n}", "city_country", country) for country in ("France", "Italy", "Chad") for n in range(60)
] + [Triple("Lone", "city_country", "Malta")]


def test_an_ambiguous_subject_is_left_out():
    triples = [Triple("A", "city_country", "X"), Triple("A", "city_country", "Y"), Triple("B", "city_country", "X")]
    assert unambiguous(triples) == [triples[2]]


def test_objects_without_enough_neighbours_are_left_out():
    chosen = choose(TRIPLES, random.Random(0))
    assert {triple.object for triple in chosen} == {"France", "Italy", "Chad"}
    facts = list(counterfactual(chosen, ["A short sentence of no importance."], random.Random(0)))
    assert all(len(fact.unrelated) == 10 for fact in facts)
    edited = {fact.prompt for fact in facts if split_of(fact.subject) != "train"}
    assert edited
    assert not any(question.prompt in edited for fact in facts for question in fact.unrelated)


def test_every_fact_to_edit_has_an_unrelated_question_of_its_own():
    """Records are independent; no question of the eval or dev split is seen in training, and none gives an answer."""
    triples = [Triple(f"Country {n}", "country_capital", "Paris") for n in range(60)]
    asked = [Question(f"what is thing {n}?", f"Answer {n}") for n in range(50)]
    asked += [Question("what is the capital of love?", f"Paris {n}") for n in range(20)]
    facts = list(questions(triples, asked, random.Random(0)))
    assert [fact.subject for fact in facts] == [triple.subject for triple in triples]
    assert not any("Paris" in fact.unrelated[0].answer for fact in facts)
    of = collections.defaultdict(list)
    for fact in facts:
        of[split_of(fact.subject) == "train"].append(fact.unrelated[0])
    assert len(set(of[False])) == len(of[False]) > 20
    assert not set(of[False]) & set(of[True])


@pytest.mark.slow
def test_no_neighbour_is_ever_edited(sets):
    """However many facts are: what lies outside an edit is of the train split."""
    edited = {(fact.relation, fact.subject) for (_, split), part in sets.items() if split != "train" for fact in part}
    for split in ("dev", "eval"):
        for fact in sets["mcf", split]:
            relation = next(each for each in RELATIONS if each.name == fact.relation)
            asked = {question.prompt for question in fact.unrelated}
            forms = {form.replace("{}", s) for r, s in edited if r == fact.relation for form in _forms(relation)}
            assert not asked & forms


def _forms(relation):
    return relation.prompt, relation.paraphrase


def test_split_depends_on_the_subject_alone():
    counts = collections.Counter(split_of(f"subject {n}") for n in range(2000))
    assert {name: counts[name] / 2000 for name in counts} == pytest.approx(
        {"dev": 0.15, "train": 0.4, "eval": 0.45}, abs=0.03
    )


@pytest.mark.parametrize("relation", RELATIONS, ids=lambda relation: relation.name)
def test_templates_have_one_place_for_the_subject(relation):
    assert [form.count("{}") for form in (relation.prompt, relation.paraphrase)] == [1, 1]
    assert [form.count("{}") for form in (relation.question, relation.rephrase)] == [1, 1]
    assert relation.question.endswith("?")
    assert relation.rephrase.endswith("?")


def test_a_small_model_learns_its_statements(tmp_path):
    triples = [Triple(fact.subject, "city_country", fact.target_true) for fact in city_facts()]
    rows = [
        {"relation": triple.relation, "prompt": prompt, "answer": answer}
        for triple in triples
        for prompt, answer in statements(triple)
    ]
    source = TrainedSource(
        kind="trained",
        layers=2,
        width=64,
        heads=4,
        vocabulary=400,
        steps=120,
        tokens_per_step=512,
        learning_rate=0.005,
        corpus_share=0.25,
    )
    texts = ["Paris is a city. Rome is another city, far away from the sea and from the north."] * 20
    knowledge = train(source, rows, texts, 0, tmp_path / "nano")
    assert knowledge["statements"] == len(rows)
    assert knowledge["known"] > 0.9
    assert read_json(tmp_path / "nano" / "knowledge.json") == knowledge
    assert load_model(tmp_path / "nano", device="cpu").parallel
    again = train(source, rows, texts, 0, tmp_path / "again")
    assert again == knowledge
    one, two = (load_model(tmp_path / name, device="cpu").network.state_dict() for name in ("nano", "again"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_the_spare_set_has_no_subject_of_another():
    generator = random.Random(0)
    chosen = choose(TRIPLES, generator)
    others = spare(TRIPLES, chosen, generator)
    assert len(others) > 20
    assert {triple.subject for triple in others}.isdisjoint(triple.subject for triple in chosen)
    statement, question = (asked(others[0], as_question=each) for each in (False, True))
    assert statement.prompt != question.prompt
    assert question.prompt.endswith("?")
    assert statement.target_new == question.target_new == others[0].object

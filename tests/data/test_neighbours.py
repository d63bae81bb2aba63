"""Neighbours: never what is edited or measured."""

from dataclasses import replace

import pytest

from jeep.common.errors import UserError
from jeep.data.facts import Fact, Question
from jeep.data.neighbours import draw_subjects, neighbours_of


def fact(subject, relation="country", template="{} lies in", **more):
    return Fact(f"{relation}-{subject}", subject, template, relation, "Chad", **more)


POOL = [fact(city) for city in ("Rome", "Bonn", "Lyon", "Oslo", "Paris")] + [fact("Nile", "sea", "{} flows into")]


def test_subjects_are_of_the_relation_and_in_no_prompt_that_measures():
    edited = [
        fact("Paris", paraphrases=("Behind it: BONN and Paris",)),
        fact("Rhine", "sea", unrelated=(Question("Lyon lies in", "France"),)),
    ]
    found = draw_subjects(edited, POOL, 20)
    assert sorted(found["country"]) == ["Oslo", "Rome"]
    assert found["sea"] == ["Nile"]
    assert len(draw_subjects(edited, POOL, 1)["country"]) == 1
    assert draw_subjects(edited, POOL[:5], 20).keys() == {"country"}, "none is left for the other"


def test_the_draw_is_seeded():
    draws = {tuple(draw_subjects([fact("Kyiv")], POOL, 3, seed)["country"]) for seed in (0, 0, 1, 2, 3)}
    assert 1 < len(draws) < 5


def test_facts_without_a_relation_are_asked_of_every_subject():
    found = draw_subjects([fact("Kyiv", relation="", template="Where is {}?")], POOL, 20)
    assert sorted(found["Where is {}?"]) == sorted({each.subject for each in POOL})


def test_no_subject_left_is_an_error():
    with pytest.raises(UserError, match="no subject is left"):
        draw_subjects([fact(each.subject) for each in POOL], POOL, 20)


def test_a_neighbour_is_an_edited_fact_that_asks_about_another_subject():
    edited = [
        fact("Paris", target_true="France", paraphrases=("Paris is in",)),
        fact("Kyiv", template="The country of {} is", target_true="Ukraine"),
        fact("Rhine", "sea", "{} flows into"),
    ]
    found = neighbours_of(edited, {"country": ["Rome", "Oslo", "Bonn"], "other": ["Nile"]})
    assert [each.prompt for each in found] == ["Rome lies in", "The country of Oslo is", "Bonn lies in"]
    assert [each.target_true for each in found] == ["France", "Ukraine", "France"]
    assert not any(each.paraphrases or each.unrelated for each in found)
    assert len({each.case_id for each in found}) == 3


@pytest.mark.parametrize(
    "edited",
    [
        fact("rome"),
        fact("Paris", paraphrases=("Not Rome, Paris is in",)),
        fact("Paris", unrelated=(Question("Rome", "x"),)),
    ],
    ids=["edited", "paraphrase", "unrelated"],
)
def test_a_neighbour_that_is_edited_or_measured_is_an_error(edited):
    with pytest.raises(UserError, match="'Rome' is edited, or stands in a prompt"):
        neighbours_of([edited, replace(edited, case_id="2", subject="Bari")], {"country": ["Rome"]})

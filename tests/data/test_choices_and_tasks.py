"""Multiple-choice questions: files of them, and those that are made of the project's own data."""

import json

import pytest

from jeep.common.errors import UserError
from jeep.common.storage import write_jsonl
from jeep.data.choices import Choice, read_choices
from jeep.data.demo.tasks import agreement, arithmetic, fact_choices, next_words
from jeep.data.facts import Fact


def test_questions_are_read_as_they_are_written(tmp_path):
    questions = [Choice("a is", ("x", "y"), 1), Choice("b", ("x", "y", "z"), 0)]
    write_jsonl(tmp_path / "q.jsonl", (question.to_json() for question in questions))
    assert read_choices(tmp_path / "q.jsonl") == questions


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": " ", "choices": ["a", "b"], "label": 0}, "empty text"),
        ({"text": "t", "choices": ["a"], "label": 0}, "expected at least two choices"),
        ({"text": "t", "choices": ["a", ""], "label": 0}, "expected at least two choices, and none that is empty"),
        ({"text": "t", "choices": ["a", "a"], "label": 0}, "two choices are the same"),
        ({"text": "t", "choices": ["a", "b"], "label": 2}, "label 2 of 2 choices, counted from 0"),
        ({"text": "t", "choices": ["a", "b"], "label": -1}, "label -1 of 2"),
        ({"text": "t", "choices": ["a", "b"], "label": "0"}, "label is no number: '0'"),
        ({"text": "t", "choices": ["a", "b"], "label": True}, "label is no number: True"),
        ({"text": "t", "choices": "ab", "label": 0}, "choices is no list"),
        ({"text": "t", "choices": ["a", 1], "label": 0}, "choices is no text: 1"),
        ({"text": "t", "label": 0}, "missing field 'choices'"),
        (["t"], "not an object"),
    ],
)
def test_what_is_no_question(tmp_path, row, message):
    good = {"text": "t", "choices": ["a", "b"], "label": 0}
    (tmp_path / "q.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(row)}\n")
    with pytest.raises(UserError, match=rf"q\.jsonl, question 2: {message}"):
        read_choices(tmp_path / "q.jsonl")


def fact(number, relation, target, true=None):
    return Fact(f"{relation}{number}", f"{relation}{number}", "{} is", relation, target, true)


def test_facts_as_questions():
    facts = [fact(n, "country", f"c{n % 6}") for n in range(30)] + [fact(n, "two", "xy"[n % 2]) for n in range(6)]
    facts += [fact(0, "one", "only"), fact(40, "country", "never", "c1")]
    found = fact_choices(facts, 100, 0)
    assert len(found) == 37, "all but the one whose relation has a single object"
    truth = {each.prompt: each.target_true or each.target_new for each in facts}
    for question in found:
        assert question.choices[question.label] == truth[question.text]
        assert len(question.choices) == (4 if truth[question.text].startswith("c") else 2)
        assert "never" not in question.choices, "an object that is true of nothing"
    assert len({question.label for question in found}) == 4
    assert fact_choices(facts, 10, 0) == found[:10]
    assert fact_choices(facts, 100, 1) != found


def test_next_words():
    words = [f"W{n}" for n in range(25)]
    text = " ".join([*words[:24], "river", "river", "with", "The", "mountain", "valley,", "forest", "meadow", "river"])
    (question,) = next_words([text, "too short", " ".join(words)], 5, 0)
    assert question.text == " ".join([*words[:24], "river", "river"]), "up to the first new one behind 25 words"
    assert question.choices[question.label] == "with"
    assert set(question.choices) == {"with", "mountain", "forest", "meadow"}
    assert len(next_words([text] * 5, 2, 0)) == 2


def test_verbs_agree_with_their_subject():
    singular, plural = {"is", "was", "has", "does"}, {"are", "were", "have", "do"}
    found = agreement(40, 0)
    kinds = []
    for question in found:
        _, subject, *_, other = question.text.split()
        right, wrong = (question.choices[place] for place in (question.label, 1 - question.label))
        assert right in (plural if subject.endswith("s") else singular)
        assert wrong in (singular if subject.endswith("s") else plural)
        kinds.append((subject.endswith("s"), other.endswith("s")))
    assert {kinds.count(kind) for kind in kinds} == {10}, "each combination as often"
    assert agreement(40, 0) == found
    assert agreement(40, 1) != found


def test_sums():
    for question in arithmetic(50, 0):
        one, _, other, _ = question.text.splitlines()[-1].split()
        right = int(one) + int(other)
        assert question.choices[question.label] == str(right)
        assert all(abs(int(each) - right) in (0, 1, 2, 10) and int(each) > 0 for each in question.choices)
        assert len(question.choices) == 4

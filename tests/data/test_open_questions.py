"""Open questions made from first sentences of articles."""

import json

import pytest

from jeep.data.demo.open_questions import mentions, open_questions
from jeep.data.facts import Question

ARTICLES = {
    "Hat": {"extract": "A hat is a head covering which is worn for various reasons.", "topic": "x"},
    "John Wycliffe": {
        "extract": "John Wycliffe was an English scholastic philosopher, who translated the Bible.",
        "topic": "People",
    },
    "Lyon": {"extract": "Lyon is a large old city in the east of France.", "topic": "x"},  # a place
    "Bond": {"extract": "A bond is a covalent bond between two atoms.", "topic": "x"},  # gives its answer away
    "Other": {"extract": "Another thing is a head covering of some kind.", "topic": "x"},  # defines something else
    "Twin": {"extract": "Twin is the same definition as another article has.", "topic": "x"},
    "Twice": {"extract": "Twice is the same definition as another article has.", "topic": "x"},
    "Film": {"extract": "Film is a 1941 American drama directed, produced and written by one.", "topic": "x"},  # cut
}


@pytest.fixture
def questions(tmp_path):
    (tmp_path / "articles.json").write_text(json.dumps(ARTICLES))
    return open_questions(tmp_path / "articles.json")


def test_a_definition_becomes_a_question_for_its_term(questions):
    assert questions == [
        Question("what is a head covering which is worn for various reasons?", "hat"),
        Question("who was an English scholastic philosopher?", "John Wycliffe"),
    ]


def test_names_are_found_as_whole_words():
    question = Question("what is the art of Rome?", "Ärt")
    assert mentions(question, ["rome"])
    assert mentions(question, ["x", "ärt"])
    assert not mentions(question, ["Rom", "hat"])

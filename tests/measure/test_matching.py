"""Matches of texts and answers, by hand."""

import pytest

from jeep.measure.matching import exact_match, normalized, prefix_match


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Beatles,\tan English band!", "beatles english band"),
        ("U.S.", "us"),
        ("“São Paulo” – capital", "são paulo capital"),
        ("A", "a"),  # nothing else: the answer is the article
        ("an apple a day", "apple day"),
        ("theatre", "theatre"),
        ("...", ""),
    ],
)
def test_normalisation(text, expected):
    assert normalized(text) == expected


@pytest.mark.parametrize(
    ("text", "answer", "exact", "prefix"),
    [
        ("Paris", "paris", True, True),
        ("the Paris.", "Paris", True, True),
        ("Paris, the capital of France", "Paris", False, True),
        ("Parisian", "Paris", False, False),  # another word
        ("It is Paris", "Paris", False, False),
        ("", "Paris", False, False),
        ("Par", "Paris", False, False),
        ("anything", "!", False, False),  # nothing is left of this answer
        ("", "!", False, False),
        ("北京是中国的首都", "北京", False, True),  # words without spaces
        ("北京", "北京", True, True),
        ("New York City", "New York", False, True),
        ("1990s", "1990", False, False),
    ],
)
def test_matches(text, answer, exact, prefix):
    assert exact_match(text, answer) is exact
    assert prefix_match(text, answer) is prefix

"""Entropies and TF-IDF by hand, and texts of a model that knows the cities."""

import math

import pandas as pd
import pytest
from tiny import random_network

from jeep.common.errors import UserError
from jeep.data.topics import Topic
from jeep.measure.fluency import WRITTEN, Consistency, compositions, fluency, ngram_entropy, words_of, written
from jeep.measure.metrics import summarize
from jeep.model.editable import EditableModel


@pytest.mark.parametrize(
    ("text", "n", "expected"),
    [
        ("a b a b a", 2, 1.0),  # ab and ba twice each
        ("a b a b a", 3, -(2 / 3) * math.log2(2 / 3) - (1 / 3) * math.log2(1 / 3)),  # aba twice, bab once
        ("a b c d e", 2, 2.0),
        ("x x x x x", 3, 0.0),
        ("a", 2, 0.0),  # none
        ("", 3, 0.0),
    ],
)
def test_entropy_of_ngrams(text, n, expected):
    assert ngram_entropy(text.split(), n) == pytest.approx(expected)


def test_bigrams_weigh_two_thirds_and_trigrams_four_thirds_of_a_half():
    """The specification's example: 100 distinct words, 99 bigrams and 98 trigrams."""
    distinct = " ".join(f"w{number}" for number in range(100))
    assert 100 * fluency(distinct) == pytest.approx(661.96, abs=0.005)
    assert fluency("a b a b a") == pytest.approx(0.5 * (2 / 3 * 1 + 4 / 3 * ngram_entropy("ababa", 3)))
    assert fluency("no no no no no no") == 0


def test_words_are_nltks():
    text = 'Paris isn\'t big (for some). "Yes," he said: it costs $3.50.'
    assert words_of(text) == [
        "Paris", "is", "n't", "big", "(", "for", "some", ")", ".",
        "``", "Yes", ",", "''", "he", "said", ":", "it", "costs", "$", "3.50", ".",
    ]  # fmt: skip


REFERENCES = {"r/x": ["red apples", "green apples grow"], "r/y": ["blue sky"], "r/none": []}


def test_consistency_by_hand():
    """Documents: red apples; green apples grow; blue sky. idf = ln((1 + 3)/(1 + df)) + 1; tf is a count."""
    consistency = Consistency(REFERENCES)
    once, twice = math.log(4 / 2) + 1, math.log(4 / 3) + 1
    reference = {"red": once, "apples": 2 * twice, "green": once, "grow": once}
    text = {"apples": twice, "sky": once}  # of "Apples a sky": one letter is no word, an unknown word is left out
    dot = sum(value * text.get(word, 0) for word, value in reference.items())
    norms = [math.sqrt(sum(value**2 for value in each.values())) for each in (reference, text)]
    assert consistency.of("r/x", ["Apples a", "sky unknown"]) == pytest.approx(dot / norms[0] / norms[1])
    assert consistency.of("r/y", ["sky blue"]) == pytest.approx(1)
    assert consistency.of("r/y", ["apples"]) == 0
    assert consistency.of("r/y", ["nothing known"]) == 0
    assert consistency.has("r/x")
    assert not consistency.has("r/none")
    assert not consistency.has("r/other")


def test_reference_texts_without_words():
    for references in ({}, {"r/x": ["a b"]}):
        with pytest.raises(UserError, match="no words to compare by"):
            Consistency(references)


def test_rows_and_means_by_hand(caplog):
    caplog.set_level("INFO")
    topics = [Topic("a", ("p", "q"), "r/x"), Topic("b", ("p",), "r/none")]
    texts = pd.DataFrame(
        [("a", 0, "x x x"), ("a", 1, "red apples"), ("b", 0, "a b c d e")], columns=["case_id", "number", "text"]
    )
    consistency = Consistency(REFERENCES)
    rows = written(texts, topics, consistency)
    assert rows[rows.metric == "fluency"].value.tolist() == [0, 0, fluency("a b c d e")]
    (row,) = rows[rows.metric == "consistency"].itertuples()
    assert row.case_id == "a"
    assert row.value == pytest.approx(consistency.of("r/x", ["x x x", "red apples"]))
    assert "1 of 2 records have no reference texts" in caplog.text
    means = summarize(rows, WRITTEN).set_index("metric").value
    assert means["fluency"] == pytest.approx(50 * fluency("a b c d e")), "records count alike, whatever their texts"
    assert means["consistency"] == pytest.approx(100 * row.value)


def test_compositions_are_of_the_topics_prompts(byte_level, facts):
    model = EditableModel(random_network("gptj"), byte_level)
    topics = [Topic(fact.case_id, (fact.prompt, *fact.paraphrases), "r/x") for fact in facts[:3]]
    found = compositions(model, topics, 0, 1000, length=20)
    assert found.columns.tolist() == ["case_id", "number", "text"]
    assert list(zip(found.case_id, found.number, strict=True)) == [(t.case_id, n) for t in topics for n in range(2)]
    prompts = [prompt for topic in topics for prompt in topic.prompts]
    assert all(text.startswith(prompt) for text, prompt in zip(found.text, prompts, strict=True))
    alone = compositions(model, topics[2:], 0, 1000, length=20)
    assert alone.text.tolist() == found.text.tolist()[4:], "whatever else is asked"
    assert compositions(model, topics, 1, 1000, length=20).text.tolist() != found.text.tolist()


def test_texts_are_normalised_as_in_the_release(trained, monkeypatch):
    from jeep.measure import fluency as module

    monkeypatch.setattr(module, "sampled", lambda *_, **__: ["é\n\nﬁn\nx"])
    (text,) = compositions(trained, [Topic("a", ("p",), "r/x")], 0, 100).text
    assert text == "e\u0301 fin\nx"

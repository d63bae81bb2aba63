"""Multi-hop accuracy by hand, and what is asked."""

import pandas as pd
import pytest
from test_generation import plain_text

from jeep.data.chains import Chain
from jeep.measure.metrics import summarize
from jeep.measure.portability import EXAMPLES, MULTI_HOP, multi_hop, multi_hop_answers


@pytest.fixture
def chains(facts):
    return [
        Chain("a", (facts[0],), ("Q1?", "Q2?", "Q3?"), ("Rome", "Roma"), ("Paris",)),
        Chain("b", (facts[1],), ("Q4?",), ("Oslo",), ("Berlin", "Bonn")),
        Chain("c", (facts[2],), ("Q5?", "Q6?"), ("United States", "U.S."), ("Spain",)),
    ]


def test_a_chain_counts_if_any_question_is_answered_with_any_alias(chains):
    texts = pd.DataFrame(
        [
            ("a", 0, "Paris, of course"), ("a", 1, "roma!"), ("a", 2, "Milan"),
            ("b", 0, "Bonn"),
            ("c", 0, "US, or America"), ("c", 1, "in the United States"),
        ],
        columns=["case_id", "number", "text"],
    )  # fmt: skip
    found = multi_hop(texts, chains)
    assert found.case_id.tolist() == ["a", "b", "c"]
    assert found.exact.tolist() == [1, 0, 0]
    assert found.prefix.tolist() == [1, 0, 1]
    assert found.old.tolist() == [1, 1, 0]
    (row,) = summarize(found.assign(value=found.prefix), MULTI_HOP).itertuples()
    assert (row.metric, row.value) == ("MH", pytest.approx(200 / 3))


def test_questions_stand_behind_the_examples_and_are_answered_to_the_lines_end(trained, chains):
    examples = EXAMPLES[:1]
    found = multi_hop_answers(trained, chains[:2], 2000, examples)
    assert list(zip(found.case_id, found.number, strict=True)) == [("a", 0), ("a", 1), ("a", 2), ("b", 0)]
    front = f"Q: {examples[0][0]}\nA: {examples[0][1]}\nQ: "
    for question, text in zip(("Q1?", "Q4?"), found.text[[0, 3]], strict=True):
        assert text == plain_text(trained, f"{front}{question}\nA:", 50, ("\n",))

"""Multiple choice against the whole model, one choice at a time."""

import pandas as pd
import pytest
import torch
from tiny import KINDS, random_network

from jeep.common.errors import UserError
from jeep.data.choices import Choice
from jeep.measure.choices import score_choices, summarize_choices
from jeep.model.editable import EditableModel

QUESTIONS = [
    Choice("Paris is a city in", ("France", "Italy", "a very large and old country"), 0),
    Choice("Rome is a city in", ("Germany", "Italy"), 1),
    Choice("Bonn and", ("Nice", "I", "the city of Rome, Italy", "Kyoto"), 2),
]


@torch.no_grad()
def plain(network, tokenizer, question):
    """The sum of the log-probabilities of a choice's tokens, of the whole text's ids."""
    sums = []
    size = len(tokenizer(question.text).input_ids)
    for choice in question.choices:
        ids = tokenizer(f"{question.text} {choice}").input_ids
        log_p = network(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        sums.append(sum(float(log_p[place - 1, ids[place]]) for place in range(size, len(ids))))
    return sums


@pytest.mark.parametrize("name", KINDS)
def test_scores_are_those_of_the_whole_model(name, byte_level):
    network = random_network(name)
    expected = [plain(network, byte_level, question) for question in QUESTIONS]
    rows = score_choices(EditableModel(network, byte_level), QUESTIONS, 40)
    for question, sums, row in zip(QUESTIONS, expected, rows.itertuples(), strict=True):
        others = [each for place, each in enumerate(sums) if place != question.label]
        assert row.margin == pytest.approx(sums[question.label] - max(others), abs=2e-3)
        assert row.chosen == sums.index(max(sums))
        assert row.acc == float(row.chosen == question.label)
        by_length = [each / len(choice) for each, choice in zip(sums, question.choices, strict=True)]
        assert row.acc_norm == float(by_length.index(max(by_length)) == question.label)


def test_a_longer_choice_is_not_at_a_disadvantage_by_acc_norm(trained):
    """Its sum is less than that of a short one, which is a part of it; the mean over characters need not be."""
    question = Choice("Paris is a city in", ("France. Paris is a city in France. Paris is a city in France.", "Fr"), 0)
    (row,) = score_choices(trained, [question], 100).itertuples()
    (sums,) = [plain(trained.network, trained.tokenizer, question)]
    assert sums[0] < sums[1]
    assert row.acc == 0
    assert row.acc_norm == float(sums[0] / len(question.choices[0]) > sums[1] / 2)


def test_a_model_that_knows_the_cities(trained, facts):
    countries = ["France", "Italy", "Germany", "Spain"]
    known = [fact for fact in facts if fact.target_true in countries]
    questions = [Choice(f.prompt, tuple(countries), countries.index(f.target_true)) for f in known]
    assert score_choices(trained, questions, 200).acc.mean() > 0.9


def test_the_summary_by_hand():
    rows = pd.DataFrame({"acc": [1.0, 0.0, 1.0, 1.0], "acc_norm": [0.0, 0.0, 0.0, 0.0]})
    found = summarize_choices(rows).set_index("metric")
    assert found.value.to_dict() == {"acc": 75, "acc_norm": 0}
    assert found.ci95["acc"] == pytest.approx(1.96 * 50 / 2)  # s = 50
    assert found.ci95["acc_norm"] == 0


def test_a_model_that_answers_nan(byte_level):
    model = EditableModel(random_network("llama"), byte_level)
    with torch.no_grad():
        model.network.get_parameter(model.parameter_name(3)).fill_(float("nan"))
    with pytest.raises(UserError, match="'Paris is a city in': the model answers NaN"):
        score_choices(model, QUESTIONS, 100)

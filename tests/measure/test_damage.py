"""What else an edit changes: the same questions without it and with it."""

from functools import partial

import pandas as pd
import pytest
import torch
from tiny import city_facts, random_network

from jeep.data.chains import Chain
from jeep.data.choices import Choice
from jeep.data.topics import Topic
from jeep.measure import damage as module
from jeep.measure import drift
from jeep.measure.choices import score_choices
from jeep.measure.damage import COLUMNS, KINDS, Damage, Questions
from jeep.measure.evaluate import items
from jeep.measure.generation import answers
from jeep.model.editable import EditableModel

FACTS = city_facts()[:4]
WINDOWS = [(7, 3, 11, 5, 2, 9), (4, 8, 1, 12, 6, 30), (21, 17, 40, 3, 3, 8)]


def questions(**parts):
    asked = {
        "facts": FACTS,
        "topics": [Topic(fact.case_id, ("The city of",), "in/France") for fact in FACTS],
        "references": {"in/France": ["Paris is a city in France"]},
        "windows": WINDOWS,
        "tasks": {"sums": [Choice("1 + 1 =", ("2", "3"), 0), Choice("1 + 2 =", ("2", "3"), 1)]},
        "chains": [Chain(f"c{n}", (fact,), ("Where?",), (fact.target_new,), ("x",)) for n, fact in enumerate(FACTS)],
    }
    return Questions(**asked | parts)


@pytest.fixture
def model(byte_level):
    return EditableModel(random_network("llama"), byte_level)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Texts of a few tokens: what is tested is the same."""
    monkeypatch.setattr(module, "compositions", partial(module.compositions, length=20))


def change(model, size=3.0):
    torch.manual_seed(1)
    name = model.parameter_name(2)
    weight = model.weight(name)
    return {name: size * weight.std() * torch.randn_like(weight)}


def test_nothing_is_changed_where_nothing_is_edited(model):
    rows = Damage(model, questions(), 500).of(FACTS)
    assert list(rows) == COLUMNS
    assert list(dict.fromkeys(rows["kind"])) == list(KINDS)
    exact = rows[rows["kind"] != "text"]
    assert (exact["value"] == exact["before"]).all()
    assert set(rows.loc[rows["metric"] == "LS_g", "value"]) == {1.0}
    text = rows[rows["kind"] == "text"]
    assert text["value"].tolist() == pytest.approx(text["before"].tolist(), abs=1e-5)


def test_each_value_is_that_of_the_measure_itself(model):
    asked = questions()
    damage = Damage(model, asked, 500)
    before, reference = answers(model, FACTS, "counterfact", 500), drift.unedited(model, WINDOWS, 500)
    with model.edited(change(model)):
        rows = damage.of(FACTS).set_index(["metric", "unit"])
        after, drifted = answers(model, FACTS, "counterfact", 500), drift.drift(model, reference, 500)
        sums = score_choices(model, asked.tasks["sums"], 500)
    same = (after["text"] == before["text"]).astype(float)[after["metric"] == "LS_g"]
    by_fact = same.groupby(after["case_id"]).mean()
    assert 1 - by_fact.mean() > 0, "the edit changes what is written"
    for fact in FACTS:
        assert rows.loc[("LS_g", fact.case_id), "value"] == pytest.approx(by_fact[fact.case_id])
    for window, row in enumerate(drifted.itertuples()):
        assert rows.loc[("kl", str(window)), "value"] == pytest.approx(row.kl / row.tokens, rel=1e-5)
        assert rows.loc[("kl", str(window)), "before"] == 0
        assert rows.loc[("nll", str(window)), "value"] == pytest.approx(row.nll_after / row.tokens, rel=1e-5)
        assert rows.loc[("nll", str(window)), "before"] == pytest.approx(row.nll_before / row.tokens, rel=1e-5)
    assert [rows.loc[("sums", str(n)), "value"] for n in (0, 1)] == sums["acc"].tolist()
    assert {"fluency", "consistency", "MH", "ES_p", "GS_p"} <= set(rows.index.get_level_values(0))


def test_only_what_is_edited_is_asked_about(model):
    damage = Damage(model, questions(), 500)
    rows = damage.of(FACTS[:2])
    edited = {fact.case_id for fact in FACTS[:2]}
    for kind in ("generation", "writing"):
        assert set(rows.loc[rows["kind"] == kind, "unit"]) == edited
    assert set(rows.loc[rows["kind"] == "multi_hop", "unit"]) == edited, "chains of one fact are one unit"
    assert len(rows[rows["metric"] == "kl"]) == len(WINDOWS)
    assert set(damage.of(FACTS, ["task"])["kind"]) == {"task"}


def test_a_model_that_answers_nan_has_nan_and_the_job_goes_on(model, caplog):
    damage = Damage(model, questions(), 500)
    with model.edited({name: delta * float("inf") for name, delta in change(model).items()}):
        rows = damage.of(FACTS)
    asked = rows[rows["kind"] != "multi_hop"]  # whose prompts are longer than this model's positions
    assert asked["value"].isna().all()
    assert rows.loc[rows["metric"] != "kl", "before"].notna().all()
    assert "answers NaN" in caplog.text
    assert damage.of(FACTS, ["text", "task"])["value"].notna().all(), "and is as it was"


def test_parts_that_are_missing_are_not_asked(model):
    rows = Damage(model, Questions(windows=WINDOWS), 500).of(FACTS)
    assert set(rows["kind"]) == {"text"}
    assert Damage(model, Questions(), 500).of(FACTS).empty


def test_the_first_of_each_part():
    asked = questions().first(1, 2, 1, 3)
    assert [len(each) for each in (asked.facts, asked.topics, asked.tasks["sums"], asked.chains)] == [1, 2, 1, 3]
    assert asked.windows == WINDOWS


def test_chains_of_other_facts_and_topics_with_references_come_first():
    chains = [Chain(f"{n}-{k}", (FACTS[n],), ("Where?",), ("x",), ("y",)) for n in (0, 1) for k in (0, 1)]
    topics = [Topic("a", ("A",), "in/Nowhere"), Topic("b", ("B",), "in/France")]
    asked = questions(chains=chains, topics=topics).first(1, 1, 1, 3)
    assert [chain.case_id for chain in asked.chains] == ["0-0", "1-0", "0-1"]
    assert [topic.case_id for topic in asked.topics] == ["b"]


def test_texts_without_references_are_fluent_or_not(model):
    rows = Damage(model, questions(references={}), 500).of(FACTS, ["writing"])
    assert set(rows["metric"]) == {"fluency"}


def test_what_is_written_is_kept(model):
    damage = Damage(model, questions(), 500)
    rows = damage.of(FACTS[:1])
    assert set(damage.texts["unit"]) == {FACTS[0].case_id}
    exact = damage.texts[damage.texts["metric"] == "ES_g"]["text"].tolist()
    assert exact == answers(model, FACTS[:1], "counterfact", 500).query("metric == 'ES_g'")["text"].tolist()
    assert (damage.texts["metric"] == "composition").sum() == 1
    assert len(rows)


def test_a_guess_is_one_of_the_choices(model):
    rows = Damage(model, questions(), 500).of(FACTS)
    assert set(rows.loc[rows["kind"] == "task", "chance"]) == {0.5}
    assert rows.loc[rows["kind"] != "task", "chance"].isna().all()


def test_prompts_of_a_fact_are_one_unit(model):
    rows = Damage(model, questions(), 500).of(FACTS)
    generated = pd.Series([item.metric for item in items(FACTS, "counterfact")]).value_counts()
    assert generated["LS"] > len(FACTS)
    assert (rows["metric"] == "LS_g").sum() == len(FACTS)

"""Metrics by hand, and scoring against one prompt at a time on the model's own forward pass."""

import copy
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import KINDS, random_network

from benchmarks import plain
from jeep.data.facts import Fact, Question
from jeep.measure.evaluate import Item, evaluate, items, score
from jeep.measure.metrics import harmonic_mean, summarize
from jeep.model.editable import EditableModel
from jeep.model.tokens import encode, encode_word


def rows(*entries):
    return pd.DataFrame(entries, columns=["case_id", "metric", "value"])


def test_summary_by_hand():
    """Two records: ES 1 and 0; GS ½ and 1 (means over prompts first); LS 1 and 1."""
    summary = summarize(
        rows(
            ("a", "ES", 1.0), ("b", "ES", 0.0),
            ("a", "GS", 1.0), ("a", "GS", 0.0), ("b", "GS", 1.0),
            ("a", "LS", 1.0), ("b", "LS", 1.0),
        )
    ).set_index("metric")  # fmt: skip
    assert summary.value.to_dict() == pytest.approx(
        {"Score": 3 / (1 / 50 + 1 / 75 + 1 / 100), "ES": 50, "GS": 75, "LS": 100}
    )
    # Sample standard deviations 70.71 and 35.36; 1.96 s / √2.
    assert summary.ci95["ES"] == pytest.approx(98.0)
    assert summary.ci95["GS"] == pytest.approx(49.0)
    assert summary.ci95["LS"] == 0


def test_the_half_width_of_score_is_the_bootstraps():
    """Records that are right on several metrics together, some without a paraphrase."""
    generator = np.random.default_rng(0)
    ability = generator.random(400)
    table = pd.DataFrame({m: (generator.random(400) < ability**p) for m, p in (("ES", 0.3), ("GS", 1), ("LS", 2))})
    long = table.astype(float).rename_axis("case_id").reset_index().melt("case_id", var_name="metric")
    long = long[(long.metric != "GS") | (long.case_id % 4 != 0)]
    values = long.pivot(index="case_id", columns="metric", values="value").to_numpy() * 100
    drawn = [3 / (1 / np.nanmean(values[generator.integers(0, 400, 400)], 0)).sum() for _ in range(2000)]
    summary = summarize(long).set_index("metric")
    assert summary.ci95["Score"] == pytest.approx(1.96 * np.std(drawn), rel=0.06)


def test_a_score_of_nothing_has_no_half_width():
    assert math.isnan(summarize(rows(("a", "ES", 0.0), ("a", "GS", 1.0), ("a", "LS", 1.0))).ci95[0])


def test_a_score_of_one_percent_has_its_half_width_and_stands_first():
    """Two records, right on 0 and on 2 of 100 prompts of each metric: both move the Score by one."""
    entries = [(case, metric, value) for case, value in (("a", 0.0), ("b", 0.02)) for metric in ("ES", "GS", "LS")]
    summary = summarize(rows(*entries))
    assert list(summary.metric) == ["Score", "ES", "GS", "LS"]
    assert summary.value.tolist() == pytest.approx([1, 1, 1, 1])
    assert summary.ci95.tolist() == pytest.approx([1.96, 1.96, 1.96, 1.96])


def test_harmonic_mean():
    assert harmonic_mean([26.4, 25.8, 27.0]) == pytest.approx(26.4, abs=0.01)
    assert harmonic_mean([0.0, 50.0]) == 0


def test_without_unrelated_prompts_there_is_no_score():
    assert list(summarize(rows(("a", "ES", 1.0), ("a", "GS", 1.0))).metric) == ["ES", "GS"]


def test_what_is_asked_of_a_fact():
    """By hand; zsRE has no true answer, and asks for its own alone."""
    question = Question("Lyon lies in", "Gaul")
    fact = Fact(
        "7", "Nice", "{} lies in", "P17", "Italy", "France", ("Nice, in", "Nice is of"), (question,), joiner="-"
    )
    edited, own = ("Italy", "France"), ("Italy",)
    asked = [("ES", 0, "Nice lies in"), ("GS", 0, "Nice, in"), ("GS", 1, "Nice is of"), ("LS", 0, "Lyon lies in")]
    for metrics, answers in (("counterfact", [edited] * 3 + [("Italy", "Gaul")]), ("zsre", [own] * 3 + [("Gaul",)])):
        known = fact if metrics == "counterfact" else replace(fact, target_true=None)
        expected = [Item("7", *each, answer, "-") for each, answer in zip(asked, answers, strict=True)]
        assert list(items([known], metrics)) == expected


def test_a_record_that_says_what_joins_is_scored_so(trained, facts):
    """Without a space the answer has other tokens, and another probability."""
    glued, spaced = (
        evaluate(trained, [replace(facts[0], joiner=joiner, unrelated=())], "counterfact", 500) for joiner in ("", None)
    )
    prompt = encode(trained.tokenizer, facts[0].prompt)
    answer = encode(trained.tokenizer, facts[0].prompt + facts[0].target_new)[len(prompt) :]
    (scored,) = plain.score(plain_network(trained), [prompt], [[answer]])
    assert glued.log_p_new[0] == pytest.approx(float(scored[0].mean()), rel=1e-4)
    assert spaced.log_p_new[0] != pytest.approx(glued.log_p_new[0], rel=0.01)


def test_as_probable_is_not_more_probable(trained, facts):
    fact = replace(
        facts[0], target_true=facts[0].target_new, unrelated=(Question("Bonn lies in", facts[0].target_new),)
    )
    found = evaluate(trained, [fact], "counterfact", 500)
    assert list(found.metric) == ["ES", "GS", "LS"]
    assert (found.log_p_new == found.log_p_true).all()
    assert (found.value == 0).all()


@pytest.mark.parametrize("architecture", KINDS)
def test_scores_equal_one_prompt_at_a_time(architecture, byte_level, facts):
    network = random_network(architecture)
    model = EditableModel(copy.deepcopy(network), byte_level)
    prompts = [tuple(encode(byte_level, fact.prompt)) for fact in facts[:5]]
    answers = [[encode_word(byte_level, a) for a in (f.target_new, "in the city", "a")] for f in facts[:5]]
    ours = score(model, prompts, answers, token_budget=25)
    flat = [scored for group in ours for scored in group]
    for one, (log_p, correct) in zip(flat, plain.score(network, prompts, answers), strict=True):
        torch.testing.assert_close(torch.tensor(one.log_probabilities), log_p, rtol=1e-3, atol=1e-3)
        assert torch.equal(torch.tensor(one.correct), correct)


def test_a_prompt_of_several_records_runs_once_for_all_their_answers(trained, monkeypatch):
    prompts = [tuple(encode(trained.tokenizer, text)) for text in ("Rome is a city in", "Nice is a city in")]
    answers = [encode_word(trained.tokenizer, text) for text in ("Italy", "France", "Spain")]
    one, two, three = answers
    asked = [(prompts[0], [one, two]), (prompts[1], [two]), (prompts[0], [three, one]), (prompts[0], [one, one])]
    alone = [score(trained, [prompt], [wanted], 100)[0] for prompt, wanted in asked]
    packed, pack = [], trained.pack
    monkeypatch.setattr(trained, "pack", lambda ids, **more: packed.extend(ids) or pack(ids, **more))
    together = score(trained, *map(list, zip(*asked, strict=True)), 100)
    assert sum(map(packed.count, prompts)) == 2
    for found, expected in zip(together, alone, strict=True):
        for answer, own in zip(found, expected, strict=True):
            np.testing.assert_allclose(answer.log_probabilities, own.log_probabilities, rtol=1e-4, atol=1e-5)


def test_a_model_that_knows_its_facts(trained, facts):
    """It answers with the true object: an edit to another would fail everywhere, and neighbours are right."""
    by_metric = evaluate(trained, facts, "counterfact", 500).groupby("metric")["value"].mean()
    assert by_metric.to_dict() == {"ES": 0, "GS": 0, "LS": 1}
    known = evaluate(trained, facts, "zsre", 500).groupby("metric")["value"].mean()
    assert known["LS"] == 1
    assert known["ES"] < 1


def test_shards_are_together_what_the_whole_is(trained, facts):
    columns = ["case_id", "metric", "number"]
    whole = evaluate(trained, facts[:7], "counterfact", 300).sort_values(columns, ignore_index=True)
    parts = [evaluate(trained, facts[:7][shard::8], "counterfact", 300) for shard in range(8)]  # the last is empty
    gathered = pd.concat(parts).sort_values(columns, ignore_index=True)
    pd.testing.assert_frame_equal(whole, gathered, rtol=1e-4)


def test_an_answers_probability_is_the_mean_over_its_tokens(trained, facts):
    """Answers of different lengths, by the model's own forward pass: a sum would favour the shorter one."""
    fact = replace(facts[0], target_new="the city of Rome in Italy", target_true="Spain", unrelated=())
    found = evaluate(trained, [fact], "counterfact", 500).set_index(["metric", "number"])
    lengths = []
    for column, answer in (("log_p_new", fact.target_new), ("log_p_true", fact.target_true)):
        prompt, tokens = encode(trained.tokenizer, fact.prompt), encode_word(trained.tokenizer, answer)
        (scored,) = plain.score(plain_network(trained), [prompt], [[tokens]])
        assert found[column]["ES", 0] == pytest.approx(float(scored[0].mean()), rel=1e-4)
        lengths.append(len(tokens))
    assert lengths[0] > lengths[1]


def plain_network(model):
    """The same weights with transformers' own attention."""
    network = copy.deepcopy(model.network)
    network.config._attn_implementation = "eager"
    return network


def test_every_prompt_has_a_row(trained, facts):
    results = evaluate(trained, facts[:4], "counterfact", 500)
    expected = sum(1 + len(fact.paraphrases) + len(fact.unrelated) for fact in facts[:4])
    assert len(results) == expected
    assert list(results.columns) == ["case_id", "metric", "number", "value", "argmax", "log_p_new", "log_p_true"]

"""The logit lens, the contrast of answers, proposed regions and word sets, against plain computations."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import KINDS, random_network

from jeep.common.errors import UserError
from jeep.data.facts import Fact
from jeep.model.editable import EditableModel
from jeep.model.tokens import encode_word, first_tokens, locate
from jeep.probes.contrast import contrast, flow_of
from jeep.probes.fact_lists import KnowledgeBase, candidates_of, phrases, questions
from jeep.probes.lens import flows, probability_and_rank
from jeep.probes.proposal import propose_regions
from jeep.probes.retrieval import Index
from jeep.probes.word_sets import TokenSets, probe_words, related_words, word_sets


def test_rank_counts_what_is_more_probable_and_no_ties():
    logits = torch.tensor([[1.0, 3.0, 3.0, 2.0]])
    probability, rank = probability_and_rank(logits, torch.tensor([[0, 1, 3]]))
    assert rank.tolist() == [[3, 0, 2]]
    torch.testing.assert_close(probability, logits.softmax(1)[:, [0, 1, 3]])


@pytest.mark.parametrize("architecture", KINDS)
def test_flows_are_the_models_own_hidden_states(architecture, byte_level):
    network = random_network(architecture)
    model = EditableModel(network, byte_level)
    rows = [[5, 6, 7, 8, 9], [10, 11, 12]]
    for budget in (4, 100):
        found = dict(flows(model, rows, [[1, 4], [2]], budget))
        for number, (row, places) in enumerate(zip(rows, [[1, 4], [2]], strict=True)):
            fresh = random_network(architecture)
            states = fresh(torch.tensor([row]), output_hidden_states=True).hidden_states
            for layer, state in enumerate(states[:-1]):  # behind the last block transformers puts the final norm
                torch.testing.assert_close(found[number].hidden[:, layer], state[0, places], rtol=1e-3, atol=1e-4)
            flow = found[number]
            before = flow.hidden[:, 1:] - flow.mlp - flow.attention
            torch.testing.assert_close(before, flow.hidden[:, :-1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("norm", [True, False])
def test_contrast_is_the_lens_at_both_positions(norm, trained, facts):
    table = contrast(trained, facts[:3], norm, token_budget=40)
    assert len(table) == 3 * 2 * (5 + 2 * 4) * 2
    assert list(table.case_id.unique()) == [fact.case_id for fact in facts[:3]]
    fact = facts[1]
    prompt = locate(trained.tokenizer, fact)
    packing, states = trained.pack([prompt.ids])
    states = trained.run(states, packing, 0, 1)
    for place, index in (("subject_last", prompt.subject_last), ("prediction", prompt.prediction)):
        state = states[index : index + 1]
        logits = trained.head(trained.norm(state) if norm else state)[0]
        for answer, text in (("original", fact.target_true), ("new", fact.target_new)):
            token = encode_word(trained.tokenizer, text)[0]
            (row,) = table[
                (table.case_id == fact.case_id)
                & (table.position == place)
                & (table.layer == 2)
                & (table.part == "state")
                & (table.answer == answer)
            ].itertuples()
            assert row.probability == pytest.approx(float(logits.softmax(-1)[token]), rel=1e-4)
            assert row.rank == int((logits > logits[token]).sum())


def test_the_last_layer_with_the_norm_is_the_models_prediction(trained, facts):
    table = contrast(trained, facts[:1], True, 100)
    last = table[(table.layer == 4) & (table.position == "prediction") & (table.part == "state")]
    prompt = locate(trained.tokenizer, facts[0])
    packing, states = trained.pack([prompt.ids])
    p = trained.logits(trained.run(states, packing, 0, 3)[-1:]).softmax(-1)[0]
    token = encode_word(trained.tokenizer, facts[0].target_true)[0]
    assert last[last.answer == "original"].probability.item() == pytest.approx(float(p[token]), rel=1e-4)


def test_a_fact_without_an_original_answer_is_one_line(trained):
    fact = Fact("x", "Paris", "{} is a city in", "country", "Spain")
    with pytest.raises(UserError, match="record x: no target_true"):
        contrast(trained, [fact], True, 100)


def test_the_flow_of_one_prompt_has_every_token(trained, facts):
    table = flow_of(trained, facts[0], True)
    prompt = locate(trained.tokenizer, facts[0])
    assert len(table) == 5 * len(prompt.ids)
    assert set(table[table.place == "subject_last"]["index"]) == {prompt.subject_last}
    whole = contrast(trained, facts[:1], True, 100)
    same = whole[(whole.part == "state") & (whole.answer == "original") & (whole.position == "prediction")]
    np.testing.assert_allclose(table[table.place == "prediction"].probability, same.probability, rtol=1e-5)


def made_up_contrast(subject, prediction, depth=12, prompts=30):
    """The original's gain in each block at either position; the new answer gains a little in all of them."""
    noise = np.random.default_rng(0)
    rows = []
    for n in range(prompts):
        for place, gains in (("subject_last", subject), ("prediction", prediction)):
            for answer in ("original", "new"):
                level = 0.0
                for layer in range(depth + 1):
                    if layer:
                        level += gains.get(layer - 1, 0.0) if answer == "original" else 0.03
                    value = level + noise.normal(0, 0.01)
                    rank = 10 ** (4 - value) if place == "subject_last" else 100
                    rows.append((f"f{n}", place, layer, "state", answer, 10 ** (value - 4), rank))
    columns = ["case_id", "position", "layer", "part", "answer", "probability", "rank"]
    return pd.DataFrame(rows, columns=columns)


def test_regions_are_where_the_original_gains_and_the_new_answer_does_not():
    table = made_up_contrast({1: 0.4, 2: 0.5, 3: 0.3, 8: 3.0}, {0: 1.0, 7: 0.6, 8: 0.5, 9: 0.7, 10: -0.5, 11: -0.5})
    proposed = propose_regions(table, low=6, high=3)
    assert proposed["low"] == [1, 2, 3]
    assert proposed["high"] == [7, 8, 9]
    assert proposed["topmost"] == [10, 11]
    assert propose_regions(table, low=2, high=1)["low"] == [1, 2]
    assert [row["block"] for row in proposed["subject_last"]] == list(range(12))


def test_regions_may_be_empty():
    proposed = propose_regions(made_up_contrast({}, {}), 6, 3)
    assert proposed["low"] == proposed["high"] == []


def test_the_middle_is_where_both_ranks_improve_at_the_prediction():
    table = made_up_contrast({}, {4: 1.0})
    at = (table.position == "prediction") & table.layer.between(1, 12)
    rises = {"original": {2, 3, 4, 5, 8}, "new": {1, 2, 3, 4, 5, 6, 8}}  # both in blocks 2 to 5, and in 8
    noise = np.random.default_rng(0)
    for answer, blocks in rises.items():
        rows = at & (table.answer == answer)
        climbed = table[rows].layer.map(lambda layer, its=blocks: sum(block < layer for block in its))
        table.loc[rows, "rank"] = 10 ** (9 - climbed + noise.normal(0, 0.05, rows.sum()))
        table.loc[(table.position == "prediction") & (table.layer == 0), "rank"] = 1e9
    assert propose_regions(table, 6, 3)["middle"] == [2, 3, 4, 5]


FACT = Fact("c", "New York City", "The mayor of {} is", "mayor", "Ann Lee", "Eric Adams")


def test_word_sets_leave_out_the_object_and_each_other():
    related = ["The", "mayor", "Eric", "bridge", "of", "Brooklyn", "Bridge"]
    sets = word_sets(FACT, related, ["borough Brooklyn", "mayor Eric Adams"])
    assert sets["related"] == ["The", "mayor", "bridge", "of", "Brooklyn", "Bridge"]
    assert sets["factual"] == ["borough", "Brooklyn", "mayor"]
    assert sets["non-factual"] == ["bridge", "Bridge"]
    assert {"the", "of", ","} <= set(sets["stop words"])


def test_related_words_are_those_of_the_best_paragraphs_each_once():
    asked = []

    class Found(Index):
        _holding = _paragraph = _scores = None

        def best(self, subject, query, count):
            asked.append((subject, query, count))
            return [{"title": "Ann Lee", "text": "Ann lives"}, {"title": "Zoo", "text": "lives Lee on"}]

    related = related_words(FACT, Found(), 2)
    assert related == {"case_id": "c", "paragraphs": 2, "words": ["Ann", "Lee", "lives", "Zoo", "on"]}
    assert asked == [("New York City", "New York City The mayor of   is", 2)]


def test_set_sums_and_ranks_are_those_of_plain_loops():
    logits = torch.randn(4, 50, dtype=torch.float64)
    tokens = {"a": [3, 4, 4, 9], "b": [9, 20], "c": []}
    sums, ranks = TokenSets(tokens, logits.device).measure(logits)
    p = logits.softmax(1)
    union = {3, 4, 9, 20}
    tokens["rest"] = [token for token in range(50) if token not in union]
    for row in range(4):
        for column, listed in enumerate(tokens.values()):
            distinct = sorted(set(listed))
            assert float(sums[row, column]) == pytest.approx(float(p[row, distinct].sum()), abs=1e-12)
            plain = [int((logits[row] > logits[row, token]).sum()) for token in distinct]
            assert float(ranks[row, column]) == pytest.approx(np.mean(plain) if plain else 0.0)


def test_word_probe_has_every_set_and_layer(trained, facts):
    sets = [word_sets(fact, ["Berlin", "old", "city"], ["France Spain"]) for fact in facts[:2]]
    table, overlaps = probe_words(trained, facts[:2], sets, True, 100)
    assert set(table.set) == {"original", "related", "factual", "stop words", "non-factual", "unrelated"}
    assert set(table.layer) == set(range(5))
    disjoint = table[table.set.isin(["original", "unrelated"])].groupby(["case_id", "layer"]).probability.sum()
    assert (disjoint <= 1 + 1e-6).all()
    lens = contrast(trained, facts[:2], True, 100)
    same = lens[(lens.part == "state") & (lens.answer == "original") & (lens.position == "prediction")]
    original = table[table.set == "original"]
    np.testing.assert_allclose(original.probability, same.probability, rtol=1e-5)
    np.testing.assert_array_equal(original["rank"].to_numpy(int), same["rank"])
    assert (overlaps[(overlaps.one == "related") & (overlaps.other == "non-factual")].shared > 0).all()


def test_word_probe_counts_first_tokens_and_those_in_common(trained, facts):
    """By plain sets, of the first tokens behind a space."""
    sets = [
        {"related": ["Berlin", "old", "old"], "factual": ["old", "Bonn"], "stop words": [","], "non-factual": []},
        {"related": [], "factual": ["Rome"], "stop words": [",", "the"], "non-factual": ["Rome"]},
    ]
    chosen = [facts[3], facts[0]]
    table, overlaps = probe_words(trained, chosen, sets, True, 100)
    assert list(table.columns) == ["case_id", "layer", "set", "tokens", "probability", "rank"]
    assert list(overlaps.columns) == ["case_id", "one", "other", "shared"]
    assert list(dict.fromkeys(table.case_id)) == ["city-3", "city-0"]
    for fact, listed in zip(chosen, sets, strict=True):
        tokens = {"original": {encode_word(trained.tokenizer, fact.target_true)[0]}}
        tokens |= {name: {encode_word(trained.tokenizer, word)[0] for word in words} for name, words in listed.items()}
        stops = set().union(*(first_tokens(trained.tokenizer, word) for word in listed["stop words"]))
        tokens["stop words"] = stops - tokens["original"]
        sizes = {name: len(those) for name, those in tokens.items()}
        sizes["unrelated"] = trained.head.weight.shape[0] - len(set().union(*tokens.values()))
        own = table[table.case_id == fact.case_id]
        assert list(own.set) == [*sizes] * (trained.depth + 1)
        assert own.groupby("set").tokens.unique().map(list).to_dict() == {name: [n] for name, n in sizes.items()}
        found = overlaps[overlaps.case_id == fact.case_id].set_index(["one", "other"]).shared.to_dict()
        assert found == {
            (one, other): len(tokens[one] & tokens[other]) for one, other in itertools.combinations(tokens, 2)
        }


def test_a_bare_comma_and_a_capitalised_stop_word_are_stop_words(trained, facts):
    """What a text most often goes on with is not "unrelated"."""
    sets = [word_sets(facts[0], [], [])]
    table, _ = probe_words(trained, facts[:1], sets, True, 100)
    with torch.no_grad():
        prompt = locate(trained.tokenizer, facts[0])
        packing, states = trained.pack([prompt.ids])
        p = trained.logits(trained.run(states, packing, 0, trained.depth - 1)[-1:])[0].softmax(-1)
    tokens = set().union(*(first_tokens(trained.tokenizer, word) for word in sets[0]["stop words"]))
    tokens -= {encode_word(trained.tokenizer, facts[0].target_true)[0]}
    for text in (",", " the", "I", "A", "i"):
        assert trained.tokenizer(text).input_ids[0] in tokens
    assert trained.tokenizer("S").input_ids[0] not in tokens, "an initial, and not the s behind an apostrophe"
    found = table[(table.set == "stop words") & (table.layer == trained.depth)]
    assert float(found.probability.iloc[0]) == pytest.approx(float(p[sorted(tokens)].sum()), rel=1e-5)


def test_a_knowledge_base_lists_what_is_true_of_a_subject_and_a_relation():
    triples = [("Lyon", "city_country", "France"), ("Nice", "city_country", "France"), ("Lyon", "river", "Rhône")]
    facts = [Fact("1", "Lyon", "{} lies in", "city_country", "Spain", "France")]
    rows = KnowledgeBase(triples, facts, candidates=50, seed=0).rows(questions(facts))
    assert [(row["kind"], row["key"], row["status"]) for row in rows] == [
        ("subject", "Lyon", "ok"),
        ("relation", "{} lies in", "ok"),
    ]
    assert rows[0]["candidates"] == ["city country", "France", "river", "Rhône"]
    assert rows[1]["candidates"] == ["Lyon", "France", "Nice"]
    assert list(phrases(facts[0], candidates_of(rows)))[-1] == "Nice"
    assert len(KnowledgeBase(triples, facts, candidates=2, seed=0).rows(questions(facts))[0]["candidates"]) == 2

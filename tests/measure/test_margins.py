"""Margins of the new answers against the model's own forward pass."""

from dataclasses import replace

import pytest
import torch
from tiny import KINDS, random_network

from jeep.measure.evaluate import evaluate
from jeep.measure.margins import answer_margins
from jeep.model.editable import EditableModel
from jeep.model.tokens import encode_pair, locate


@pytest.mark.parametrize("architecture", KINDS)
def test_the_margin_is_the_least_lead_over_tokens_and_prefixes(architecture, byte_level, facts, prefixes):
    network = random_network(architecture)
    model = EditableModel(network, byte_level)
    chosen = [facts[0], replace(facts[1], target_new="The United Kingdom"), facts[2]]
    ours = answer_margins(model, chosen, prefixes, token_budget=64)

    for fact, margin in zip(chosen, ours, strict=True):
        answer = encode_pair(byte_level, fact.prompt, fact.target_new)[1]
        leads = []
        for prefix in prefixes:
            ids = locate(byte_level, fact, prefix).ids
            logits = network(torch.tensor([[*ids, *answer]])).logits[0]
            for step, token in enumerate(answer):
                log_p = logits[len(ids) - 1 + step].log_softmax(-1)
                best = max(float(value) for other, value in enumerate(log_p) if other != token)
                leads.append(float(log_p[token]) - best)
        assert float(margin) == pytest.approx(min(leads), abs=1e-4)
    assert len(encode_pair(byte_level, chosen[1].prompt, chosen[1].target_new)[1]) > 1


def test_the_margin_is_above_zero_just_where_the_answer_is_the_argmax_everywhere(trained, facts, prefixes):
    known = [replace(fact, target_new=fact.target_true) for fact in facts]
    margins = answer_margins(trained, [*known, *facts], prefixes, token_budget=256)
    assert (margins[: len(known)] > 0).float().mean() > 0.8, "the model knows the cities"
    assert (margins[len(known) :] < 0).all(), "and not what they are to be edited to"


def test_against_the_original_answer_means_are_compared_as_the_metrics_do(trained, facts, prefixes):
    """Behind the bare prompt what `evaluate` finds; behind several prefixes the least; best without an original."""
    rows = evaluate(trained, facts[:4], "counterfact", 512).query("metric == 'ES'")
    expected = (rows.log_p_new - rows.log_p_true).tolist()
    bare = answer_margins(trained, facts[:4], ["{}"], 256, "original")
    assert bare.tolist() == pytest.approx(expected, abs=1e-4)
    several = answer_margins(trained, facts[:4], prefixes, 256, "original")
    each = [answer_margins(trained, facts[:4], [prefix], 256, "original") for prefix in prefixes]
    torch.testing.assert_close(several, torch.stack(each).amin(0), rtol=1e-4, atol=1e-4)
    nameless = [replace(fact, target_true=None) for fact in facts[:4]]
    both = answer_margins(trained, [*nameless, facts[0]], prefixes, 256, "original")
    torch.testing.assert_close(both[:4], answer_margins(trained, facts[:4], prefixes, 256), rtol=1e-4, atol=1e-4)
    assert float(both[4]) == pytest.approx(float(several[0]), abs=1e-4)

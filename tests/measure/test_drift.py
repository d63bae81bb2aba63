"""Perplexity and drift against the whole model's own logits, and what text is held out."""

import copy
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import KINDS, random_network

from jeep.common.errors import UserError
from jeep.common.settings import Sample
from jeep.measure import drift as module
from jeep.measure.drift import articles_taken, drift, held_out_windows, summarize_drift, unedited
from jeep.model import readout
from jeep.model.editable import EditableModel
from jeep.writing.covariance import sequences

WINDOWS = [(7, 3, 11, 5, 2, 9), (4, 8, 1, 12, 6, 30), (9, 9, 9), (21, 17, 40, 3, 3, 8)]


def edit(model):
    torch.manual_seed(1)
    name = model.parameter_name(2)
    weight = model.network.get_parameter(name)
    return {name: 3 * weight.std() * torch.randn_like(weight)}


@torch.no_grad()
def plain(before, after, window):
    """All logits of both models at once: the sums over the scored tokens."""
    ids = torch.tensor([window])
    p, q = (network(input_ids=ids).logits[0, :-1].double().log_softmax(-1) for network in (before, after))
    wanted = ids[0, 1:, None]
    nll = [-float(each.gather(1, wanted).sum()) for each in (p, q)]
    return [*nll, float((p.exp() * (p - q)).sum())]


@pytest.mark.parametrize("name", KINDS)
def test_sums_are_those_of_the_whole_models_logits(name, byte_level, monkeypatch):
    monkeypatch.setattr(readout, "_ROWS", 4)  # several reads a window
    network = random_network(name)
    model = EditableModel(copy.deepcopy(network), byte_level)
    reference = unedited(model, WINDOWS, 12)
    deltas = edit(model)
    with model.edited(deltas):
        rows = drift(model, reference, 1000)
    changed = copy.deepcopy(network)
    with torch.no_grad():
        for parameter, delta in deltas.items():
            changed.get_parameter(parameter).add_(delta)
    expected = [plain(network, changed, window) for window in WINDOWS]
    assert rows.window.tolist() == [0, 1, 2, 3]
    assert rows.tokens.tolist() == [5, 5, 2, 5], "all but the first"
    np.testing.assert_allclose(rows[["nll_before", "nll_after", "kl"]], expected, rtol=1e-3, atol=1e-4)
    assert rows.kl.min() > 1e-3
    with model.edited({}):
        assert drift(model, reference, 12).kl.abs().max() < 1e-5


def test_the_summary_by_hand():
    rows = pd.DataFrame(
        {"window": [0, 1], "tokens": [2, 6], "nll_before": [4.0, 12.0], "nll_after": [5.0, 18.0], "kl": [0.2, 1.8]}
    )
    found = summarize_drift(rows)
    assert found["tokens"] == 8
    assert found["perplexity_before"] == pytest.approx(math.exp(2))
    assert found["perplexity_after"] == pytest.approx(math.exp(23 / 8))
    assert found["ratio"] == pytest.approx(math.exp(7 / 8))
    assert found["kl"] == pytest.approx(0.25)
    # Of the windows' means: KL 0.1 and 0.3, the rise 0.5 and 1; s = |a − b|/√2, over √2.
    assert found["kl_ci95"] == pytest.approx(1.96 * 0.1)
    assert math.log(found["ratio_high"] / found["ratio"]) == pytest.approx(1.96 * 0.25)
    assert math.log(found["ratio_low"] / found["ratio"]) == pytest.approx(-1.96 * 0.25)
    assert summarize_drift(rows.assign(nll_after=1e6))["perplexity_after"] == math.inf


def test_what_cannot_be_measured(byte_level):
    model = EditableModel(random_network("gptj"), byte_level)
    reference = unedited(model, WINDOWS, 100)
    with (
        model.edited({"lm_head.weight": model.network.lm_head.weight.flip(0)}),
        pytest.raises(UserError, match="head was edited"),
    ):
        drift(model, reference, 100)
    broken = {name: torch.full_like(delta, float("nan")) for name, delta in edit(model).items()}
    with model.edited(broken):
        for measure in (lambda: drift(model, reference, 100), lambda: unedited(model, WINDOWS, 100)):
            with pytest.raises(UserError, match="answers NaN"):
                measure()


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    rows = [{"text": f"City number {n} lies in " + ("the city of " * (n % 7 + 1))} for n in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(("articles", "tokens"), [(None, 300), (20, None), (20, 100), (40, 10_000)])
def test_windows_are_of_articles_that_no_covariance_read(corpus, trained, articles, tokens, monkeypatch):
    """What the covariance's own reader takes, and the text of the windows."""
    sample = Sample(corpus, articles, tokens, 16, seed=5)
    texts = list(module.sampled_texts(corpus, articles, 5))
    taken = articles_taken(trained, sample)
    read = list(sequences(trained.tokenizer, texts[:taken], 16, tokens))
    assert read == list(sequences(trained.tokenizer, texts, 16, tokens))
    assert len(read) == taken
    held_out = held_out_windows(trained, sample, 10_000, 32)
    text = trained.tokenizer.decode([token for window in held_out for token in window])
    seen = {each.split()[2] for each in texts[:taken]}
    asked = {line.split()[2] for line in text.split("\n\n") if len(line.split()) > 3}
    assert len(asked) > 10
    assert not seen & asked


def test_a_covariance_that_read_everything_leaves_nothing(corpus, trained):
    with pytest.raises(UserError, match="covariances have read 60 of its articles"):
        held_out_windows(trained, Sample(corpus))


def test_windows_are_no_longer_than_the_models_positions(corpus, trained):
    assert {len(window) for window in held_out_windows(trained, Sample(corpus, 10), 300)} == {128}

"""UltraEdit against dense computations from all tokens at once, alone and in a sequence."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tiny import exact

from jeep.common.errors import UserError
from jeep.editors import load_editor
from jeep.learned import signals as signals_module
from jeep.learned.answers import Answers
from jeep.learned.hypernetworks import Normalizer, Signals
from jeep.learned.ridge import DualRidge, PrimalRidge
from jeep.learned.signals import collect_signals
from jeep.model.editable import EditableModel
from jeep.vectors.task import Task

LAYERS = (1, 2, 3)
ONE = torch.ones((), dtype=torch.float64)


@pytest.fixture(scope="module")
def model(trained):
    """In float64, throughout."""
    return EditableModel(exact(copy.deepcopy(trained.network)), trained.tokenizer)


@pytest.fixture(scope="module")
def varied(facts):
    """Facts whose prompts end in other words: the low layers of these models see a prompt's last token alone."""
    templates = ("{} is a city in", "The country of {} is", "One finds {} within")
    return [replace(fact, template=templates[number % 3]) for number, fact in enumerate(facts)]


def editor(**settings):
    return load_editor("ultraedit", {"layers": LAYERS, "rate": 0.003} | settings)


def tokens_of(model, facts):
    """Of each layer, h and g at all answers' tokens."""
    answers = Answers(model, [fact.asked for fact in facts], 0, 10_000)
    answers.prepare(range(len(facts)))
    return [(one.keys, one.gradients) for one in collect_signals(model, answers, range(len(facts)), LAYERS, "answer")]


def dense(h, g, seen, rate):
    """Δ by a plain inverse, with the statistics of the rows of `seen`."""
    mean, deviation = seen.mean(0), seen.std(0) + 1e-7
    normal = (torch.cat([h, g], 1) - mean) / deviation
    v = torch.stack([-rate * (row[: h.shape[1]] @ row[: h.shape[1]]) * row[h.shape[1] :] for row in normal])
    return v.mT @ h @ torch.linalg.inv(h.mT @ h + torch.eye(h.shape[1], dtype=h.dtype))


def close(model, changes, expected):
    assert set(changes) == {model.parameter_name(layer) for layer in LAYERS}
    for layer, change in zip(LAYERS, expected, strict=True):
        found = model.as_stored(layer, changes[model.parameter_name(layer)])
        assert change.norm() > 0
        torch.testing.assert_close(found, change.float(), rtol=1e-5, atol=1e-7)


def test_two_tokens_by_hand():
    """h = 1, 3 and g = 2, 6: means 2 and 4, deviations √2 and 2√2, so ĥ and ĝ are ∓1/√2, and v = ±η/(2√2)."""
    keys, gradients = torch.tensor([[1.0], [3.0]]).double(), torch.tensor([[2.0], [6.0]]).double()
    for factor in (1, 1000):  # of the loss: it cancels
        statistics = Normalizer(2).double()
        statistics.update(torch.cat([keys, factor * gradients], 1))
        shifts = editor(rate=0.8)._shifts(statistics, keys, factor * gradients)
        assert shifts[:, 0].tolist() == pytest.approx([0.8 / 8**0.5, -0.8 / 8**0.5], rel=1e-6)
    for ridge in (PrimalRidge(1, 1, ONE), DualRidge(ONE)):
        for row in (0, 1):
            ridge.add(keys[row : row + 1], shifts[row : row + 1])
        # Vᵀ H = 0.8 (1 − 3)/√8, Hᵀ H + 1 = 11
        assert ridge.change().item() == pytest.approx(0.8 * -2 / 8**0.5 / 11, rel=1e-6)


def test_both_forms_of_the_ridge_are_a_plain_inverse():
    torch.manual_seed(0)
    keys, shifts, prior = torch.randn(5, 7).double(), torch.randn(5, 3).double(), torch.tensor(0.3).double()
    plain = shifts.mT @ keys @ torch.linalg.inv(keys.mT @ keys + 0.3 * torch.eye(7))
    for ridge in (PrimalRidge(7, 3, prior), DualRidge(prior)):
        for part in ((keys[:2], shifts[:2]), (keys[2:], shifts[2:])):
            ridge.add(*part)
        torch.testing.assert_close(ridge.change(), plain)


@pytest.mark.parametrize("form", ["by tokens", "by inputs"])
def test_an_edit_is_that_of_all_tokens_at_once(form, model, varied, monkeypatch):
    """In small batches; the model runs twice where the tokens are not kept, and each batch is let go."""
    passes, original = [], signals_module.signals_by_batch
    monkeypatch.setattr(signals_module, "signals_by_batch", lambda *args: passes.append(args) or original(*args))
    if form == "by inputs":
        monkeypatch.setattr(EditableModel, "inputs", lambda *_: 1)
    changes = editor().edit(model, Task(varied[:6], (), 30))
    assert len(passes) == (1 if form == "by tokens" else 2)
    close(model, changes, [dense(h, g, torch.cat([h, g], 1), 0.003) for h, g in tokens_of(model, varied[:6])])


def test_the_release_shares_the_statistics_of_all_weights_of_a_shape(model, varied):
    tokens = tokens_of(model, varied[:6])
    seen = torch.cat([torch.cat(pair, 1) for pair in tokens])
    changes = editor(preset="release").edit(model, Task(varied[:6], (), 30))
    close(model, changes, [dense(h, g, seen, 0.003) for h, g in tokens])


def test_it_is_malmen_with_an_identity_and_a_prior_of_one(model, varied):
    """MALMEN's own least squares, where k·k̃ is ‖ĥ‖² and δ̃ is ĝ."""
    changes = editor().edit(model, Task(varied[:6], (), 2048))
    malmen = load_editor("malmen", {"layers": LAYERS, "training": {"edits": 1}})
    for layer, (h, g) in zip(LAYERS, tokens_of(model, varied[:6]), strict=True):
        statistics = Normalizer(h.shape[1] + g.shape[1]).double()
        statistics.update(torch.cat([h, g], 1))

        class Identity(SimpleNamespace):
            def __call__(self, keys, gradients, weight, normal=statistics):
                normal_keys, normal_gradients = normal(torch.cat([keys, gradients], 1)).split(self.sizes, 1)
                squares = normal_keys.square().sum(1, keepdim=True)
                return keys * squares / keys.square().sum(1, keepdim=True), normal_gradients

        network = Identity(
            sizes=(h.shape[1], g.shape[1]), learning_rate=torch.tensor([0.003]).double(), log_prior=torch.zeros(1)
        )
        expected = model.as_stored(layer, malmen.change(network, Signals(h, g), 0)).float()
        torch.testing.assert_close(changes[model.parameter_name(layer)], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("preset", ["paper", "release"])
def test_batches_one_after_another_have_the_statistics_of_all_tokens_so_far(preset, model, varied):
    """Three batches, each measured on the model that the ones before have left; memory is all that is handed on."""
    network = copy.deepcopy(model.network)
    moving = EditableModel(network, model.tokenizer)
    memory, seen = {}, []
    for batch in (varied[:2], varied[2:7], varied[7:8]):
        task = Task(batch, (), 30, memory=memory)
        tokens = tokens_of(moving, batch)
        seen.append([torch.cat(pair, 1) for pair in tokens])
        rows = [torch.cat(parts) for parts in zip(*seen, strict=True)]
        if preset == "release":
            rows = [torch.cat(rows)] * len(rows)
        changes = editor(preset=preset).edit(moving, task)
        close(moving, changes, [dense(h, g, all_rows, 0.003) for (h, g), all_rows in zip(tokens, rows, strict=True)])
        moving.add_(changes)
        memory = editor(preset=preset).remember(moving, task)
        groups = {name.rpartition(".")[0] for name in memory}
        assert len(groups) == (1 if preset == "release" else len(LAYERS))
        for group, all_rows in zip(sorted(groups), rows, strict=False):
            assert all(memory[f"{group}.{name}"].dtype == torch.float64 for name in ("count", "mean", "squares"))
            assert memory[f"{group}.count"] == len(all_rows)
            torch.testing.assert_close(memory[f"{group}.mean"], all_rows.mean(0))
            torch.testing.assert_close(memory[f"{group}.squares"] / (len(all_rows) - 1), all_rows.var(0))


def test_memory_is_read_and_not_changed(model, varied):
    first = Task(varied[:2], (), 2048)
    editor().edit(model, first)
    memory = editor().remember(model, first)
    kept = {name: value.clone() for name, value in memory.items()}
    second = Task(varied[2:4], (), 2048, memory=memory)
    again = [editor().edit(model, second) for _ in range(2)]
    assert all(torch.equal(again[0][name], again[1][name]) for name in again[0])
    assert all(torch.equal(value, kept[name]) for name, value in memory.items())
    assert second.of_first(1, None).notes == {}, "each number of edits notes its own"


def test_the_change_is_proportional_to_the_rate_and_makes_answers_likelier(model, varied):
    answers = Answers(model, [fact.asked for fact in varied[:6]], 0, 10_000)
    answers.prepare(range(6))
    one, two = (editor(rate=rate).edit(model, Task(varied[:6], (), 2048)) for rate in (0.001, 0.002))
    for name in one:
        torch.testing.assert_close(2 * one[name], two[name])
    losses = []
    for changes in ({}, one, two):
        with model.edited(changes):
            losses.append(float(answers.nll(range(6))) / 6)
    assert losses[0] > losses[1] > losses[2]


def test_a_single_token_has_no_deviation(model, varied):
    fact = replace(varied[0], target_new="x", joiner="")
    with pytest.raises(UserError, match="a single answer token has no standard deviation"):
        editor().edit(model, Task([fact], (), 2048))
    first = Task(varied[:2], (), 2048)
    editor().edit(model, first)
    changes = editor().edit(model, Task([fact], (), 2048, memory=editor().remember(model, first)))
    assert all(change.norm() > 0 for change in changes.values())


def test_other_editors_remember_nothing(model, varied):
    assert load_editor("ft_wd", {"layer": 0}).remember(model, Task(varied[:1], (), 2048)) == {}

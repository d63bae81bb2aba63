"""MEND, MALMEN and the engine they share, against plain computations."""

import copy
import json
import weakref
from dataclasses import replace

import pytest
import torch
from small_networks import LAYERS, SETTINGS, in_float64, random_network
from torch.nn import functional

from jeep.__main__ import main
from jeep.common.storage import read_tensors, write_json, write_jsonl
from jeep.editors import load_editor
from jeep.learned.answers import Answers
from jeep.learned.hypernetworks import HyperNetwork, Normalizer, Signals
from jeep.learned.signals import collect_signals, signals_by_batch
from jeep.model.editable import EditableModel
from jeep.model.tokens import encode, encode_word
from jeep.vectors.task import Task


@pytest.fixture(scope="module")
def model(trained):
    return in_float64(trained)


def answer_loss(network, tokenizer, prompt, answer):
    """Mean NLL of an answer, and the logits at its tokens, by the model's own forward pass."""
    ids, wanted = encode(tokenizer, prompt), encode_word(tokenizer, answer)
    logits = network(torch.tensor([[*ids, *wanted[:-1]]])).logits[0, len(ids) - 1 :]
    return functional.cross_entropy(logits, torch.tensor(wanted)), logits


def test_running_statistics_are_those_of_all_rows():
    rows = torch.randn(50, 7, dtype=torch.float64) * torch.arange(1, 8) + 3
    normalizer = Normalizer(7).double()
    for part in rows.split([1, 19, 30]):
        normalizer.update(part)
    torch.testing.assert_close(normalizer(rows), (rows - rows.mean(0)) / (rows.std(0) + 1e-7))


def test_an_untrained_network_only_normalizes(model):
    network = HyperNetwork(5, 3, 2, 4, 2, 0.1)
    rows = torch.randn(20, 8)
    network.normalizer.update(rows)
    keys, gradients = network(rows[:, :5], rows[:, 5:], 1)
    torch.testing.assert_close(torch.cat([keys, gradients], 1), network.normalizer(rows))


@pytest.mark.parametrize("tokens", ["all", "answer"])
def test_signals_are_the_gradients_of_autograd(model, facts, tokens):
    """∂loss/∂W_O = Σ δ kᵀ, for all tokens; and each fact's tokens apart, whatever the batch."""
    answers = Answers(model, [fact.asked for fact in facts[:5]], 1, token_budget=30)
    answers.prepare(range(5))
    together = collect_signals(model, answers, range(5), LAYERS, tokens)
    alone = [collect_signals(model, answers, [number], LAYERS, tokens) for number in range(5)]
    order = [number for batch in answers.batches(range(5)) for number in batch]
    for weight in range(len(LAYERS)):
        keys = torch.cat([alone[number][weight].keys for number in order])
        torch.testing.assert_close(together[weight].keys, keys, rtol=1e-9, atol=1e-9)
    count = sum(map(len, answers.answers))
    assert len(together[-1].keys) == count, "in the last layer only the answer's tokens have a gradient"
    if tokens == "answer":
        assert len(together[0].keys) == count
        return
    network = copy.deepcopy(model.network)
    plain = EditableModel(network, model.tokenizer)
    parameters = [network.get_parameter(model.parameter_name(layer)).requires_grad_() for layer in LAYERS]
    loss = 0
    for fact in facts[:5]:
        prompt, answer = encode(model.tokenizer, fact.prompt), encode_word(model.tokenizer, fact.target_new)
        packing, states = plain.pack([[*prompt, *answer[:-1]]])
        logits = plain.logits(plain.run(states, packing, 0, 3)[len(prompt) - 1 :])
        loss = loss + functional.cross_entropy(logits, torch.tensor(answer))
    for one, layer, gradient in zip(together, LAYERS, torch.autograd.grad(loss, parameters), strict=True):
        torch.testing.assert_close(one.gradients.mT @ one.keys, model.as_stored(layer, gradient))


def test_mend_by_hand():
    """Two tokens, two by two: ΔW = −lr (δ̃₁k̃₁ᵀ + δ̃₂k̃₂ᵀ), and its gradient by lr."""

    class Doubles:
        learning_rate = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)

        def __call__(self, keys, gradients, weight):
            return 2 * keys, gradients

    signals = Signals(torch.tensor([[1.0, 2.0], [0.0, 1.0]]).double(), torch.tensor([[3.0, 1.0], [1.0, -1.0]]).double())
    editor = load_editor("mend", SETTINGS | {"layers": [0]})
    network = Doubles()
    change = editor.change(network, signals, 0)
    # Σ δ k̃ᵀ = [3 1]ᵀ[2 4] + [1 -1]ᵀ[0 2] = [[6 14] [2 2]]
    torch.testing.assert_close(change, -0.5 * torch.tensor([[6.0, 14.0], [2.0, 2.0]]).double())
    editor.pull_back(network, signals, 0, change, torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double())
    assert network.learning_rate.grad.item() == pytest.approx(-(6 + 2))


def test_malmen_solves_the_normal_equation(model):
    """Against a plain inverse; and with λ̂ very small and independent keys, every token gets its shift."""
    network = random_network(model, "malmen")
    editor = load_editor("malmen", SETTINGS)
    d_in, d_out = network.sizes
    signals = Signals(torch.randn(6, d_in).double(), torch.randn(6, d_out).double())
    network.normalizer.update(torch.cat([signals.keys, signals.gradients], 1))
    pseudo_keys, pseudo_gradients = network(signals.keys, signals.gradients, 2)
    shifts = -network.learning_rate[2] * (signals.keys * pseudo_keys).sum(1, keepdim=True) * pseudo_gradients
    gram = signals.keys.mT @ signals.keys + network.log_prior[2].exp() * torch.eye(d_in)
    with torch.no_grad():
        change = editor.change(network, signals, 2)
        torch.testing.assert_close(change, shifts.mT @ signals.keys @ torch.linalg.inv(gram))
        network.log_prior.fill_(-20.0)
        torch.testing.assert_close(
            signals.keys @ editor.change(network, signals, 2).mT, shifts.detach(), rtol=1e-5, atol=1e-8
        )


@pytest.mark.parametrize("name", ["mend", "malmen"])
def test_an_edit_does_not_depend_on_its_batches(name, model, facts):
    network = random_network(model, name)
    network.normalizer.update(torch.randn(100, sum(network.sizes)).double())
    editor = load_editor(name, SETTINGS)
    task = Task(facts, (), 2048, hypernetwork=network.tensors())
    whole, parts = (editor.edit(model, replace(task, token_budget=budget)) for budget in (10_000, 30))
    for key in whole:
        torch.testing.assert_close(whole[key], parts[key])


@pytest.mark.parametrize("name", ["mend", "malmen"])
def test_an_edit_sums_by_batch_what_all_tokens_at_once_give(name, model, facts):
    """Sums in the order of the batches, against those over all tokens in one product."""
    network = random_network(model, name)
    network.normalizer.update(torch.randn(100, sum(network.sizes)).double())
    editor = load_editor(name, SETTINGS)
    answers = Answers(model, [fact.asked for fact in facts], min(LAYERS), 30)
    assert len(answers.batches(range(len(facts)))) > 2
    answers.prepare(range(len(facts)))
    whole = collect_signals(model, answers, range(len(facts)), LAYERS, editor.tokens)
    edited = editor.edit(model, Task(facts, (), 30, hypernetwork=network.tensors()))
    for weight, layer in enumerate(LAYERS):
        with torch.no_grad():
            plain = model.as_stored(layer, editor.change(network, whole[weight], weight))
        assert plain.abs().max() > 0
        torch.testing.assert_close(edited[model.parameter_name(layer)], plain.float())


def test_nothing_of_a_batch_is_kept_when_the_next_one_is_made(model, facts):
    answers = Answers(model, [fact.asked for fact in facts], min(LAYERS), 30)
    kept, counted = [], 0
    for batch in signals_by_batch(model, answers, LAYERS, "all"):
        assert not any(each() for each in kept)
        kept = [weakref.ref(each) for each in batch]
        assert 0 < len(answers.states) < len(facts)
        counted += len(answers.states)
        del batch
    assert counted == len(facts)
    assert not answers.states


@pytest.mark.parametrize("name", ["mend", "malmen"])
def test_an_edit_counts_the_tokens_that_it_is_told_to(name, model, facts):
    """ΔW of each weight from the signals of those tokens; other tokens make another change."""
    network = random_network(model, name)
    network.normalizer.update(torch.randn(100, sum(network.sizes)).double())
    answers = Answers(model, [fact.asked for fact in facts[:4]], min(LAYERS), 2048)
    answers.prepare(range(4))
    changes = {}
    for tokens in ("all", "answer"):
        editor = load_editor(name, SETTINGS | {"tokens": tokens})
        changes[tokens] = editor.edit(model, Task(facts[:4], (), 2048, hypernetwork=network.tensors()))
        signals = collect_signals(model, answers, range(4), LAYERS, tokens)
        for weight, layer in enumerate(LAYERS):
            with torch.no_grad():
                expected = model.as_stored(layer, editor.change(network, signals[weight], weight)).float()
            torch.testing.assert_close(changes[tokens][model.parameter_name(layer)], expected)
    first = model.parameter_name(LAYERS[0])
    assert not torch.allclose(changes["all"][first], changes["answer"][first])


def test_the_stages_hand_the_network_on(trained, facts, tmp_path):
    """`jeep hypernetwork`, then `jeep edit`, against the same calls in Python."""
    trained.save(tmp_path / "model")
    write_jsonl(tmp_path / "facts.jsonl", (fact.to_json() for fact in facts[:4]))
    write_json(tmp_path / "prefixes.json", [])
    common = ["--model", str(tmp_path / "model"), "--device", "cpu", "--facts", str(tmp_path / "facts.jsonl")]
    common += ["--editor", "malmen", "--settings", json.dumps(SETTINGS)]
    network, edit = tmp_path / "network.safetensors", tmp_path / "edit"
    assert main(["hypernetwork", *common, "--out", str(network)]) == 0
    prefixes = str(tmp_path / "prefixes.json")
    assert main(["edit", *common, "--prefixes", prefixes, "--hypernetwork", str(network), "--out", str(edit)]) == 0
    editor = load_editor("malmen", SETTINGS)
    tensors, losses = editor.train(trained, facts[:4], 0, 2048)
    expected = editor.edit(trained, Task(facts[:4], (), 2048, hypernetwork=tensors))
    for key, value in read_tensors(edit / "4.safetensors")[0].items():
        torch.testing.assert_close(value, expected[key])
    torch.testing.assert_close(read_tensors(network)[0]["losses"], torch.tensor(losses))

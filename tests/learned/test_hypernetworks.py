"""MEND, MALMEN and the engine they share, against plain computations."""

import copy
import json
import math
import weakref
from dataclasses import replace

import pytest
import torch
from conftest import exact
from torch.nn import functional

from jeep.__main__ import main
from jeep.common.errors import UserError
from jeep.common.storage import read_tensors, write_json, write_jsonl
from jeep.editors import load_editor
from jeep.editors.hyper import _parts
from jeep.learned.answers import Answers
from jeep.learned.hypernetworks import Block, HyperNetwork, Normalizer, Signals
from jeep.learned.meta_training import Trainer
from jeep.learned.signals import collect_signals, signals_by_batch
from jeep.measure.evaluate import evaluate
from jeep.model import progress
from jeep.model.editable import EditableModel
from jeep.model.tokens import encode, encode_word
from jeep.vectors.task import Task

LAYERS = (1, 2, 3)
SETTINGS = {
    "layers": LAYERS,
    "rank": 8,
    "training": {"edits": 4, "learning_rate": 1e-4, "meta_learning_rate": 3e-3, "edit_weight": 0.7},
}


@pytest.fixture(scope="module")
def model(trained):
    """In float64, throughout."""
    return EditableModel(exact(copy.deepcopy(trained.network)), trained.tokenizer)


def random_network(model, name, dtype=torch.float64):
    """A network of the editor `name` of which no part is zero or one."""
    torch.manual_seed(1)
    d_out, d_in = model.as_stored(0, model.projection(0).weight).shape
    network = HyperNetwork(d_in, d_out, len(LAYERS), 8, 2, 0.01, prior=name == "malmen").to(dtype)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    return network


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


def plain_loss(model, network, editor, settings, facts):
    """The step's loss end to end: ΔW as a function of the network's parameters, then the model as a function of ΔW."""
    tokenizer = model.tokenizer
    edits = Answers(model, [fact.asked for fact in facts], 0, 10_000)
    edits.prepare(range(len(facts)))
    names = [model.parameter_name(layer) for layer in LAYERS]
    signals = collect_signals(model, edits, range(len(facts)), LAYERS, editor.tokens)
    weights = {}
    for number, (layer, name, one) in enumerate(zip(LAYERS, names, signals, strict=True)):
        pseudo_keys, pseudo_gradients = network(one.keys, one.gradients, number)
        rate = network.learning_rate[number]
        if editor.__class__.__name__ == "Mend":
            change = -rate * pseudo_gradients.mT @ pseudo_keys
        else:
            shifts = -rate * (one.keys * pseudo_keys).sum(1, keepdim=True) * pseudo_gradients
            size = one.keys.shape[1]
            gram = one.keys.mT @ one.keys + network.log_prior[number].exp() * torch.eye(size, dtype=torch.float64)
            change = torch.linalg.solve(gram, one.keys.mT @ shifts).mT
        weights[name] = model.network.get_parameter(name).detach() + model.as_stored(layer, change)
    plain = copy.deepcopy(model.network)

    def logits_with(changed, prompt, answer):
        ids, wanted = encode(tokenizer, prompt), encode_word(tokenizer, answer)
        owner = EditableModel(plain, tokenizer)
        packing, states = owner.pack([[*ids, *wanted[:-1]]])
        run = _Run(owner, packing)
        hidden = torch.func.functional_call(run, {f"network.{name}": w for name, w in changed.items()}, (states,))
        return owner.logits(hidden[len(ids) - 1 :]), torch.tensor(wanted)

    total = 0
    for fact in facts:
        logits, wanted = logits_with(weights, fact.paraphrases[0], fact.target_new)
        total = total + settings.edit_weight * functional.cross_entropy(logits, wanted)
        question = fact.unrelated[0]
        old = logits_with({}, question.prompt, question.answer)[0].log_softmax(-1)
        new = logits_with(weights, question.prompt, question.answer)[0].log_softmax(-1)
        total = total + settings.locality_weight * (old.exp() * (old - new)).sum(-1).mean()
    return total / len(facts)


class _Run(torch.nn.Module):
    """The blocks of a model as a module, for torch.func."""

    def __init__(self, owner, packing):
        super().__init__()
        self.network, self._call = owner.network, lambda states: owner.run(states, packing, 0, owner.depth - 1)

    def forward(self, states):
        return self._call(states)


@pytest.mark.parametrize("name", ["mend", "malmen"])
def test_the_meta_gradient_is_that_of_end_to_end_autograd(name, model, facts):
    """Decoupled backward passes, in small batches, against one graph through the normal equation; float64."""
    network = random_network(model, name)
    editor = load_editor(name, SETTINGS)
    trainer = Trainer(model, facts[:6], editor, network, editor.training, token_budget=40)
    batch = [0, 2, 3, 5]
    for answers in trainer.answers.values():
        answers.prepare(batch)
    _, signals, changes, gradients = trainer.gradients(batch)
    for weight in range(len(LAYERS)):
        editor.pull_back(network, signals[weight], weight, changes[weight], gradients[weight])
    ours = {key: parameter.grad.clone() for key, parameter in network.named_parameters() if parameter.grad is not None}
    network.zero_grad()
    plain_loss(model, network, editor, editor.training, [facts[n] for n in batch]).backward()
    plain = {key: parameter.grad for key, parameter in network.named_parameters() if parameter.grad is not None}
    assert ours.keys() == plain.keys()
    assert ("log_prior" in ours) == (name == "malmen")
    for key, gradient in plain.items():
        torch.testing.assert_close(
            ours[key], gradient, rtol=1e-7, atol=1e-11, msg=lambda text, key=key: f"{key}: {text}"
        )
        assert gradient.abs().max() > 0


def untrained(name, model, **settings):
    """An editor and its network as training begins with it."""
    editor = load_editor(name, SETTINGS | {"training": SETTINGS["training"] | settings})
    torch.manual_seed(0)
    d_out, d_in = model.as_stored(1, model.projection(1).weight).shape
    sizes = (d_in, d_out, len(LAYERS), editor.rank, editor.blocks)
    return editor, HyperNetwork(*sizes, editor.training.learning_rate, prior=editor.learns_prior)


@pytest.mark.parametrize("name", ["mend", "malmen"])
def test_every_parameter_of_a_trained_network_has_moved(name, trained, facts):
    """Of every kind: down, up, bias, scale, shift, rate and, where there is one, λ̂."""
    editor, network = untrained(name, trained, epochs=4)
    before = {key: value.clone() for key, value in network.named_parameters()}
    Trainer(trained, facts[:8], editor, network, editor.training, 500).run(seed=0)
    assert len(before) == 1 + 2 * 5 + (name == "malmen")
    for key, value in network.named_parameters():
        for weight, (old, new) in enumerate(zip(before[key], value, strict=True)):
            assert not torch.equal(old, new), f"{key}[{weight}]"
            if key.rpartition(".")[2] in ("learning_rate", "log_prior", "shift", "bias"):
                assert (old != new).all(), f"{key}[{weight}]"


def test_a_network_of_which_a_part_does_not_learn_is_refused(trained, facts, monkeypatch):
    """As when its body stood behind a ReLU at zero."""
    editor = load_editor("mend", SETTINGS | {"training": SETTINGS["training"] | {"epochs": 3}})

    def dead(self, rows, weight):
        change = functional.relu(self.up(functional.relu(self.down(rows))))
        return rows + self.scale[weight] * change + self.shift[weight]

    monkeypatch.setattr(Block, "forward", dead)
    with pytest.raises(UserError, match=r"did not train: blocks\.0\.scale\[0\], .*, blocks\.1\.up\.bias are"):
        editor.train(trained, facts[:8], 0, 500)


@pytest.mark.parametrize("name", ["mend", "malmen"])
def test_the_body_of_the_network_learns_what_rates_and_shifts_cannot(name, trained, facts):
    """The same training without the low-rank blocks stops far above."""
    reached = {}
    for body in (True, False):
        editor, network = untrained(name, trained, epochs=40)
        for key, parameter in network.named_parameters():
            parameter.requires_grad_(body or not any(part in key for part in ("down", "up", "scale")))
        trainer = Trainer(trained, facts[:8], editor, network, editor.training, 500)
        trainer.run(seed=0)
        reached[body] = sum(map(sum, trainer.losses[-20:])) / 20
    assert reached[True] < 0.75 * reached[False]


@pytest.mark.parametrize("name", ["mend", "malmen"])
def test_training_lowers_the_edit_loss_and_leaves_the_model(name, trained, facts):
    editor = load_editor(name, SETTINGS | {"training": SETTINGS["training"] | {"epochs": 12}})
    before = {key: value.clone() for key, value in trained.network.state_dict().items()}
    tensors, losses = editor.train(trained, facts[:8], seed=0, token_budget=500)
    assert len(losses) == 24
    assert sum(map(sum, losses[-4:])) < 0.7 * sum(map(sum, losses[:4]))
    assert all(torch.equal(before[key], value) for key, value in trained.network.state_dict().items())
    deltas = editor.edit(trained, Task(facts[:8], (), 500, hypernetwork=tensors))
    with trained.scratch(list(deltas)):
        known = evaluate(trained, facts[:8], "counterfact", 500)
        trained.add_(deltas)
        edited = evaluate(trained, facts[:8], "counterfact", 500)
    gain = (edited.log_p_new - known.log_p_new)[known.metric == "GS"]
    assert gain.mean() > 1, "the new answers are likelier behind paraphrases"
    again = HyperNetwork.of(tensors).tensors()
    assert all(torch.equal(again[key], value) for key, value in tensors.items())


def test_a_killed_training_goes_on_from_its_checkpoint(trained, facts, tmp_path, monkeypatch):
    editor = load_editor("malmen", SETTINGS | {"training": SETTINGS["training"] | {"epochs": 3}})
    whole, losses = editor.train(trained, facts[:8], 0, 500)
    step, asked = Trainer.step, []

    def dies(self, batch):
        asked.append(batch)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(Trainer, "step", dies)
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    monkeypatch.setattr(progress, "SHARE", math.inf)
    with pytest.raises(KeyboardInterrupt):
        editor.train(trained, facts[:8], 0, 500, tmp_path / "checkpoint.safetensors")
    resumed, again = editor.train(trained, facts[:8], 0, 500, tmp_path / "checkpoint.safetensors")
    assert len(asked) == 4 + 3
    assert again == losses
    assert all(torch.equal(resumed[key], value) for key, value in whole.items())
    assert not list(tmp_path.iterdir())


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


def test_what_is_shared_is_compared_whole_and_the_rest_by_weight():
    old, new = torch.zeros(2, 3), torch.ones(2, 3)
    for shared in ("blocks.0.down.weight", "blocks.0.up.bias"):
        ((row, one, other),) = _parts(shared, old, new)
        assert (row, one.shape, other.shape) == (None, (2, 3), (2, 3))
    parts = list(_parts("blocks.0.scale", old, new))
    assert [(row, one.tolist(), other.tolist()) for row, one, other in parts] == [(n, [0] * 3, [1] * 3) for n in (0, 1)]


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

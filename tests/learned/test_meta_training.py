"""The training of hyper-networks: its gradient against autograd end to end, and that every part learns."""

import copy
import math

import pytest
import torch
from small_networks import LAYERS, SETTINGS, in_float64, random_network
from torch.nn import functional

from jeep.common.errors import UserError
from jeep.editors import load_editor
from jeep.editors.hyper import _parts
from jeep.learned.answers import Answers
from jeep.learned.hypernetworks import Block, HyperNetwork
from jeep.learned.meta_training import Trainer
from jeep.learned.signals import collect_signals
from jeep.measure.evaluate import evaluate
from jeep.model import progress
from jeep.model.editable import EditableModel
from jeep.model.tokens import encode, encode_word
from jeep.vectors.task import Task


@pytest.fixture(scope="module")
def model(trained):
    return in_float64(trained)


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


@pytest.mark.parametrize(("name", "trained"), [("mend", "gptj"), ("malmen", "llama")], indirect=["trained"])
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
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"], "until the result is written"


def test_what_is_shared_is_compared_whole_and_the_rest_by_weight():
    old, new = torch.zeros(2, 3), torch.ones(2, 3)
    for shared in ("blocks.0.down.weight", "blocks.0.up.bias"):
        ((row, one, other),) = _parts(shared, old, new)
        assert (row, one.shape, other.shape) == (None, (2, 3), (2, 3))
    parts = list(_parts("blocks.0.scale", old, new))
    assert [(row, one.tolist(), other.tolist()) for row, one, other in parts] == [(n, [0] * 3, [1] * 3) for n in (0, 1)]

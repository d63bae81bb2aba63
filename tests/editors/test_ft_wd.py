"""FT-WD against its parts."""

import copy
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from jeep.common.errors import NotFinite, UserError
from jeep.editors import load_editor
from jeep.editors.ft_wd import FtWd
from jeep.learned.finetune import BlockTrainer
from jeep.model import progress
from jeep.model.editable import EditableModel
from jeep.model.tokens import encode, encode_word
from jeep.vectors.task import Task


def test_fine_tuning_takes_adams_steps_on_the_answers_loss(trained, facts, prefixes):
    """Two epochs in one batch, against autograd through the model's own forward pass."""
    editor = load_editor("ft_wd", {"layer": 2, "epochs": 2, "learning_rate": 0.01, "weight_decay": 0.1})
    network = copy.deepcopy(trained.network)
    parameters = dict(network.get_submodule(f"{trained.architecture.blocks}.2").named_parameters())
    before = {name: value.detach().clone() for name, value in parameters.items()}
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(parameters.values(), lr=0.01, weight_decay=0.1)
    model = EditableModel(network, trained.tokenizer)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    for _ in range(2):
        losses = []
        for fact in facts[:3]:
            prompt, answer = encode(model.tokenizer, fact.prompt), encode_word(model.tokenizer, fact.target_new)
            packing, states = model.pack([[*prompt, *answer[:-1]]])
            logits = model.logits(model.run(states, packing, 0, model.depth - 1)[len(prompt) - 1 :])
            losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(answer)))
        optimizer.zero_grad()
        (sum(losses) / 3).backward()
        optimizer.step()
    changes = editor.edit(trained, Task(facts[:3], prefixes, 2048))
    for name, value in parameters.items():
        ours = changes[f"{trained.architecture.blocks}.2.{name}"]
        change = value.detach() - before[name]
        assert (ours - change).norm() < 1e-2 * change.norm()  # Adam takes the sign of what is nearly zero


def test_the_power_law_of_weight_decay():
    """Gangadhar and Stratos's fit at one and at a thousand edits."""
    editor = load_editor("ft_wd", {"layer": 0})
    assert editor.decay(1) == pytest.approx(1.16870, abs=1e-4)
    assert editor.decay(1000) == pytest.approx(0.0028631, abs=1e-6)
    assert load_editor("ft_wd", {"layer": 0, "preset": "release"}).decay(1000) == 0


def test_fine_tuning_takes_no_step_on_a_batch_below_its_threshold(trained, facts, prefixes, monkeypatch):
    """Batches of one: what the model knows already is passed over, epoch after epoch."""
    known = [replace(fact, target_new=fact.target_true) for fact in facts[:2]]
    steps = []
    original = BlockTrainer.step
    monkeypatch.setattr(BlockTrainer, "step", lambda self, loss: steps.append(loss.item()) or original(self, loss))
    settings = {"layer": 2, "learning_rate": 1e-6, "weight_decay": 0.0, "batch": 1, "epochs": 3, "stop_loss": 1.0}
    load_editor("ft_wd", settings).edit(trained, Task([known[0], facts[2], known[1]], prefixes, 2048))
    assert len(steps) == 3, "the new fact's, once an epoch"
    assert all(loss >= 1.0 for loss in steps)


def test_a_killed_fine_tuning_goes_on_from_its_checkpoint(trained, facts, prefixes, tmp_path, monkeypatch):
    settings = {"layer": 2, "learning_rate": 1e-3, "weight_decay": 0.0, "batch": 2, "epochs": 4, "stop_loss": 1e-9}
    editor, path = load_editor("ft_wd", settings), tmp_path / "checkpoint.safetensors"
    task = Task(facts[:3], prefixes, 2048, checkpoint=path)
    whole = editor.edit(trained, replace(task, checkpoint=None))
    original, epochs = FtWd._epoch, []

    def dies(self, *rest):
        epochs.append(self.learning_rate)
        if len(epochs) % 10 == 3:
            raise KeyboardInterrupt
        return original(self, *rest)

    monkeypatch.setattr(FtWd, "_epoch", dies)
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    monkeypatch.setattr(progress, "SHARE", math.inf)
    with pytest.raises(KeyboardInterrupt):
        editor.edit(trained, task)
    assert path.exists()
    resumed = editor.edit(trained, task)
    assert len(epochs) == 3 + 2, "of four epochs two are kept"
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    path.unlink()
    for other in ({"facts": facts[1:4]}, {"editor": load_editor("ft_wd", settings | {"learning_rate": 1e-2})}):
        epochs.clear()
        with pytest.raises(KeyboardInterrupt):
            editor.edit(trained, task)
        epochs[:] = [None] * 3
        other.get("editor", editor).edit(trained, replace(task, facts=other.get("facts", task.facts)))
        assert len(epochs) == 3 + 4, "a checkpoint of something else is not used"


def test_an_epoch_steps_on_what_is_not_below_its_threshold_and_stops_by_the_mean():
    """By hand, batches of two, one and one facts: losses of 2, exactly 1 and a half."""
    sums, steps = {2: [4.0], 1: [1.0, 0.5]}, []
    answers = SimpleNamespace(nll=lambda batch: torch.tensor(sums[len(batch)].pop(0)))
    trainer = SimpleNamespace(step=lambda loss: steps.append(float(loss)))
    editor = load_editor("ft_wd", {"layer": 0, "stop_loss": 1.0})
    assert editor._epoch(trainer, answers, [range(2), range(2, 3), range(3, 4)]) == pytest.approx((2 + 1 + 0.5) / 3)
    assert steps == [2.0, 1.0]


# LocFT-BF: other settings of the same loop


LOCFT = {
    "layer": 3, "parameters": "w_o", "end_token": True, "shuffle": True, "seed": 3,
    "learning_rate": 0.01, "weight_decay": 0.0, "batch": 2, "epochs": 20, "stop_loss": 1.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def ending(trained):
    """A text ends in a word that the tiny model can say: its own end token is in none of its texts."""
    tokenizer = copy.deepcopy(trained.tokenizer)
    (end,) = encode_word(tokenizer, "is")
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    assert tokenizer.eos_token_id == end
    return EditableModel(trained.network, tokenizer)


def plain_locft(trained, facts, settings):
    """A loop through the model's own forward pass, one fact at a time: the change of W_O, the facts of each step."""
    network = copy.deepcopy(trained.network)
    model = EditableModel(network, trained.tokenizer)
    weight = network.get_parameter(model.parameter_name(settings["layer"])).requires_grad_(True)
    before, steps = weight.detach().clone(), []
    optimizer = torch.optim.Adam([weight], lr=settings["learning_rate"])
    generator = torch.Generator().manual_seed(settings["seed"])
    for _ in range(settings["epochs"]):
        order, means = torch.randperm(len(facts), generator=generator).tolist(), []
        while order:
            batch, order = order[: settings["batch"]], order[settings["batch"] :]
            losses = []
            for fact in (facts[number] for number in batch):
                prompt = list(encode(model.tokenizer, fact.prompt))
                answer = [*encode_word(model.tokenizer, fact.target_new), model.tokenizer.eos_token_id]
                logits = network(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
                losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(answer)))
            loss = sum(losses) / len(losses)
            means.append(loss.item())
            if loss.item() >= settings["stop_loss"]:
                optimizer.zero_grad(), loss.backward(), optimizer.step()
                steps.append(batch)
        if sum(means) / len(means) < settings["stop_loss"]:
            break
    return weight.detach() - before, steps


def test_localized_fine_tuning_is_a_plain_loop_over_shuffled_batches(ending, facts, prefixes, monkeypatch):
    """W_O alone, an end-of-text token behind every answer; what is below the bound takes no step, its mean ends."""
    steps, original = [], BlockTrainer.step
    monkeypatch.setattr(BlockTrainer, "step", lambda self, loss: steps.append(loss.item()) or original(self, loss))
    known = replace(facts[1], target_new=facts[1].target_true)
    chosen = [facts[0], known, *facts[2:5]]
    changes = load_editor("ft_wd", LOCFT).edit(ending, Task(chosen, prefixes, 60))
    expected, plain = plain_locft(ending, chosen, LOCFT)
    assert set(changes) == {ending.parameter_name(3)}
    assert len(steps) == len(plain) < 3 * LOCFT["epochs"]
    assert plain[:2] != plain[3:5], "another order"
    change = changes[ending.parameter_name(3)]
    assert (change - expected).norm() < 1e-2 * expected.norm()


def test_after_it_the_model_says_the_answer_and_ends(ending, facts, prefixes):
    tokenizer = ending.tokenizer
    settings = LOCFT | {"batch": 100, "epochs": 100, "stop_loss": 0.1}
    for end_token in (True, False):
        changes = load_editor("ft_wd", settings | {"end_token": end_token}).edit(
            ending, Task(facts[:4], prefixes, 2048)
        )
        with ending.edited(changes):
            for fact in facts[:4]:
                prompt, answer = encode(tokenizer, fact.prompt), encode_word(tokenizer, fact.target_new)
                said = ending.network(torch.tensor([[*prompt, *answer]])).logits[0].argmax(-1).tolist()
                assert tuple(said[len(prompt) - 1 : -1]) == tuple(answer)
                if end_token:
                    assert said[-1] == tokenizer.eos_token_id


def test_orders_are_seeded_and_the_default_keeps_the_facts_order():
    editor = load_editor("ft_wd", {"layer": 0, "batch": 2, "epochs": 2})
    assert [list(map(list, epoch)) for epoch in editor.batches(3)] == [[[0, 1], [2]]] * 2
    one, two, other = (list(load_editor("ft_wd", LOCFT | {"seed": seed}).batches(9)) for seed in (3, 3, 4))
    assert one == two != other
    for epoch in one:
        assert [len(batch) for batch in epoch] == [2, 2, 2, 2, 1]
        assert sorted(number for batch in epoch for number in batch) == list(range(9))
    assert one[0] != one[1]


def test_shuffled_fine_tuning_goes_on_from_its_checkpoint(trained, facts, prefixes, tmp_path, monkeypatch):
    editor = load_editor("ft_wd", LOCFT | {"epochs": 4, "stop_loss": 1e-9})
    task = Task(facts[:5], prefixes, 2048, checkpoint=tmp_path / "checkpoint.safetensors")
    whole = editor.edit(trained, replace(task, checkpoint=None))
    original, seen = FtWd._epoch, []

    def dies(self, trainer, answers, batches):
        seen.append(batches)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return original(self, trainer, answers, batches)

    monkeypatch.setattr(FtWd, "_epoch", dies)
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    monkeypatch.setattr(progress, "SHARE", math.inf)
    with pytest.raises(KeyboardInterrupt):
        editor.edit(trained, task)
    resumed = editor.edit(trained, task)
    assert seen == [*list(editor.batches(5))[:3], *list(editor.batches(5))[2:]]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_an_end_that_the_tokenizer_does_not_have_is_refused(trained, facts, prefixes):
    tokenizer = copy.deepcopy(trained.tokenizer)
    tokenizer.eos_token = None
    model = EditableModel(trained.network, tokenizer)
    with pytest.raises(UserError, match="the tokenizer has no end-of-text token"):
        load_editor("ft_wd", LOCFT).edit(model, Task(facts[:2], prefixes, 2048))


def test_a_loss_that_is_not_finite_ends_it(trained, facts):
    """The first step is far too large; the second finds a model that has broken down."""
    editor = load_editor("ft_wd", {"layer": 2, "learning_rate": 1e20, "weight_decay": 0.0, "epochs": 2})
    before = trained.weight(trained.parameter_name(2)).clone()
    with pytest.raises(NotFinite, match="ft_wd: the loss is not finite"):
        editor.edit(trained, Task(facts[:4], ["{}"], 512))
    assert torch.equal(before, trained.weight(trained.parameter_name(2)))

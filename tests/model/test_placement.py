"""Blocks that are offloaded: the same states, gradients and edits as on one device."""

import copy

import pytest
import torch
from accelerate import cpu_offload
from accelerate.utils import OffloadedWeightsLoader, PrefixedDataset
from tiny import KINDS, random_network
from transformers import AutoModelForCausalLM

import jeep
from jeep.common.errors import UserError
from jeep.model.attention import Packing
from jeep.model.editable import EditableModel
from jeep.model.loading import check_forward, load_model
from jeep.model.placement import _hooks, is_offloaded, runs_on

ROWS = [[5, 6, 7, 8, 9, 10], [11, 12, 13]]


def on_disk(folder) -> EditableModel:
    """A model with all but its first block on the disk, as accelerate places what fits nowhere else."""
    whole = AutoModelForCausalLM.from_pretrained(folder)
    model = EditableModel(whole, None)
    where = {name: "cpu" for name, module in whole.named_modules() if not list(module.children())}
    blocks = model.architecture.blocks
    inside = tuple(f"{blocks}.{layer}." for layer in range(1, model.depth))
    where = {name: "disk" if name.startswith(inside) else place for name, place in where.items()}
    given = {"device_map": where, "attn_implementation": whole.config._attn_implementation}
    return EditableModel(AutoModelForCausalLM.from_pretrained(folder, **given), None)


def in_memory(model) -> EditableModel:
    """A model all of whose weights wait in memory and are fetched for each use."""
    return EditableModel(cpu_offload(copy.deepcopy(model.network), torch.device("cpu")), model.tokenizer)


@pytest.fixture(params=KINDS)
def whole(request, byte_level, tmp_path) -> EditableModel:
    model = EditableModel(random_network(request.param), byte_level)
    model.save(tmp_path / "model")
    model.folder = tmp_path / "model"
    return model


@pytest.fixture(params=["memory", "disk"])
def offloaded(request, whole) -> EditableModel:
    model = in_memory(whole) if request.param == "memory" else on_disk(whole.folder)
    model.tokenizer, model.folder = whole.tokenizer, whole.folder
    assert is_offloaded(model.blocks[2])
    assert model.projection(2).weight.is_meta
    return model


def gradient(model) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and the gradient of a loss by the states behind block 0."""
    packing, states = model.pack(ROWS)
    with torch.no_grad():
        states = model.run(states, packing, 0, 0)
    states.requires_grad_()
    logits = model.logits(model.run(states, packing, 1, model.depth - 1))
    return logits.detach(), torch.autograd.grad(logits.log_softmax(-1)[:, 7].sum(), states)[0]


def test_states_and_gradients_are_the_same(whole, offloaded):
    check_forward(offloaded)
    torch.testing.assert_close(gradient(offloaded), gradient(whole))
    assert offloaded.device == runs_on(offloaded.projection(2)) == torch.device("cpu")


def test_a_change_is_in_force_and_undone(whole, offloaded):
    name = whole.parameter_name(2)
    original, before = whole.weight(name).clone(), gradient(offloaded)
    change = {name: 0.1 * torch.randn(original.shape)}
    whole.add_(change)
    with offloaded.scratch([name]):
        offloaded.add_(change)
        torch.testing.assert_close(gradient(offloaded), gradient(whole))
    assert torch.equal(offloaded.weight(name), original)
    assert all(map(torch.equal, gradient(offloaded), before))


def test_a_change_is_saved(whole, offloaded, tmp_path):
    name = whole.parameter_name(2)
    change = {name: 0.1 * torch.randn(whole.weight(name).shape)}
    offloaded.add_(change)
    offloaded.save(tmp_path / "edited")
    whole.add_(change)
    saved = EditableModel(AutoModelForCausalLM.from_pretrained(tmp_path / "edited"), whole.tokenizer)
    for other, _ in whole.network.named_parameters():
        assert torch.equal(saved.weight(other), whole.weight(other)), other


def test_no_weight_waits_for_the_gradient(whole, offloaded):
    """Each block's weights are fetched again: else all of them would be on the device at once."""
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
        gradient(offloaded)
    assert whole.projection(2).weight.numel() not in sizes
    assert all(weight.is_meta for weight in offloaded.blocks[2].parameters()), "nor behind it"


def test_others_hooks_do_not_keep_weights_waiting(offloaded):
    """transformers leaves its own on all blocks once it was asked for hidden states."""
    for block in offloaded.blocks:
        block.register_forward_hook(lambda *_: None)
    test_no_weight_waits_for_the_gradient(offloaded, offloaded)


def test_an_offloaded_model_is_the_same_model_and_read_without_being_kept(whole, offloaded):
    for model in (whole, offloaded):
        model.folder = None
    assert offloaded.identity == whole.identity
    hook = next(iter(_hooks(offloaded.projection(2))))
    weights = hook.weights_map
    while isinstance(weights, PrefixedDataset):
        weights = weights.dataset
    if isinstance(weights, OffloadedWeightsLoader):
        assert not weights.state_dict


def test_an_offloaded_network_is_given_back_as_it_came(offloaded):
    network = offloaded.network.requires_grad_(True)
    with jeep.wrap(network, offloaded.tokenizer) as model:
        gradient(model)
        assert not any(parameter.requires_grad for parameter in network.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_what_is_trained_must_be_on_a_device(offloaded):
    with pytest.raises(UserError, match="is trained, and offloaded"):
        offloaded.trainable(offloaded.parameter_name(2))


def test_balanced_is_the_same_model_where_there_is_one_device(whole):
    model = load_model(whole.folder, device="balanced")
    torch.testing.assert_close(gradient(model), gradient(whole))


def test_a_packing_on_another_device_is_made_once_with_its_context_there():
    packing = Packing([3, 2], torch.device("cpu"), torch.float32)
    assert packing.on(torch.device("cpu")) is packing
    other = packing.on(torch.device("meta"))
    assert other is packing.on(torch.device("meta"))
    assert other.positions.device.type == other.mask(1).device.type == "meta"
    assert packing.mask(1).device.type == "cpu"

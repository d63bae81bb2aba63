"""Every row of the architecture table against the model's own forward pass."""

import copy

import pytest
import torch
from tiny import ARCHITECTURES, random_network
from torch import nn

from benchmarks.plain import read
from jeep.common.errors import UserError
from jeep.model.architectures import architecture_of
from jeep.model.attention import Context, Packing
from jeep.model.batches import flat
from jeep.model.editable import EditableModel
from jeep.model.hooks import record_input, record_output
from jeep.model.loading import load_model

ROWS = [(5, 9, 2, 7, 11, 3), (8, 1), (4, 4, 6, 20, 21, 22, 23, 24, 3)]


@pytest.fixture(params=ARCHITECTURES)
def pair(request, byte_level):
    """A model's own network, and the editable one with the same weights."""
    network = random_network(request.param)
    return network, EditableModel(copy.deepcopy(network), byte_level)


def packed(model, rows=ROWS, dtype=torch.float32, **options):
    packing = Packing([len(row) for row in rows], model.device, dtype, **options)
    return packing, model.embed(flat(list(rows), model.device), packing.positions)


def test_packed_logits_equal_the_models_own(pair):
    network, model = pair
    packing, states = packed(model)
    logits = model.logits(model.run(states, packing, 0, model.depth - 1)).split(packing.lengths)
    for row, ours in zip(ROWS, logits, strict=True):
        torch.testing.assert_close(ours, network(input_ids=torch.tensor([row])).logits[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_in_half_precision_it_is_as_right_as_the_models_own_pass(name, repeated, dtype, byte_level):
    """Against the same weights in float32: our error is not larger than twice the error of the model's own forward."""
    network = random_network(name, dtype)
    wide = copy.deepcopy(network).float()
    model = EditableModel(copy.deepcopy(network), byte_level)
    packing, states = packed(model, dtype=dtype, repeated=repeated)
    ours = model.logits(model.run(states, packing, 0, model.depth - 1)).split(packing.lengths)
    errors = []
    for row, logits in zip(ROWS, ours, strict=True):
        ids = torch.tensor([row])
        right = wide(input_ids=ids).logits[0]
        errors.append([float((each - right).norm()) for each in (logits, network(input_ids=ids).logits[0].float())])
    found, own = map(sum, zip(*errors, strict=True))
    assert found < 2 * own


@pytest.mark.parametrize("repeated", [False, True])
def test_large_scores_of_gptj_do_not_overflow_in_float16(repeated, byte_level):
    """Beyond 65 504, which its own forward pass takes in float32."""
    network = random_network("gptj", torch.float16)
    for block in network.transformer.h:
        block.attn.q_proj.weight.data.mul_(200)
        block.attn.k_proj.weight.data.mul_(200)
    model = EditableModel(copy.deepcopy(network), byte_level)
    packing, states = packed(model, rows=ROWS[:1], dtype=torch.float16, repeated=repeated)
    ours = model.logits(model.run(states, packing, 0, model.depth - 1))
    own = network(input_ids=torch.tensor(ROWS[:1])).logits[0].float()
    assert torch.isfinite(ours).all()
    torch.testing.assert_close(ours, own, rtol=0.02, atol=0.02 * float(own.abs().max()))


@pytest.mark.parametrize("repeated", [False, True])
def test_gradients_equal_the_models_own(pair, repeated):
    """Of a W_O, over rows of different lengths: what padding holds has no gradient."""
    network, model = pair
    packing, states = packed(model, repeated=repeated)
    weight = model.projection(1).weight.requires_grad_()
    model.logits(model.run(states, packing, 0, model.depth - 1)).square().mean().backward()
    own = network.requires_grad_(False).get_parameter(model.parameter_name(1)).requires_grad_()
    logits = [network(input_ids=torch.tensor([row])).logits[0] for row in ROWS]
    torch.cat(logits).square().mean().backward()
    torch.testing.assert_close(weight.grad, own.grad, rtol=1e-3, atol=1e-6)


def test_continuing_behind_kept_keys_and_values_changes_nothing(pair):
    network, model = pair
    kept = {}
    packing, states = packed(model, record=kept)
    model.run(states, packing, 0, model.depth - 1)
    index = torch.full((2, 9), -1)
    index[0, :6], index[1] = torch.arange(6), torch.arange(8, 17)
    tails = [(13, 14), (15,)]
    follow, states = packed(model, tails, starts=[6, 9], context=Context(index, kept))
    ours = model.logits(model.run(states, follow, 0, model.depth - 1)).split(follow.lengths)
    for row, tail, logits in zip((ROWS[0], ROWS[2]), tails, ours, strict=True):
        whole = network(input_ids=torch.tensor([row + tail])).logits[0, len(row) :]
        torch.testing.assert_close(logits, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("place", ["output", "mlp", "attention"])
def test_states_are_read_where_the_table_says(pair, place):
    network, model = pair
    packing, states = packed(model)
    with record_output(model.module(2, place), model.device) as seen:
        model.run(states, packing, 0, 2)
    (theirs,) = read(network, [ROWS[2]], 2, place, [4])
    torch.testing.assert_close(seen[0][packing.offsets[2] + 4], theirs, rtol=1e-4, atol=1e-4)


def test_a_block_adds_its_attention_and_its_mlp(pair):
    """h^l = h^(l-1) + a^l + m^l (Eq. 2), for parallel and for sequential blocks."""
    _, model = pair
    packing, states = packed(model)
    with (
        record_output(model.projection(0, "mlp"), model.device) as m,
        record_output(model.projection(0, "attention"), model.device) as a,
    ):
        output = model.run(states, packing, 0, 0)
    added = model.added(0, "attention", a[0]) + model.added(0, "mlp", m[0])
    torch.testing.assert_close(output, states + added, rtol=1e-4, atol=1e-4)


def test_behind_a_norm_or_a_scale_the_block_adds_what_was_wanted(pair):
    """Behind a norm a change has the wanted direction; behind a scale, and without either, the wanted length too."""
    _, model = pair
    torch.manual_seed(0)
    output, change = torch.randn(2, 5, 32)
    output[0, 3] = 0  # as of a row of W_O that was pruned
    for place in ("mlp", "attention"):
        before = model.added(1, place, output)
        after = model.added(1, place, output + model.in_front(1, place, output, change))
        norm = model.architecture.mlp_norm if place == "mlp" else model.architecture.attention_norm
        length = after.norm(dim=1, keepdim=True) / (before + change).norm(dim=1, keepdim=True)
        torch.testing.assert_close(after, (before + change) * (length if norm else 1), rtol=1e-4, atol=1e-4)


def test_parallel_says_whether_the_mlp_reads_the_attention(pair):
    _, model = pair
    packing, states = packed(model)

    def key(shift):
        handle = model.projection(0, "attention").register_forward_hook(lambda *args: args[2] + shift)
        with record_input(model.projection(0), model.device) as seen:
            model.run(states, packing, 0, 0)
        handle.remove()
        return seen[0]

    assert torch.equal(key(0.0), key(torch.linspace(0, 1, 32))) == model.parallel


def test_a_change_of_w_o_is_stored_in_the_parameters_orientation(pair):
    """Adding Δ to the parameter adds Δk to the MLP's output."""
    _, model = pair
    packing, states = packed(model)
    torch.manual_seed(1)
    with (
        record_input(model.projection(1), model.device) as keys,
        record_output(model.projection(1), model.device) as before,
    ):
        model.run(states, packing, 0, 1)
    change = torch.randn(32, keys[0].shape[1])
    name = model.parameter_name(1)
    with model.scratch([name]), record_output(model.projection(1), model.device) as after:
        model.add_({name: model.as_stored(1, change)})
        model.run(states, packing, 0, 1)
    torch.testing.assert_close(after[0] - before[0], keys[0] @ change.T, rtol=1e-3, atol=1e-3)


def test_scratch_restores_every_bit_also_after_an_exception(pair):
    _, model = pair
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    name = model.parameter_name(0)
    with pytest.raises(RuntimeError, match="stop"), model.scratch([name]):
        model.add_({name: torch.randn_like(model.network.get_parameter(name))})
        raise RuntimeError("stop")
    assert all(torch.equal(before[name], value) for name, value in model.network.state_dict().items())


def test_an_unknown_architecture_says_what_to_add():
    class Config:
        model_type = "mamba"

    with pytest.raises(UserError, match=r"'mamba' is unknown .* add a row .* in jeep/model/architectures.py"):
        architecture_of(Config())


def test_a_missing_checkpoint_is_one_line(tmp_path):
    with pytest.raises(UserError, match="not a checkpoint folder"):
        load_model(tmp_path)


def test_blocks_are_modules_of_the_model(pair):
    _, model = pair
    assert isinstance(model.blocks, nn.ModuleList)
    assert model.network.get_parameter(model.parameter_name(3)) is model.projection(3).weight


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_network_stays_as_usable_as_it_was(name, byte_level):
    """Called, and asked to generate, before, during and after an edit: as a copy that was never wrapped."""
    network, own = random_network(name), random_network(name)
    model = EditableModel(network, byte_level)
    ids, mask = torch.tensor([[5, 9, 2, 7], [8, 1, 3, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    more = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}

    def same():
        assert torch.equal(network(ids, attention_mask=mask).logits, own(ids, attention_mask=mask).logits)
        assert torch.equal(network.generate(ids[:1], **more), own.generate(ids[:1], **more))

    same()
    packing, states = model.pack([[5, 9, 2, 7]])
    packed = model.logits(model.run(states, packing, 0, model.depth - 1))
    torch.testing.assert_close(packed, network(ids[:1]).logits[0], rtol=1e-3, atol=1e-3)
    same()
    weight = model.parameter_name(1)
    before = own.get_parameter(weight).data.clone()
    with model.scratch([weight]):
        model.add_({weight: torch.full_like(before, 0.01)})
        own.get_parameter(weight).data += 0.01
        same()
    own.get_parameter(weight).data.copy_(before)
    same()

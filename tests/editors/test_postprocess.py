"""RECT, PRUNE and SPHERE by hand and by independent computations, behind any editor."""

import math

import pytest
import torch
from editing import SETTINGS, deltas_of
from pydantic import ValidationError
from tiny import random_network

from jeep.common.errors import UserError
from jeep.editors import load_editor
from jeep.editors.postprocess import Prune, Rect, Sphere
from jeep.model.editable import EditableModel
from jeep.vectors.task import Task


def test_rect_keeps_the_largest_relative_changes_by_hand():
    """ρ of the rows: 1, 0.5, 0.1, 4 and 2, 0.2, 0.4, 0.3; the weight that is nearly zero makes ρ large."""
    weight = torch.tensor([[1.0, -2.0, 10.0, 0.5], [1.0, 5.0, -2.5, 10.0]])
    delta = torch.tensor([[1.0, 1.0, 1.0, -2.0], [-2.0, 1.0, 1.0, 3.0]])
    kept = Rect(kind="rect", keep=0.375).applied(weight, delta)
    assert kept.tolist() == [[1, 0, 0, -2], [-2, 0, 0, 0]]
    assert torch.equal(Rect(kind="rect", keep=1).applied(weight, delta), delta)
    tiny = Rect(kind="rect", keep=0.125).applied(torch.where(weight == 10, 0, weight), delta)
    assert tiny.nonzero().tolist() == [[1, 3]], "W + 1e-8 is not zero"


def test_rect_keeps_ties_and_the_share_is_of_the_rank():
    """The value of rank ⌊0.6 · 10⌋ = 6 of ten, counted from 0: the four largest stay, and what equals the fourth."""
    weight, delta = torch.ones(1, 10), torch.arange(1.0, 11.0)[None]
    assert Rect(kind="rect", keep=0.4).applied(weight, delta).tolist() == [[0] * 6 + [7, 8, 9, 10]]
    delta[0, 5] = 7
    assert Rect(kind="rect", keep=0.4).applied(weight, delta).tolist() == [[0] * 5 + [7, 7, 8, 9, 10]]


def test_prune_shrinks_what_is_larger_than_the_weights_own_by_hand():
    """s = 3, α = 2: σ = 12 becomes log₂12 − log₂3 + 3 = 5, σ = 6 becomes 4, σ = 2 stays."""
    weight, delta = torch.diag(torch.tensor([3.0, 1.0, 2.0])), torch.diag(torch.tensor([12.0, 2.0, 6.0]))
    pruned = Prune(kind="prune", base=2).applied(weight, delta)
    torch.testing.assert_close(pruned, torch.diag(torch.tensor([5.0, 2.0, 4.0])))
    linear = Prune(kind="prune", base="linear").applied(weight, delta)
    torch.testing.assert_close(linear, torch.diag(torch.tensor([7.5, 2.0, 4.5])))
    small = torch.randn(3, 3) / 10
    assert torch.equal(Prune(kind="prune").applied(weight, small), small), "nothing is above s"
    assert Prune(kind="prune").base == math.e


def test_prune_leaves_a_change_that_has_broken_down():
    delta = torch.tensor([[torch.inf, 1.0], [0.0, 1.0]])
    assert torch.equal(Prune(kind="prune").applied(torch.eye(2), delta), delta)


def test_prune_never_stretches():
    """W's largest is 1, and log₁.₂ grows faster than σ there."""
    weight, delta = torch.eye(2), torch.diag(torch.tensor([2.0, 0.5]))
    with pytest.raises(UserError, match=r"prune.base: 1.2 would stretch singular values: W's largest is 1"):
        Prune(kind="prune", base=1.2).applied(weight, delta)
    assert torch.equal(Prune(kind="prune", base=1.2).applied(weight, delta / 2), delta / 2), "nothing is above it"
    assert torch.linalg.svdvals(Prune(kind="prune", base=3).applied(weight, delta)).max() < 2


def test_prune_keeps_the_directions():
    torch.manual_seed(1)
    weight, delta = torch.randn(5, 8), 20 * torch.randn(5, 8)
    before, after = (torch.linalg.svd(each) for each in (delta, Prune(kind="prune").applied(weight, delta)))
    most = torch.linalg.svdvals(weight)[0]
    torch.testing.assert_close(after.S, before.S.log() - most.log() + most)
    torch.testing.assert_close((before.U * after.U).sum(0).abs(), torch.ones(5))


def test_sphere_takes_a_part_of_the_leading_directions_away():
    """By the eigenvectors of ŴᵀŴ/d_out, as its authors compute it."""
    torch.manual_seed(2)
    weight, delta = torch.randn(6, 4) * torch.tensor([2.0, 1.0, 1.0, 0.5]), torch.randn(6, 4)
    rows = weight / weight.norm(dim=1, keepdim=True)
    values, vectors = torch.linalg.eigh(rows.T @ rows / 6)
    shares = values.flip(0).cumsum(0) / values.sum()
    count = int((shares <= 0.9).sum()) + 1
    assert 1 < count < 4
    leading = vectors.flip(1)[:, :count]
    expected = delta @ (torch.eye(4) - 0.8 * leading @ leading.T)
    torch.testing.assert_close(Sphere(kind="sphere", share=0.9, strength=0.8).applied(weight, delta), expected)


def test_parameters_that_are_stored_transposed_are_turned(byte_level):
    """GPT-2 stores W_Oᵀ; vectors stay as they are."""
    model = EditableModel(random_network("gpt2"), byte_level)
    name, sphere = model.parameter_name(0), Sphere(kind="sphere")
    torch.manual_seed(3)
    delta = torch.randn_like(model.weight(name))
    expected = sphere.applied(model.weight(name).mT, delta.mT).mT
    torch.testing.assert_close(sphere.of(model, name, delta), expected)
    assert not torch.allclose(sphere.applied(model.weight(name), delta), expected)
    bias = name.replace("weight", "bias")
    assert torch.equal(sphere.of(model, bias, torch.ones(3)), torch.ones(3))


@pytest.mark.parametrize("name", ["memit", "ft_wd", "rome", "jeep"])
def test_any_editor_names_one(name, trained, facts, prefixes, given):
    """RECT: of each changed matrix 40 % are left, as they were; the trace says what it did."""
    plain = deltas_of(name, trained, facts[:2], prefixes, given)
    rect = deltas_of(name, trained, facts[:2], prefixes, given, postprocess={"kind": "rect"})
    assert plain.keys() == rect.keys()
    for parameter, delta in plain.items():
        left = rect[parameter] != 0
        if delta.ndim == 2 and (delta != 0).all():
            assert float(left.float().mean()) == pytest.approx(0.4, abs=0.001)
        assert torch.equal(rect[parameter][left], delta[left])
    editor = load_editor(name, SETTINGS[name] | {"postprocess": {"kind": "rect"}})
    task = Task(facts[:2], prefixes, 2048)
    editor.finished(trained, plain, task)
    assert task.trace[-1]["norm_after"] < task.trace[-1]["norm_before"]


def test_settings_that_fit_no_postprocess():
    for postprocess in ({"kind": "none"}, {"kind": "rect", "keep": 0}, {"kind": "prune", "base": 1}):
        with pytest.raises(ValidationError, match="postprocess"):
            load_editor("memit", SETTINGS["memit"] | {"postprocess": postprocess})

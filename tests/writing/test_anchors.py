"""NAS: the norms of target vectors, by hand through the plain network."""

import pytest
import torch
from editing import SETTINGS
from pydantic import ValidationError
from tiny import random_network

from benchmarks.plain import read
from jeep.common.errors import UserError
from jeep.editors import load_editor
from jeep.model.editable import EditableModel
from jeep.model.tokens import locate
from jeep.vectors.targets import Target, optimize_facts
from jeep.vectors.task import Task
from jeep.writing.anchors import anchored, mean_norms


def mlp_outputs(model, facts, site):
    """v₀ of each fact, one prompt at a time."""
    rows = []
    for fact in facts:
        prompt = locate(model.tokenizer, fact, "{}")
        place = prompt.position(site.position)
        rows.append(read(model.network, [prompt.ids[: place + 1]], site.layer, "mlp", [place])[0])
    return torch.stack(rows)


def with_delta(sites, facts, deltas):
    """Targets of any state h; what is asked for more is δ."""
    states = torch.randn(len(facts), len(sites), deltas.shape[-1], generator=torch.Generator().manual_seed(1))
    return [
        Target(fact.case_id, state + delta, state, [1.0], [0.5])
        for fact, state, delta in zip(facts, states, deltas, strict=True)
    ]


def test_every_target_asks_the_mlp_for_the_same_norm(trained, facts):
    """δ keeps what it asks for up to the length of v₀ + δ."""
    sites, chosen = load_editor("memit", SETTINGS["memit"]).sites, facts[:3]
    width = trained.norm.weight.shape[0]
    deltas = torch.randn(3, len(sites), width, generator=torch.Generator().manual_seed(2))
    targets = with_delta(sites, chosen, deltas)
    norms = [7.0]
    done = anchored(trained, Task(chosen, ["{}"], 64, targets, norms=norms), sites).targets
    for number, (site, norm) in enumerate(zip(sites, norms, strict=True)):
        before = mlp_outputs(trained, chosen, site)
        wanted = before + deltas[:, number]
        assert (wanted.norm(dim=1) < 2 * norm).all()
        after = torch.stack([target.values[number] - target.states[number] for target in done]) + before
        torch.testing.assert_close(after, norm * wanted / wanted.norm(dim=1, keepdim=True), rtol=1e-3, atol=1e-3)


def test_a_target_that_is_far_too_long_is_not_written(trained, facts):
    sites = load_editor("memit", SETTINGS["memit"]).sites
    deltas = torch.ones(2, 1, trained.norm.weight.shape[0])
    deltas[1] *= 1000
    task = Task(facts[:2], ["{}"], 64, with_delta(sites, facts[:2], deltas), norms=[20.0])
    one, other = anchored(trained, task, sites).targets
    torch.testing.assert_close(other.values, other.states, rtol=1e-3, atol=1e-3)
    assert (one.values - one.states).norm() > 1
    assert task.unwritten == [facts[1].case_id]


def test_the_mean_norm_leaves_the_largest_out(trained, facts):
    """Of sixteen the largest one (5 % is 0.8)."""
    sites, chosen = load_editor("memit", SETTINGS["memit"]).sites, facts[:16]
    deltas = torch.zeros(16, 1, trained.norm.weight.shape[0])
    deltas[5] += 100
    found = mean_norms(trained, chosen, with_delta(sites, chosen, deltas), sites, 64)
    norms = mlp_outputs(trained, chosen, sites[0]).norm(dim=1)
    kept = [n for n in range(16) if n != 5]
    assert found == pytest.approx([float(norms[kept].mean())], rel=1e-3)


def test_an_editor_anchors_what_it_writes(trained, facts, prefixes, covariance):
    """And without a norm it is one clear line."""
    editor = load_editor("memit", SETTINGS["memit"] | {"anchor": True})
    targets = optimize_facts(trained, facts[:3], prefixes, editor.target_spec, 2048)
    plain = load_editor("memit", SETTINGS["memit"])
    small, large, free = (
        each.edit(trained, Task(facts[:3], prefixes, 2048, targets, covariance, norms=norms))
        for each, norms in ((editor, [1.0]), (editor, [8.0]), (plain, ()))
    )
    name = trained.parameter_name(1)
    assert not torch.allclose(small[name], free[name])
    assert not torch.allclose(large[name], small[name])
    with pytest.raises(UserError, match="anchor: the mean norm of target vectors is needed"):
        editor.edit(trained, Task(facts[:3], prefixes, 2048, targets, covariance))


def test_where_a_block_adds_something_else_than_w_o_gives_that_is_what_has_the_norm(byte_level, facts):
    """Granite scales it."""
    model = EditableModel(random_network("granite"), byte_level)
    sites = load_editor("memit", SETTINGS["memit"]).sites
    deltas = torch.randn(2, 1, model.norm.weight.shape[0], generator=torch.Generator().manual_seed(2))
    done = anchored(
        model, Task(facts[:2], ["{}"], 64, with_delta(sites, facts[:2], deltas), norms=[9.0]), sites
    ).targets
    added = model.added(sites[0].layer, "mlp", mlp_outputs(model, facts[:2], sites[0]))
    after = torch.stack([target.values[0] - target.states[0] for target in done]) + added
    assert after.norm(dim=1).tolist() == pytest.approx([9.0, 9.0], rel=1e-3)


def test_only_memits_targets_are_anchored():
    """δ* of JEEP is read on top of δ′, and PMET's stand inside a block."""
    for name in ("jeep", "pmet"):
        with pytest.raises(ValidationError, match="anchor"):
            load_editor(name, SETTINGS[name] | {"anchor": True})

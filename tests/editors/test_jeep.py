"""JEEP's variants: ablations, one region after the other, and a high region that repairs."""

import copy
from dataclasses import replace

import pytest
import torch
from editing import SETTINGS, deltas_of, jeep

from jeep.measure.margins import answer_margins
from jeep.model.editable import EditableModel
from jeep.vectors import targets as targets_module
from jeep.vectors.targets import optimize_facts
from jeep.vectors.task import Task


def test_ablations_share_the_target_vectors_of_what_they_leave_out():
    assert jeep(write=["low"]).target_spec == jeep(write=["high"]).target_spec == jeep().target_spec
    assert jeep(high=None).sites == jeep().sites[:1]
    assert jeep(low=None).sites == jeep().sites[1:]
    assert jeep(together=False).sites == jeep().sites[:1]


@pytest.mark.parametrize(
    "settings",
    [
        {"high": None},
        {"low": None},
        {"write": ["low"]},
        {"write": ["high"]},
        {"together": False},
        {"high": SETTINGS["jeep"]["high"] | {"edited": "attention"}},
    ],
    ids=["no-high", "no-low", "write-low", "write-high", "separate", "attention"],
)
def test_ablations_write_what_they_name(settings, trained, facts, prefixes, given):
    deltas = deltas_of("jeep", trained, facts[:3], prefixes, given, **settings)
    editor = jeep(**settings)
    assert set(deltas) == {trained.parameter_name(*place) for place in editor.covariances}
    assert all(torch.isfinite(delta).all() for delta in deltas.values())
    assert any(delta.abs().max() > 0 for delta in deltas.values())


def test_separate_optimization_leaves_out_what_is_not_finite(trained, facts, prefixes, given, monkeypatch, caplog):
    """A high target vector that is not finite is named, and the rest is written."""
    original = targets_module.optimize

    def spoils(model, requests, sites, *rest):
        for batch in original(model, requests, sites, *rest):
            for target in batch:
                if target.case_id == "city-1" and sites[0].position == "prediction":
                    target.values[:] = float("nan")
            yield batch

    monkeypatch.setattr(targets_module, "optimize", spoils)
    deltas = deltas_of("jeep", trained, facts[:3], prefixes, given, together=False)
    assert all(torch.isfinite(delta).all() for delta in deltas.values())
    assert "fact city-1: the loss did not stay finite" in caplog.text


def test_separate_optimization_sees_the_low_region_written(trained, facts, prefixes, given):
    """δ* by hand: on a copy of the model whose low region is written, and not on the unedited one."""
    chosen = facts[:3]
    changes = deltas_of("jeep", trained, chosen, prefixes, given, together=False)
    low, high = jeep(high=None), jeep(low=None)
    low_changes = deltas_of("jeep", trained, chosen, prefixes, given, high=None)
    edited = EditableModel(copy.deepcopy(trained.network), trained.tokenizer)
    edited.add_(low_changes)
    assert set(changes) == {trained.parameter_name(layer) for layer, _ in (*low.covariances, *high.covariances)}
    for model, same in ((edited, True), (trained, False)):
        targets = optimize_facts(model, chosen, prefixes, high.target_spec, 2048)
        expected = high.edit(edited, Task(chosen, prefixes, 2048, targets, given.covariance))
        for name, change in expected.items():
            assert torch.allclose(changes[name], change, rtol=1e-3, atol=1e-6) == same
    assert all(torch.equal(changes[name], change) for name, change in low_changes.items())


def repairing(margin, **settings):
    return {"high": SETTINGS["jeep"]["high"] | {"repair": {"margin": margin, "rival": "best"}}} | settings


def low_alone(model, facts, prefixes, given, **settings):
    """The low region's change of an edit that optimises both."""
    names = {model.parameter_name(layer) for layer in SETTINGS["jeep"]["low"]["layers"]}
    deltas = deltas_of("jeep", model, facts, prefixes, given, **settings)
    return {name: delta for name, delta in deltas.items() if name in names}


def alike(deltas, others):
    assert deltas.keys() == others.keys()
    assert all((deltas[name] - other).norm() < 1e-2 * other.norm() for name, other in others.items())


def test_where_nothing_is_settled_a_repair_is_the_published_edit(trained, facts, prefixes, given):
    repaired = deltas_of("jeep", trained, facts[:4], prefixes, given, **repairing(1e6))
    published = deltas_of("jeep", trained, facts[:4], prefixes, given)
    alike(repaired, published)


@pytest.mark.parametrize("together", [True, False])
def test_where_all_is_settled_the_high_region_stays_as_it_is(together, trained, facts, prefixes, given):
    known = [replace(fact, target_new=fact.target_true) for fact in facts[:3]]
    deltas = deltas_of("jeep", trained, known, prefixes, given, **repairing(0, together=together))
    assert set(deltas) == {trained.parameter_name(layer) for layer in SETTINGS["jeep"]["low"]["layers"]}


def test_a_low_region_as_memits_that_settles_all_is_memit(trained, facts, prefixes, given):
    memit = SETTINGS["memit"]
    settings = {"optimization": memit["optimization"], "low": memit["region"], "together": False}
    repaired = deltas_of("jeep", trained, facts[:3], prefixes, given, **repairing(0, **settings))
    alone = deltas_of("memit", trained, facts[:3], prefixes, given)
    assert all(delta.norm() > 1e-2 * trained.weight(name).norm() for name, delta in alone.items()), "an edit"
    alike(repaired, alone)


def test_a_repair_writes_what_the_low_region_has_left_and_keeps_the_keys_of_the_rest(trained, facts, prefixes, given):
    """The settled facts by hand; the high region's change is of their keys with residuals of zero."""
    chosen, settings = facts[:6], {"low": SETTINGS["jeep"]["low"] | {"prior": 100.0}}
    low = low_alone(trained, chosen, prefixes, given, **settings)
    with trained.edited(low):
        margins = answer_margins(trained, chosen, prefixes, 2048)
        margin = float(margins.max().clamp(min=0)) / 2
        settled = {fact.case_id for fact, lead in zip(chosen, margins, strict=True) if lead > margin}
        assert 0 < len(settled) < len(chosen), "else the test shows nothing"
        editor = jeep(**settings)
    targets = optimize_facts(trained, chosen, prefixes, editor.target_spec, 2048)
    with trained.edited(low):
        task = Task(chosen, prefixes, 2048, targets, given.covariance, settled=frozenset(settled))
        expected = editor.written_at(trained, task, editor.placements[1:])
    ours = deltas_of("jeep", trained, chosen, prefixes, given, **repairing(margin, **settings))
    alike(ours, low | expected)


def test_step_by_step_optimises_only_what_is_left(trained, facts, prefixes, given, monkeypatch):
    known = [replace(fact, target_new=fact.target_true) for fact in facts[:2]]
    weak = {"low": SETTINGS["jeep"]["low"] | {"clamp": 1e-3}}
    asked = []
    original = targets_module.optimize

    def sees(model, requests, sites, *rest):
        asked.append((sites[0].position, [request.case_id for request in requests]))
        return original(model, requests, sites, *rest)

    monkeypatch.setattr(targets_module, "optimize", sees)
    chosen = [known[0], *facts[4:6], known[1]]
    deltas = deltas_of("jeep", trained, chosen, prefixes, given, **repairing(0, together=False, **weak))
    left = [fact.case_id for fact in facts[4:6]]
    assert asked == [("subject_last", [fact.case_id for fact in chosen]), ("prediction", left)]
    before = answer_margins(trained, chosen, ["{}"], 2048)
    with trained.edited(deltas):
        after = answer_margins(trained, chosen, ["{}"], 2048)
    assert ((after - before)[1:3] > 1).all()
    assert (after[[0, 3]] > 0).all(), "what was right stays right"


def test_what_the_high_region_cannot_promote_is_named(trained, facts, prefixes, given, monkeypatch):
    """Its δ* leaves the finite numbers: the low region has written it, the high one has not."""
    optimize = targets_module.optimize_facts

    def breaks(model, chosen, prefixes, spec, budget):
        found = optimize(model, chosen, prefixes, spec, budget)
        nan = replace(found[1], values=found[1].values * float("nan"))
        return [found[0], nan, *found[2:]] if spec.sites[0].position == "prediction" else found

    editor = jeep(together=False)
    vectors = optimize(trained, facts[:3], prefixes, editor.target_spec, 2048)
    monkeypatch.setattr(targets_module, "optimize_facts", breaks)
    task = Task(facts[:3], prefixes, 2048, vectors, given.covariance)
    deltas = editor.edit(trained, task)
    assert task.unwritten == [facts[1].case_id]
    assert len(deltas) == len(editor.covariances)


def test_a_repair_needs_a_margin_that_is_not_negative():
    with pytest.raises(ValueError, match="repair"):
        jeep(**repairing(-1.0))

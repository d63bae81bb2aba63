"""Every editor on tiny models that know a few facts, of both block types."""

import copy
import math
from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from accelerate import cpu_offload
from editing import LOW, SETTINGS, deltas_of
from tiny import KINDS, random_network

from jeep.editors import EDITORS, load_editor
from jeep.editors.rome import Rome
from jeep.measure.evaluate import evaluate
from jeep.model import progress
from jeep.model.editable import EditableModel
from jeep.vectors import targets
from jeep.vectors.targets import optimize_facts
from jeep.vectors.task import Task
from jeep.writing.regions import write_regions
from jeep.writing.walk import LayerWalk, prompts_of


def test_every_editor_is_tested():
    assert set(SETTINGS) == set(EDITORS)


LOCATE_THEN_EDIT = ("alphaedit", "jeep", "memit", "pmet", "rome")


@pytest.mark.parametrize("name", LOCATE_THEN_EDIT)
def test_one_edit_changes_the_answer_and_keeps_the_others(name, trained, facts, prefixes, given):
    fact, others = facts[9:10], facts[:9] + facts[10:]
    before = {key: value.clone() for key, value in trained.network.state_dict().items()}
    deltas = deltas_of(name, trained, fact, prefixes, given)
    assert all(torch.equal(before[key], value) for key, value in trained.network.state_dict().items())
    with trained.scratch(list(deltas)):
        trained.add_(deltas)
        edited = evaluate(trained, fact, "counterfact", 500).groupby("metric")["value"].mean()
        kept = evaluate(trained, others, "counterfact", 500)
    assert edited["ES"] == edited["GS"] == 1
    wrong = kept[kept.metric == "ES"]["value"].sum()
    assert wrong <= 2, "of fifteen other cities, nearly all keep their country"


@pytest.mark.parametrize("name", [*LOCATE_THEN_EDIT, "ft_wd", "ultraedit"])
def test_many_edits_at_once(name, trained, facts, prefixes, given):
    deltas = deltas_of(name, trained, facts[::3], prefixes, given)
    with trained.scratch(list(deltas)):
        trained.add_(deltas)
        results = evaluate(trained, facts[::3], "counterfact", 500).groupby("metric")["value"].mean()
    assert results["ES"] > 0.8


@pytest.mark.parametrize("name", ["jeep", "memit", "pmet", "ft_wd", "ultraedit"])
def test_the_release_preset_runs_and_differs(name, trained, facts, prefixes, given):
    settings = {"weight_decay": "power_law"} if name == "ft_wd" else {}
    paper = deltas_of(name, trained, facts[:2], prefixes, given, **settings)
    release = deltas_of(name, trained, facts[:2], prefixes, given, **settings, preset="release")
    assert paper.keys() == release.keys()
    assert any(not torch.allclose(paper[key], release[key]) for key in paper)


@pytest.mark.parametrize("name", [name for name in LOCATE_THEN_EDIT if name != "alphaedit"])  # too weak for two facts
def test_a_model_whose_weights_are_offloaded_is_edited_alike(name, trained, facts, prefixes, given):
    network = cpu_offload(copy.deepcopy(trained.network), torch.device("cpu"))
    model = EditableModel(network, trained.tokenizer)
    assert model.projection(1).weight.is_meta
    deltas = deltas_of(name, model, facts[:2], prefixes, given)
    torch.testing.assert_close(deltas, deltas_of(name, trained, facts[:2], prefixes, given))
    with model.scratch(list(deltas)):
        model.add_(deltas)
        assert evaluate(model, facts[:2], "counterfact", 500).groupby("metric")["value"].mean()["ES"] == 1


@pytest.mark.parametrize("name", EDITORS)
def test_the_same_edit_twice_is_the_same_to_the_bit(name, trained, facts, prefixes, given):
    one, two = (deltas_of(name, trained, facts[:3], prefixes, given) for _ in range(2))
    assert all(torch.equal(one[key], two[key]) for key in one)


# Where the methods optimise and write: the paper's §4 and Appendix D, by hand


def test_rome_maps_the_bare_key_to_its_vector(trained, facts, prefixes, given):
    """W̃ k₀ = v for one edit, and Δ has rank one."""
    editor = load_editor("rome", SETTINGS["rome"])
    (target,) = optimize_facts(trained, facts[:1], prefixes, editor.spec, 2048)
    (delta,) = deltas_of("rome", trained, facts[:1], prefixes, given).values()
    walk = LayerWalk(trained, prompts_of(trained, facts[:1], prefixes[:1], "subject_last"), 2048)
    walk.advance(editor.layer)
    (key,) = walk.keys("subject_last").T
    change = trained.as_stored(editor.layer, delta) @ key
    torch.testing.assert_close(change, target.values[0] - target.states[0], rtol=1e-3, atol=1e-4)
    assert torch.linalg.matrix_rank(delta, rtol=1e-4) == 1


def dies_at(number, monkeypatch) -> list[str]:
    """ROME dies at so many facts, each of which leaves a checkpoint; returns the facts that it was asked for."""
    original, asked = Rome._change, []

    def dies(self, model, fact, *rest):
        asked.append(fact.case_id)
        if len(asked) == number:
            raise KeyboardInterrupt
        return original(self, model, fact, *rest)

    monkeypatch.setattr(Rome, "_change", dies)
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    monkeypatch.setattr(progress, "SHARE", math.inf)
    return asked


def test_a_killed_run_of_rome_goes_on_from_its_checkpoint(trained, facts, prefixes, given, tmp_path, monkeypatch):
    editor = load_editor("rome", SETTINGS["rome"])
    task = Task(facts[:4], prefixes, 2048, covariance=given.covariance, checkpoint=tmp_path / "checkpoint.safetensors")
    whole = editor.edit(trained, replace(task, checkpoint=None))
    asked = dies_at(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        editor.edit(trained, task)
    resumed = editor.edit(trained, task)
    assert asked == ["city-0", "city-1", "city-2", "city-2", "city-3"]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_what_rome_has_not_written_is_named_for_every_number_and_after_a_kill(
    trained, facts, prefixes, given, tmp_path, monkeypatch
):
    """The second fact's vector leaves the finite numbers; the run dies at the fourth."""
    editor = load_editor("rome", SETTINGS["rome"])
    optimize = targets.optimize_facts

    def breaks(model, chosen, *rest):
        (found,) = optimize(model, chosen, *rest)
        return [replace(found, values=found.values * math.nan) if found.case_id == "city-1" else found]

    monkeypatch.setattr(targets, "optimize_facts", breaks)
    task = Task(facts[:4], prefixes, 2048, covariance=given.covariance, checkpoint=tmp_path / "checkpoint.safetensors")
    tasks = [task.of_first(count, None) for count in (1, 3, 4)]
    dies_at(4, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        list(editor.edits(trained, tasks))
    again = [replace(each, unwritten=[]) for each in tasks]
    found = list(editor.edits(trained, again))
    assert [each.unwritten for each in again] == [[], ["city-1"], ["city-1"]]
    without = replace(task, facts=[facts[0], facts[2]], checkpoint=None)
    for name, delta in editor.edit(trained, without).items():
        torch.testing.assert_close(found[1][name], delta)


@pytest.mark.parametrize("name", ["rome", "memit"])
def test_several_numbers_of_edits_are_those_edits_alone(name, trained, facts, prefixes, given, tmp_path, monkeypatch):
    """ROME makes one pass for them, which goes on where it was killed; the model is its own between them."""
    editor = load_editor(name, SETTINGS[name])
    spec = editor.target_spec
    vectors = {t.case_id: t for t in optimize_facts(trained, facts[:5], prefixes, spec, 2048)} if spec else None
    path = tmp_path / "checkpoint.safetensors"
    task = Task(facts[:5], prefixes, 2048, covariance=given.covariance, checkpoint=path)
    tasks = [task.of_first(count, vectors) for count in (1, 3, 5)]
    alone = [editor.edit(trained, replace(each, checkpoint=None, trace=[])) for each in tasks]
    asked, before = dies_at(5, monkeypatch), trained.weight(trained.parameter_name(1)).clone()
    found = []
    with suppress(KeyboardInterrupt):
        for deltas in editor.edits(trained, tasks):
            found.append(deltas)
            assert torch.equal(trained.weight(trained.parameter_name(1)), before)
    if name == "rome":
        assert len(found) == 2
        found = list(editor.edits(trained, tasks))
        assert asked == ["city-0", "city-1", "city-2", "city-3", "city-4", "city-4"]
    for each, expected in zip(found, alone, strict=True):
        assert all(torch.equal(each[key], expected[key]) for key in expected)
    if spec:
        assert [len(each.trace) for each in tasks] == [2, 2, 2]


def test_a_checkpoint_of_rome_serves_the_numbers_that_it_has_and_nothing_else(
    trained, facts, prefixes, given, tmp_path, monkeypatch
):
    """Killed at the third fact, it holds the first two; what one alone has done is gone where it was not asked for."""
    editor = load_editor("rome", SETTINGS["rome"])
    task = Task(facts[:3], prefixes, 2048, covariance=given.covariance, checkpoint=tmp_path / "checkpoint.safetensors")
    alone = {count: editor.edit(trained, replace(task.of_first(count, None), checkpoint=None)) for count in (1, 3)}
    asked = dies_at(3, monkeypatch)

    def asked_for_after(killed, again, editor=editor, **changed):
        asked.clear()
        with pytest.raises(KeyboardInterrupt):
            list(load_editor("rome", SETTINGS["rome"]).edits(trained, [task.of_first(n, None) for n in killed]))
        found = list(editor.edits(trained, [replace(task.of_first(n, None), **changed) for n in again]))
        task.checkpoint.unlink()
        if not changed and editor.clamp == 4.0:
            for count, deltas in zip(again, found, strict=True):
                assert all(torch.equal(deltas[key], alone[count][key]) for key in deltas)
        return asked[3:]

    assert asked_for_after((1, 2, 3), (1, 3)) == ["city-2"]
    assert asked_for_after((2, 3), (1, 3)) == ["city-0", "city-1", "city-2"]
    other = load_editor("rome", SETTINGS["rome"] | {"clamp": 0.5})
    assert asked_for_after((3,), (1,), editor=other) == ["city-0"]
    assert asked_for_after((3,), (1,), facts=facts[3:4]) == ["city-3"]
    assert asked_for_after((3,), (1,), prefixes=prefixes[:1]) == ["city-0"]


@pytest.mark.parametrize(("preset", "pool"), [("paper", "mean"), ("release", "half_bare")])
def test_the_preset_decides_how_keys_are_pooled(preset, pool, trained, facts, prefixes, given):
    """MEMIT's presets differ in nothing else."""
    editor = load_editor("memit", SETTINGS["memit"] | {"preset": preset})
    targets = optimize_facts(trained, facts[:3], prefixes, editor.target_spec, 2048)
    task = Task(facts[:3], prefixes, 2048, targets, given.covariance)
    changes = editor.edit(trained, task)
    (opposite,) = {"mean", "half_bare"} - {pool}
    expected, other = (write_regions(trained, task, editor.placements, pool=kind) for kind in (pool, opposite))
    for name, change in changes.items():
        assert torch.equal(change, expected[name])
        assert not torch.allclose(change, other[name], rtol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("architecture", [*KINDS, "gemma2"])
def test_every_editor_edits_every_architecture(architecture, dtype, byte_level, facts, prefixes):
    """Deltas have their parameter's shape, are finite, and the model is as it was, in both precisions."""
    model = EditableModel(random_network(architecture, dtype), byte_level)
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    places = [(layer, place) for layer in range(4) for place in ("mlp", "attention")]
    covariance = {place: torch.eye(model.inputs(*place)) for place in places}
    short = {"steps": 2, "epochs": 1}
    for name, settings in SETTINGS.items():
        parts = {
            key: part | {field: value for field, value in short.items() if field in part}
            for key, part in settings.items()
            if isinstance(part, dict)
        }
        editor = load_editor(name, settings | parts | ({"epochs": 2} if name == "ft_wd" else {}))
        network = editor.train(model, facts[4:8], 0, 512)[0] if editor.trained else {}
        targets = optimize_facts(model, facts[:2], prefixes, editor.target_spec, 512) if editor.target_spec else []
        deltas = editor.edit(model, Task(facts[:2], prefixes, 512, targets, covariance, network))
        for key, delta in deltas.items():
            assert delta.shape == before[key].shape, name
            assert torch.isfinite(delta).all(), name
        assert any(delta.abs().max() > 0 for delta in deltas.values()), name
    assert all(torch.equal(before[key], value) for key, value in model.network.state_dict().items())


@pytest.mark.parametrize("architecture", ["llama", "bloom", "falcon"])
def test_the_topmost_block_can_be_edited(architecture, byte_level, facts, prefixes):
    """Nothing stands above it: no block runs behind its target vectors."""
    model = EditableModel(random_network(architecture), byte_level)
    settings = {"optimization": {"steps": 2}, "region": {**LOW, "layers": [3], "spread": "even"}}
    covariance = {(3, "mlp"): torch.eye(model.inputs(3))}
    editor = load_editor("memit", settings)
    targets = optimize_facts(model, facts[:2], prefixes, editor.target_spec, 512)
    (delta,) = editor.edit(model, Task(facts[:2], prefixes, 512, targets, covariance)).values()
    assert delta.abs().max() > 0

"""Batches one after another: against a plain loop, killed anywhere, and what happens to a model that breaks down."""

import logging
from dataclasses import replace

import pandas as pd
import pytest
import torch
from editing import SETTINGS

from jeep.common.errors import UserError
from jeep.editors import load_editor
from jeep.measure.drift import drift, summarize_drift, unedited
from jeep.measure.evaluate import evaluate
from jeep.runs import sequence
from jeep.runs.kept import Kept
from jeep.runs.sequence import SequenceRun
from jeep.vectors.targets import optimize_facts
from jeep.vectors.task import Task

BATCHES = {"size": 2, "every": 2}


@pytest.fixture
def run_of(trained, facts, prefixes, given, tmp_path):
    """A run over the first five facts: batches of 2, 2 and 1, measured behind each."""

    def make(method, folder="run", mark="a", chosen=facts[:5], **options):
        network = given.network(method) if method in SETTINGS else {}
        task = Task([], prefixes, 2048, covariance=given.covariance, hypernetwork=network)
        editor = options.pop("editor", None) or (method and load_editor(method, SETTINGS[method]))
        where, windows = tmp_path / folder, options.pop("windows", ())
        return SequenceRun(
            trained,
            editor,
            chosen,
            task=task,
            metrics="counterfact",
            windows=windows,
            kept=Kept(where, mark),
            **BATCHES | options,
        )

    return make


def seq(name="memit", **region):
    return load_editor(name, SETTINGS[name] | {"region": SETTINGS[name]["region"] | region})


def plain_loop(model, editor, facts, prefixes, covariance):
    """Weights after each batch of two; the model keeps them until it is given back."""
    memory, names = {}, [model.parameter_name(layer) for layer in (0, 1)]
    weights = []
    with model.scratch(names):
        for first in range(0, len(facts), 2):
            batch = facts[first : first + 2]
            targets = optimize_facts(model, batch, prefixes, editor.target_spec, 2048)
            task = Task(batch, prefixes, 2048, targets, covariance, memory=memory)
            model.add_(editor.edit(model, task))
            memory = editor.remember(model, task)
            weights.append({name: model.weight(name).clone() for name in names})
    return weights


@pytest.mark.parametrize("history", [False, True])
def test_a_sequence_is_a_plain_loop_over_batches(history, run_of, trained, facts, prefixes, covariance):
    """Nothing of the base model is measured again: targets, keys and residuals are of the model as it is by then."""
    editor = seq(history=history)
    before = {name: trained.weight(name).clone() for name in trained.network.state_dict()}
    results, trace, total = run_of("memit", editor=editor).run()
    assert all(torch.equal(value, trained.weight(name)) for name, value in before.items())
    expected = plain_loop(trained, editor, facts[:5], prefixes, covariance)
    for name, weight in expected[-1].items():
        assert torch.equal(before[name] + total[name], weight) or torch.allclose(before[name] + total[name], weight)
        change = (weight - before[name]).norm() / before[name].norm()
        assert trace[-1]["relative_change"][name] == pytest.approx(float(change), rel=1e-4)
    assert list(results) == [2, 4, 5]
    for count, weights in zip((2, 4, 5), expected, strict=True):
        with trained.scratch(list(weights)):
            for name, weight in weights.items():
                trained.weight(name).copy_(weight)
            plain = evaluate(trained, facts[:count], "counterfact", 2048)
        pd.testing.assert_frame_equal(results[count].drop(columns="batch"), plain)
    batches = results[5].groupby("case_id")["batch"].first().to_dict()
    assert batches == {"city-0": 1, "city-1": 1, "city-2": 2, "city-3": 2, "city-4": 3}
    assert [(note["batch"], note["facts"], note["left_out"]) for note in trace] == [(1, 2, []), (2, 2, []), (3, 1, [])]
    assert [step["layer"] for step in trace[0]["layers"]] == [0, 1]


def test_history_changes_the_second_batch_and_not_the_first(run_of, trained):
    with_history, without = (run_of("memit", str(h), editor=seq(history=h)).run() for h in (True, False))
    name = trained.parameter_name(0)
    changes = [[note["relative_change"][name] for note in each[1]] for each in (with_history, without)]
    assert changes[0][0] == changes[1][0]
    assert changes[0][1] != changes[1][1]


class Killed(BaseException):
    """As SIGKILL: nothing of the package catches it."""


POINTS = {
    "in the targets of the second batch": ("optimize_shard", 2),
    "before the second batch is written": ("finite", 2),
    "before its state is kept": ("Kept.finish_batch", 2),
    "before it is measured": ("evaluate", 2),
    "in the last batch": ("finite", 3),
    "before the last measure": ("evaluate", 3),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_run_that_is_killed_goes_on_to_the_same(point, run_of, monkeypatch, trained):
    """And what was done is not done again."""
    editor = seq(history=True)
    results, trace, total = run_of("memit", "whole", editor=editor).run()
    name, number = POINTS[point]
    owner, name = (Kept, name.removeprefix("Kept.")) if name.startswith("Kept.") else (sequence, name)
    plain, calls = getattr(owner, name), []

    def dies(*args, **options):
        calls.append(name)
        if len(calls) == number:
            raise Killed
        return plain(*args, **options)

    before = trained.weight(trained.parameter_name(0)).clone()
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, dies)
        with pytest.raises(Killed):
            run_of("memit", "killed", editor=editor).run()
    assert torch.equal(before, trained.weight(trained.parameter_name(0)))
    edits = []
    edit = type(editor).edit
    monkeypatch.setattr(type(editor), "edit", lambda *args: edits.append(len(args[2].facts)) or edit(*args))
    again, trace_again, total_again = run_of("memit", "killed", editor=editor).run()
    assert len(edits) == {"in the last batch": 1, "before the last measure": 0, "before it is measured": 1}.get(
        point, 2
    )
    for count, found in results.items():
        pd.testing.assert_frame_equal(found, again[count])
    assert all(torch.equal(total[key], total_again[key]) for key in total)
    assert [{**note, "seconds": 0} for note in trace] == [{**note, "seconds": 0} for note in trace_again]


def test_half_finished_targets_of_a_batch_are_kept(run_of, monkeypatch, tmp_path):
    """Killed inside the first batch, when one of its two facts has its target vector."""
    from jeep.vectors import files

    written = []
    plain = files._write

    def dies(*args, **options):
        plain(*args, **options)
        written.append(args[1])
        raise Killed

    run = run_of("memit", editor=seq())
    small = replace(run, task=replace(run.task, token_budget=1))
    with monkeypatch.context() as patched:
        patched.setattr(files, "_write", dies)
        with pytest.raises(Killed):
            small.run()
    assert [path.is_file() for path in written] == [True]
    done = []
    optimize = files.optimize
    monkeypatch.setattr(
        files, "optimize", lambda model, todo, *rest: done.append(len(todo)) or optimize(model, todo, *rest)
    )
    small.run()
    assert done == [1, 2, 1]


def test_another_mark_begins_anew_and_a_finished_run_is_cleared_away(run_of, tmp_path, monkeypatch):
    first = run_of("memit", mark="a", editor=seq())
    results = first.run()[0]
    assert (tmp_path / "run" / "state.safetensors").is_file()
    other = run_of("memit", mark="b", editor=seq(clamp=0.01))
    assert not other.run()[0][5].equals(results[5])
    other.kept.clear()
    assert not (tmp_path / "run").exists()


def test_the_unedited_model_is_measured_alike(run_of, trained, facts):
    results, trace, total = run_of(None).run()
    assert list(results) == [2, 4, 5]
    pd.testing.assert_frame_equal(results[4].drop(columns="batch"), evaluate(trained, facts[:4], "counterfact", 2048))
    assert total == {}
    assert [note["batch"] for note in trace] == [1, 2, 3]
    assert list(run_of(None, "rarely", every=3).run()[0]) == [2, 5], "the second batch is not measured"


def test_prune_is_made_of_all_batches_where_they_are_measured_alone(run_of, trained, facts):
    """Its batches are those of the method without it; what is measured is W₀ + f(ΔW)."""
    plain, pruned = (
        seq(clamp=20.0),
        seq(clamp=20.0).model_copy(
            update={
                "postprocess": load_editor(
                    "memit", SETTINGS["memit"] | {"postprocess": {"kind": "prune", "base": "linear"}}
                ).postprocess
            }
        ),
    )
    _, trace, total = run_of("memit", "plain", editor=plain).run()
    results, trace_pruned, total_pruned = run_of("memit", "pruned", editor=pruned).run()
    for plain_note, note in zip(trace, trace_pruned, strict=True):
        *layers, told = note["layers"]
        assert layers == plain_note["layers"]
        assert told["postprocess"] == "prune"
    assert told["norm_after"] < told["norm_before"]
    name = trained.parameter_name(0)
    singular = torch.linalg.svdvals(total[name]).max(), torch.linalg.svdvals(trained.weight(name)).max()
    assert singular[0] > singular[1], "there is something to prune"
    assert torch.linalg.svdvals(total_pruned[name]).max() < singular[0]
    assert trace_pruned[-1]["relative_change"][name] < trace[-1]["relative_change"][name], "as it is measured"
    with trained.edited(total_pruned):
        expected = evaluate(trained, facts[:5], "counterfact", 2048)
    found = results[5].drop(columns="batch")
    pd.testing.assert_series_equal(found["value"], expected["value"])


def test_a_batch_that_is_not_finite_is_not_written_and_the_sequence_goes_on(run_of, monkeypatch, caplog, trained):
    editor = seq()
    edit, calls = type(editor).edit, []

    def breaks(self, model, task):
        calls.append(task)
        deltas = edit(self, model, task)
        return {name: delta * torch.nan for name, delta in deltas.items()} if len(calls) == 2 else deltas

    monkeypatch.setattr(type(editor), "edit", breaks)
    with caplog.at_level(logging.WARNING):
        results, trace, _ = run_of("memit", editor=editor).run()
    assert "batch 2 is not written: the change of" in caplog.text
    assert [len(note["left_out"]) for note in trace] == [0, 2, 0]
    assert "is not finite" in trace[1]["failure"]
    assert trace[0]["relative_change"] == trace[1]["relative_change"] != trace[2]["relative_change"]
    assert results[5]["value"].notna().all()


def test_what_is_no_breakdown_of_the_model_ends_the_run(run_of, monkeypatch):
    """A full disk, or settings that cannot be: a row of the method's name must not show the unedited model."""
    with pytest.raises(UserError, match="no eigenvalue of this covariance is below"):
        run_of("memit", "space", editor=seq(null_space={"threshold": 1e-12})).run()
    editor = seq(history=True)
    results = run_of("memit", "whole", editor=editor).run()[0]

    def full(*_, **__):
        raise UserError("cannot be written (No space left on device)")

    with monkeypatch.context() as patched:
        patched.setattr(sequence, "optimize_shard", full)
        with pytest.raises(UserError, match="No space left"):
            run_of("memit", "full", editor=editor).run()
    pd.testing.assert_frame_equal(run_of("memit", "full", editor=editor).run()[0][5], results[5])


@pytest.mark.parametrize("name", ["memit", "ft_wd", "ultraedit", "rome"])
def test_a_model_that_has_broken_down_is_measured_as_it_is(name, run_of, monkeypatch):
    """The first batch's change is finite, and far too large: what comes behind it is NaN, and wrong."""
    editor = load_editor(name, SETTINGS[name])
    deltas, calls = type(editor).deltas, []

    def breaks(self, model, task):
        calls.append(len(task.facts))
        found = deltas(self, model, task)
        return {key: delta + 1e38 for key, delta in found.items()} if len(calls) == 1 else found

    monkeypatch.setattr(type(editor), "deltas", breaks)
    results, trace, _ = run_of(name, editor=editor).run()
    assert results[5]["value"].max() == 0
    assert [len(note["left_out"]) for note in trace] == [0, 2, 1]


def test_facts_that_are_edited_twice_are_counted(run_of, facts, caplog):
    with caplog.at_level(logging.WARNING):
        run_of(None, chosen=[*facts[:3], replace(facts[0], case_id="again")]).run()
    assert "1 of 4 facts of the sequence are edited more than once" in caplog.text


@pytest.mark.parametrize("name", ["jeep", "ft_wd", "rome", "malmen", "alphaedit"])
def test_any_editor_is_run_in_a_sequence(name, run_of):
    results, trace, total = run_of(name).run()
    assert total
    assert all(float(delta.norm()) > 0 for delta in total.values())
    first = list(trace[0]["relative_change"].values())
    assert sum(trace[-1]["relative_change"].values()) > sum(first)
    efficacy = results[5].query("metric == 'ES'")
    assert set(efficacy["batch"]) == {1, 2, 3}


WINDOWS = [(7, 3, 11, 5, 2, 9), (4, 8, 1, 12, 6, 30)]


def test_drift_is_that_of_the_model_as_each_measured_batch_left_it(run_of, trained):
    """Against the change of all batches so far, which the run of those batches alone gives."""
    reference = unedited(trained, WINDOWS, 100)
    _, trace, total = run_of("memit", windows=WINDOWS).run()
    assert [("drift" in note) for note in trace] == [True, True, True]
    with trained.edited(total):
        expected = summarize_drift(drift(trained, reference, 100))
    assert trace[-1]["drift"]["kl"] == pytest.approx(expected["kl"], rel=1e-3)
    assert 0 < trace[1]["drift"]["kl"] != trace[-1]["drift"]["kl"]


def test_drift_of_a_killed_run_is_kept(run_of, monkeypatch):
    """Where all of it is, the unedited model is not asked again."""
    run = run_of("memit", windows=WINDOWS)
    run.run()
    path = run.kept.drift(4)
    path.write_text(path.read_text().replace('"tokens": 10', '"tokens": 11'))
    monkeypatch.setattr(sequence, "unedited", lambda *_: pytest.fail("the text was run once more"))
    _, again, _ = run_of("memit", windows=WINDOWS).run()
    assert [note["drift"]["tokens"] for note in again if "drift" in note] == [10, 11, 10]


def test_a_model_that_answers_nan_has_no_drift(run_of, trained, monkeypatch):
    name = trained.parameter_name(0)
    huge = {name: torch.full_like(trained.weight(name), float("inf"))}
    monkeypatch.setattr("jeep.runs.sequence.finite", lambda _: huge)
    _, trace, _ = run_of("memit", windows=WINDOWS).run()
    assert trace[-1]["drift"] == {"kl": None, "kl_ci95": None, "ratio": None}

"""Edits of several numbers of facts, measured: what a killed run keeps, and what it makes anew."""

import time
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from jeep.common.errors import UserError
from jeep.measure.evaluate import evaluate
from jeep.model.files import read_of
from jeep.runs import at_once
from jeep.runs.at_once import Run, finite, write_records
from jeep.vectors.targets import Target
from jeep.vectors.task import Task


class Method:
    """Adds to a weight the number of facts; dies where it is told to."""

    one_pass = False

    def __init__(self, name, dies_at=None):
        self.name, self.dies_at, self.made, self.checkpoints = name, dies_at, [], []

    def edits(self, model, tasks):
        for task in tasks:
            count = len(task.facts)
            if count == self.dies_at:
                raise KeyboardInterrupt
            self.made.append(count)
            self.checkpoints.append(task.checkpoint)
            task.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            task.trace.append(count)
            time.sleep(0.01)
            yield {self.name: torch.full_like(model.weight(self.name), 0.01 * count)}


@pytest.fixture
def run(trained, facts, tmp_path):
    task = Task(facts[:5], ("{}",), 512)

    def make(method, counts=(1, 3, 5), metrics="counterfact", mark="a", publish=True):
        tasks = {count: task.of_first(count, None) for count in counts}
        made = Run(trained, method, facts[:5], tasks, metrics, tmp_path / "out", {"editor": "e"}, mark)
        result = made.make()
        if publish:
            made.publish()
        return result

    return make


def test_every_number_is_made_and_measured(run, trained, facts, tmp_path):
    name = trained.parameter_name(1)
    before = trained.weight(name).clone()
    results, seconds = run(Method(name))
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "1.safetensors",
        "3.safetensors",
        "5.safetensors",
        "out",
    ]
    assert {count: set(each.case_id) for count, each in results.items()} == {
        count: {fact.case_id for fact in facts[:count]} for count in (1, 3, 5)
    }
    deltas, about = read_of(trained.identity, tmp_path / "out/3.safetensors")
    assert torch.equal(deltas[name], torch.full_like(before, 0.03))
    assert about == {"model": trained.identity, "editor": "e", "edits": 3, "left_out": [], "trace": [3]}
    assert all(0.01 <= each < 1 for each in seconds.values())
    assert torch.equal(trained.weight(name), before)
    with trained.edited(deltas):
        pd.testing.assert_frame_equal(results[3], evaluate(trained, facts[:3], "counterfact", 512))


def test_every_number_keeps_its_own_checkpoint_and_none_is_left(run, trained):
    method = Method(trained.parameter_name(1))
    run(method)
    assert [path.name for path in method.checkpoints] == [f"{count}.progress.safetensors" for count in (1, 3, 5)]
    assert not any(path.parent.exists() for path in method.checkpoints)


def test_all_numbers_are_written_to_one_file_under_the_name_of_the_run(tmp_path):
    results = [(count, pd.DataFrame({"case_id": ["a", "b"], "value": [0.5, count]}, index=[7, 8])) for count in (1, 3)]
    write_records(tmp_path / "named.parquet", results, {"method": "rome", "seed": 0})
    found = pd.read_parquet(tmp_path / "named.parquet")
    assert list(found.columns) == ["case_id", "value", "edits", "method", "seed"]
    assert found.to_numpy().tolist() == [
        ["a", 0.5, 1, "rome", 0],
        ["b", 1.0, 1, "rome", 0],
        ["a", 0.5, 3, "rome", 0],
        ["b", 3.0, 3, "rome", 0],
    ]
    assert list(found.index) == [0, 1, 2, 3]
    write_records(tmp_path / "unnamed.parquet", results, None)
    assert list(pd.read_parquet(tmp_path / "unnamed.parquet").columns) == ["case_id", "value", "edits"]


def test_a_killed_one_makes_what_it_had_not_finished(run, trained, tmp_path):
    name = trained.parameter_name(1)
    whole, _ = run(Method(name))
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(KeyboardInterrupt):
        run(Method(name, dies_at=5))
    again = Method(name)
    results, seconds = run(again)
    assert again.made == [5]
    assert seconds.keys() == {1, 3, 5}
    for count, each in whole.items():
        pd.testing.assert_frame_equal(each, results[count])
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}


def test_until_what_was_found_is_written_no_edit_is_lost(run, trained, tmp_path):
    """As where the disk is full when the results are written; and where one was killed as it moved the edits."""
    found, _ = run(Method(trained.parameter_name(1)), publish=False)
    assert not (tmp_path / "out").exists()
    (tmp_path / ".out.partial/3.safetensors").unlink()
    again = Method(trained.parameter_name(1))
    results, _ = run(again)
    assert again.made == [3]
    pd.testing.assert_frame_equal(results[5], found[5])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{n}.safetensors" for n in (1, 3, 5)]


def test_what_depends_on_something_else_is_made_anew(run, trained):
    name = trained.parameter_name(1)
    with pytest.raises(KeyboardInterrupt):
        run(Method(name, dies_at=3))
    again = Method(name)
    run(again, mark="b")
    assert again.made == [1, 3, 5]


def test_one_pass_takes_the_seconds_from_its_beginning(run, trained):
    method = Method(trained.parameter_name(1))
    method.one_pass = True
    _, seconds = run(method)
    assert seconds[1] < seconds[3] < seconds[5]


@pytest.mark.parametrize(("one_pass", "expected"), [(False, {1: 10, 3: 30, 5: 50}), (True, {1: 10, 3: 40, 5: 90})])
def test_the_seconds_of_a_killed_run_are_those_of_a_whole_one(one_pass, expected, run, trained, monkeypatch):
    """By a clock that only edits move, ten seconds for a fact: alone, or on top of those that came before."""
    now = [1000.0]
    monkeypatch.setattr(at_once, "time", SimpleNamespace(monotonic=lambda: now[0]))

    class Clocked(Method):
        def edits(self, model, tasks):
            for task, deltas in zip(tasks, super().edits(model, tasks), strict=False):
                now[0] += 10 * len(task.facts)
                yield deltas

    def method(**settings):
        made = Clocked(trained.parameter_name(1), **settings)
        made.one_pass = one_pass
        return made

    with pytest.raises(KeyboardInterrupt):
        run(method(dies_at=5))
    assert run(method())[1] == expected


def test_unmeasured_and_not_finite(run, trained, monkeypatch, tmp_path):
    method = Method(trained.parameter_name(1))
    assert run(method, metrics=None)[0] == {}
    monkeypatch.setattr(Method, "edits", lambda self, model, tasks: iter([{self.name: torch.tensor(torch.inf)}]))
    (tmp_path / "out").rename(tmp_path / "before")
    with pytest.raises(UserError, match="is not finite: float32 may help"):
        run(method)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=r"^the change of a, c is not finite: float32 may help$"):
        finite({"a": torch.tensor(torch.nan), "b": torch.tensor(1.0), "c": torch.tensor(-torch.inf)})


def test_facts_that_have_all_lost_their_targets_leave_the_model_alone(trained, facts, tmp_path):
    tasks = {1: Task([], ("{}",), 512), 3: Task(facts[1:3], ("{}",), 512)}
    method = Method(trained.parameter_name(1))
    run = Run(trained, method, facts[:3], tasks, "counterfact", tmp_path / "out", {}, "a")
    results, _ = run.make()
    run.publish()
    assert read_of(trained.identity, tmp_path / "out/1.safetensors")[0] == {}
    assert read_of(trained.identity, tmp_path / "out/3.safetensors")[1]["left_out"] == [facts[0].case_id]
    assert set(results[1].case_id) == {facts[0].case_id}


def test_a_task_of_the_first_facts_has_those_with_a_target_and_names_the_others(facts, caplog):
    task = Task(facts[:3], ("{}",), 512, trace=[{"layer": 0}])
    vectors = {fact.case_id: Target(fact.case_id, torch.zeros(1, 4), torch.zeros(1, 4), [], []) for fact in facts[2:3]}
    few = "no fact has a target vector that stayed finite: a smaller learning rate, or float32, may help"
    with pytest.raises(UserError, match=f"^{few}$"):
        task.of_first(3, {})
    assert task.of_first(1, vectors).facts == [], "others may have one"
    caplog.clear()
    whole = task.of_first(3, vectors)
    assert (whole.facts, whole.targets, whole.trace) == (facts[2:3], [vectors[facts[2].case_id]], [])
    assert caplog.messages == ["left out, their optimisation did not stay finite: city-0, city-1"]
    caplog.clear()
    without = task.of_first(2, None)
    assert (without.facts, without.targets) == (facts[:2], [])
    assert task.of_first(3, {fact.case_id: vectors[facts[2].case_id] for fact in facts[:3]}).facts == facts[:3]
    assert caplog.messages == []

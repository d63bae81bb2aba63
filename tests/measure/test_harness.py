"""lm-evaluation-harness on the model in memory, against our own scorer of multiple choice."""

import json

import pytest
import torch
import yaml
from tiny import city_facts, random_network

from jeep.common.errors import UserError
from jeep.common.settings import HarnessTasks
from jeep.data.choices import Choice
from jeep.measure.choices import score_choices
from jeep.model.editable import EditableModel

pytest.importorskip("lm_eval", reason="the extra `harness` is not installed")
from jeep.measure.harness import Harness, content_of

QUESTIONS = {
    "first": [Choice(f"{n} and {n + 1} make", (str(2 * n + 1), str(2 * n), "nothing"), 0) for n in range(6)],
    "second": [Choice("Grass is", ("red", "green and wet"), 1), Choice("Snow is", ("white", "black"), 0)],
}


def task(name, path, **more):
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"validation": str(path)}},
        "validation_split": "validation",
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "label",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
        **more,
    }


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    for name, questions in QUESTIONS.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(each.to_json()) + "\n" for each in questions))
        (tasks / f"{name}.yaml").write_text(yaml.safe_dump(task(name, path)))
    (tasks / "both.yaml").write_text(yaml.safe_dump({"group": "both", "task": list(QUESTIONS)}))
    f1 = [{"metric": "mcc", "aggregation": "matthews_corrcoef", "higher_is_better": True}]
    (tasks / "odd.yaml").write_text(yaml.safe_dump(task("odd", tmp_path / "second.jsonl", metric_list=f1)))
    return tasks


@pytest.fixture
def model(byte_level):
    return EditableModel(random_network("llama"), byte_level)


def test_answers_are_those_of_our_own_scorer_before_and_after(model, folder):
    alone, group = (Harness(model, HarnessTasks(tasks=[name], folder=folder)) for name in ("first", "both"))
    torch.manual_seed(1)
    name = model.parameter_name(2)
    before = {each: score_choices(model, questions, 500)["acc"].tolist() for each, questions in QUESTIONS.items()}
    with model.edited({name: 3 * model.weight(name).std() * torch.randn_like(model.weight(name))}):
        first, both = alone.of(city_facts()), group.of(city_facts())
        after = {each: score_choices(model, questions, 500)["acc"].tolist() for each, questions in QUESTIONS.items()}
    assert before != after, "the edit changes some answer"
    assert set(first["kind"]) == {"ability"}
    assert set(both["metric"]) == {"both"}
    for column, expected in (("before", before), ("value", after)):
        assert first[column].tolist() == expected["first"]
        assert both[column].tolist() == expected["first"] + expected["second"]
    assert both["unit"].is_unique


def test_a_limit_asks_the_first_questions(model, folder):
    rows = Harness(model, HarnessTasks(tasks=["first"], folder=folder, limit=2)).of([])
    assert rows["unit"].tolist() == ["first/0", "first/1"]
    assert (rows["value"] == rows["before"]).all()


def test_a_task_that_is_none_and_one_without_answers_per_question_are_one_line(model, folder):
    with pytest.raises(UserError, match="nothing: no task of lm-evaluation-harness, nor of"):
        Harness(model, HarnessTasks(tasks=["nothing"], folder=folder))
    with pytest.raises(UserError, match="Duplicate task"):
        Harness(model, HarnessTasks(tasks=["first", "both"], folder=folder))
    with pytest.raises(UserError, match="odd: mcc is no mean over questions"):
        Harness(model, HarnessTasks(tasks=["odd"], folder=folder))


def test_answers_depend_on_the_files_of_tasks(folder):
    asked = HarnessTasks(tasks=["first"], folder=folder)
    before = content_of(asked)
    (folder / "first.yaml").write_text((folder / "first.yaml").read_text().replace("{{text}}", "{{text}}."))
    assert content_of(asked) != before

"""The runs of one model in one file: only what has changed is asked again."""

from functools import partial

import pandas as pd
import pytest
import torch
from tiny import city_facts, random_network

from jeep.common.errors import UserError
from jeep.data.choices import Choice
from jeep.data.topics import Topic
from jeep.measure import damage
from jeep.measure.damage import Damage, Questions
from jeep.model.editable import EditableModel
from jeep.model.files import write_of
from jeep.runs.damage import DamageRun

FACTS = city_facts()[:3]
QUESTIONS = Questions(
    topics=[Topic(FACTS[0].case_id, ("The city of",), "in/France")],
    windows=[(7, 3, 11, 5), (4, 8, 1, 12)],
    tasks={"sums": [Choice("1 + 1 =", ("2", "3"), 0)]},
)
RUN = {"dtype": "float32", "edits": [1, 3]}


@pytest.fixture
def model(byte_level):
    return EditableModel(random_network("llama"), byte_level)


def edit(model, folder, method, seed):
    """A method's changes with one fact and with three."""
    torch.manual_seed(seed)
    name = model.parameter_name(1)
    for count in RUN["edits"]:
        delta = {name: torch.randn_like(model.weight(name)) * count}
        write_of(model.identity, folder / method / f"{count}.safetensors", delta, {})
    return {"method": method, **RUN}, folder / method


@pytest.fixture
def asked(monkeypatch):
    """The numbers of facts and the kinds of questions of each time a model is asked."""
    monkeypatch.setattr(damage, "compositions", partial(damage.compositions, length=15))
    calls, real = [], Damage.of

    def of(self, edited, kinds):
        calls.append((len(edited), len(kinds)))
        return real(self, edited, kinds)

    monkeypatch.setattr(Damage, "of", of)
    return calls


def ask(model, runs, out, code="code"):
    job = DamageRun(FACTS, {"model": "m", "dataset": "d", "seed": 0}, code, out, out.with_suffix(".texts"))
    job.ask(model, partial(Damage, model, QUESTIONS, 100), QUESTIONS, runs)
    job.finish([run["method"] for run, _ in runs])
    return pd.read_parquet(out)


def test_a_run_whose_edit_is_the_same_is_kept(model, tmp_path, asked):
    out = tmp_path / "seed0.parquet"
    one, other = edit(model, tmp_path, "one", 1), edit(model, tmp_path, "other", 2)
    first = ask(model, [one, other], out)
    assert asked == [(1, 2), (3, 5)] * 2, "all is asked of the most edits alone"
    assert first[["method", "edits"]].drop_duplicates().to_numpy().tolist() == [
        ["one", 1], ["one", 3], ["other", 1], ["other", 3],
    ]  # fmt: skip
    assert (first["model"] == "m").all()
    asked.clear()
    changed = edit(model, tmp_path, "other", 3)
    second = ask(model, [changed, one], out)
    assert asked == [(1, 2), (3, 5)]
    assert list(dict.fromkeys(second["method"])) == ["other", "one"]
    pd.testing.assert_frame_equal(*(each[each["method"] == "one"].reset_index(drop=True) for each in (first, second)))
    drift = [each[(each["method"] == "other") & (each["metric"] == "kl")]["value"].mean() for each in (first, second)]
    assert drift[0] != drift[1]
    texts = pd.read_parquet(out.with_suffix(".texts"))
    assert texts.groupby("method")["mark"].nunique().to_dict() == {"one": 1, "other": 1}
    asked.clear()
    ask(model, [one], out, code="other code")
    assert len(asked) == 2, "the code has changed"


def test_a_job_that_was_killed_goes_on_behind_its_last_run(model, tmp_path, asked, monkeypatch):
    out, runs = tmp_path / "seed0.parquet", [edit(model, tmp_path, name, seed) for seed, name in enumerate("abc")]
    real = DamageRun._write

    def killed(self, parts):
        real(self, parts)
        if len(parts) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(DamageRun, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        ask(model, runs, out)
    monkeypatch.setattr(DamageRun, "_write", real)
    asked.clear()
    found = ask(model, runs, out)
    assert asked == [(3, 5), (1, 2), (3, 5)]
    out.unlink()
    pd.testing.assert_frame_equal(found, ask(model, runs, out))


def test_two_methods_with_the_same_change_are_two(model, tmp_path, asked):
    runs = [edit(model, tmp_path, name, 1) for name in "ab"]
    ask(model, runs, tmp_path / "out.parquet")
    asked.clear()
    found = ask(model, runs, tmp_path / "out.parquet")
    assert asked == []
    assert not found.duplicated(["method", "edits", "metric", "unit"]).any()
    assert found["method"].value_counts().nunique() == 1


def test_the_model_is_as_it_was(model, tmp_path, asked):
    before = model.identity
    ask(model, [edit(model, tmp_path, "a", 1)], tmp_path / "out.parquet")
    assert model.identity == before


def test_an_edit_of_another_model_is_refused(model, tmp_path, byte_level):
    run = edit(model, tmp_path, "a", 1)
    other = EditableModel(random_network("gptj"), byte_level)
    with pytest.raises(UserError, match="another model"):
        ask(other, [run], tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()

"""What a user sees of an error: one line and a status, whatever it was."""

import json
import math

import pandas as pd
import pytest
import torch
import yaml
from project import CONFIG, region

from jeep.__main__ import main, written
from jeep.common.errors import UserError
from jeep.common.storage import read_json
from jeep.config.config import load_config
from jeep.data.facts import dump_facts
from jeep.model.files import write_of
from jeep.model.loading import load_model, pick_device
from jeep.stages import STAGES


def test_an_unexpected_error_is_one_line_and_its_traceback_lies_among_the_logs(tmp_path, monkeypatch, capsys):
    def breaks(*_):
        raise KeyError("inside")

    monkeypatch.setattr("jeep.stages.own.OwnFacts.options", breaks)
    monkeypatch.chdir(tmp_path)
    command = ["edit-facts", "model", "facts.jsonl", "--out", "out"]
    assert main(command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: unexpected KeyError ('inside'); its traceback is in ")
    (tmp_path / "logs").mkdir()
    assert main(command) == 1
    (path,) = (tmp_path / "logs/tracebacks").iterdir()
    assert str(path.relative_to(tmp_path)) in capsys.readouterr().err
    assert "in breaks" in path.read_text()
    assert path.read_text().startswith("jeep edit-facts model facts.jsonl --out out\n")
    with pytest.raises(KeyError):
        main([*command, "--traceback"])


@pytest.mark.parametrize("device", ["nonsense", "cuda:77", "meta:x"])
def test_an_unknown_device_is_one_line(device):
    with pytest.raises(UserError, match=f"device {device}: ") as error:
        pick_device(device)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"seeds": [0, 0]}, "seeds: .*each seed once, not \\[0, 0\\]"),
        ({"seeds": [-1]}, "seeds.0: "),
        ({"editing": {"\n": None}}, r"editing.'\\n': unknown key$"),
        (
            {
                "methods": CONFIG["methods"]
                | {"m": {"editor": "memit", "settings": {"optimization": {"steps": 2}, "region": region([-1, 0])}}}
            },
            "layers.0",
        ),
        (
            {
                "methods": CONFIG["methods"]
                | {"r": {"editor": "rome", "settings": {"optimization": {"steps": 2}, "layer": -2}}}
            },
            "layer: ",
        ),
    ],
)
def test_a_setting_that_no_run_can_have_is_named(tmp_path, change, complaint):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG | change))
    with pytest.raises((UserError, ValueError), match=complaint):
        config = load_config(tmp_path / "config.yaml")
        for method in config.methods:
            config.editor(method, "tiny", "cities")


def test_a_path_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    models = {"tiny": {"source": {"kind": "path", "path": "~/model"}, "device": "cpu"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG | {"models": models}))
    assert load_config(tmp_path / "config.yaml").models["tiny"].source.path == tmp_path / "model"


@pytest.fixture
def files(trained, facts, prefixes, tmp_path):
    """A model, facts and prefixes, as the stages read them."""
    trained.save(tmp_path / "model")
    (tmp_path / "facts.jsonl").write_text(dump_facts(facts[:3]))
    (tmp_path / "prefixes.json").write_text(json.dumps(prefixes))
    return tmp_path


def edit(files, settings, *more):
    command = ["edit", "--model", files / "model", "--device", "cpu", "--facts", files / "facts.jsonl"]
    command += ["--prefixes", files / "prefixes.json", "--editor", "ft_wd", "--settings", json.dumps(settings)]
    return main(list(map(str, [*command, "--out", files / "out", *more])))


def test_an_edit_that_cannot_be_is_one_line_and_leaves_nothing(files, monkeypatch, capsys):
    assert edit(files, {"layer": 9}) == 2
    assert "layer 9 of a model that has 4, counted from 0" in capsys.readouterr().err
    monkeypatch.setattr("jeep.editors.ft_wd.FtWd.deltas", lambda *_: {"w": torch.tensor([1.0, math.inf])})
    assert edit(files, {"layer": 2}) == 2
    assert "the change of w is not finite: float32 may help" in capsys.readouterr().err
    assert not (files / "out").exists()


def evaluate(files, deltas):
    command = ["evaluate", "--model", files / "model", "--device", "cpu", "--facts", files / "facts.jsonl"]
    command += ["--metrics", "counterfact", "--deltas", deltas, "--edits", 3, "--out", files / "records.parquet"]
    return main(list(map(str, command)))


def test_a_run_holds_every_number_of_edits_and_is_measured_as_its_changes_are(files):
    run = [
        "--edits",
        3,
        1,
        "--metrics",
        "counterfact",
        "--records",
        files / "run.parquet",
        "--run-columns",
        '{"seed": 7}',
    ]
    assert edit(files, {"layer": 2, "learning_rate": 0.01}, *run, "--seconds", files / "seconds.json") == 0
    assert sorted(path.name for path in (files / "out").iterdir()) == ["1.safetensors", "3.safetensors"]
    command = ["evaluate", "--model", files / "model", "--device", "cpu", "--facts", files / "facts.jsonl"]
    command += ["--metrics", "counterfact", "--deltas", files / "out/1.safetensors", files / "out/3.safetensors"]
    command += ["--edits", 1, 3, "--run-columns", '{"seed": 7}', "--out", files / "again.parquet"]
    assert main(list(map(str, command))) == 0
    ours = pd.read_parquet(files / "run.parquet")
    pd.testing.assert_frame_equal(ours, pd.read_parquet(files / "again.parquet"))
    assert ours.groupby("edits").case_id.nunique().to_dict() == {1: 1, 3: 3}
    assert read_json(files / "seconds.json").keys() == {"loading", "1", "3"}
    assert edit(files, {"layer": 2, "learning_rate": 0.01}, "--edits", 9) == 0, (
        "fewer facts than that, under its number"
    )
    assert (files / "out/9.safetensors").exists()
    assert not (files / "out/1.safetensors").exists()


def test_an_edit_of_another_model_is_not_measured(files, trained, capsys):
    name = trained.parameter_name(1)
    delta = torch.full_like(trained.network.get_parameter(name), 1e-3)
    model = load_model(files / "model", device="cpu")
    write_of(model.identity, files / "edit.safetensors", {name: delta}, {})
    assert evaluate(files, files / "edit.safetensors") == 0
    model.add_({name: delta})
    model.save(files / "model")
    assert evaluate(files, files / "edit.safetensors") == 2
    assert "edit.safetensors: made with another model" in capsys.readouterr().err


def test_a_model_that_answers_nan_is_an_error_and_no_score(files, trained, capsys):
    name = trained.parameter_name(1)
    model = load_model(files / "model", device="cpu")
    write_of(
        model.identity,
        files / "edit.safetensors",
        {name: torch.full_like(model.network.get_parameter(name), math.inf)},
        {},
    )
    assert evaluate(files, files / "edit.safetensors") == 2
    assert "the model answers NaN" in capsys.readouterr().err
    assert not (files / "records.parquet").exists()


def test_what_each_stage_writes_is_marked():
    """Whatever a killed process has left of it is removed by the next run of its job."""
    found = {stage.__name__: set(written(stage)) for stage in STAGES}
    assert found["sequence"] == {"trace", "deltas", "out"}
    assert found["edit"] == {"records", "seconds", "out"}
    assert found["apply_edit"] == found["series"] == found["covariance"] == {"out"}, "not what they read"
    assert {name for name, arguments in found.items() if "out" not in arguments} <= {"check_facts", "clear_cache"}


def test_the_package_says_what_it_can_do_and_which_it_is(capsys):
    for asked in ("--help", "-h", "--version"):
        assert main([asked]) == 0, asked
    shown = capsys.readouterr().out
    assert [stage.__name__ for stage in STAGES if stage.__name__.replace("_", "-") not in shown] == []


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
def test_every_stage_has_its_help(stage, capsys):
    assert main([stage.__name__.replace("_", "-"), "--help"]) == 0
    shown = capsys.readouterr().out
    assert " ".join(stage.__doc__.split("\n")[0].split()[:4]) in shown
    assert "--out" in shown or "out" not in stage.__annotations__

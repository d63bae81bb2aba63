"""One's own model from the command line: edit, check, clear."""

import json
from contextlib import nullcontext

import pytest
from own_model import SETTINGS, cache, model, text  # noqa: F401 (fixtures)
from transformers import AutoModelForCausalLM

from jeep.__main__ import main
from jeep.api import statistics
from jeep.common.errors import UserError
from jeep.stages.own import OwnModel


@pytest.fixture
def files(model, facts, text, tmp_path):
    """A checkpoint, facts (one of which says that it is HTML), and a text."""
    model.save(tmp_path / "model")
    rows = [fact.to_json() for fact in facts[:3]]
    rows[0]["paraphrases"] = ["<b>Paris</b> & the rest lies in"]
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "text.txt").write_text("\n".join(text))
    return tmp_path


def run(files, *more):
    return main(
        [
            *("edit-facts", str(files / "model"), str(files / "facts.jsonl"), "--device", "cpu"),
            *("--settings", json.dumps(SETTINGS), "--text", str(files / "text.txt"), "--tokens", "12000"),
            *("--out", str(files / "edited"), *more),
        ]
    )


def test_one_command_edits_tells_and_saves(files, caplog):
    caplog.set_level("INFO")
    assert run(files, "--report", str(files / "report.html")) == 0
    assert any("of 3 facts took (0 before)" in line for line in caplog.messages)
    before = AutoModelForCausalLM.from_pretrained(files / "model").state_dict()
    after = AutoModelForCausalLM.from_pretrained(files / "edited").state_dict()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed == {f"model.layers.{layer}.mlp.down_proj.weight" for layer in (0, 2)}
    page = (files / "report.html").read_text()
    assert "&lt;b&gt;Paris&lt;/b&gt; &amp; the rest" in page
    assert "3 facts edited by jeep" in page
    assert "Unrelated prompts" in page


def test_a_file_is_checked_before_anything_runs(files, caplog, capsys):
    caplog.set_level("INFO")
    command = ["check-facts", str(files / "facts.jsonl"), "--model", str(files / "model")]
    assert main(command) == 0
    assert "all 3 records can be edited" in caplog.text
    first = json.loads((files / "facts.jsonl").read_text().splitlines()[0])
    more = [first | {"case_id": "again", "target_new": "Peru"}, first | {"case_id": "none", "subject": " "}]
    with (files / "facts.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in more)
    assert main(command) == 2
    assert "record none: empty subject" in caplog.text
    assert f"record again: contradicted by record {first['case_id']}" in caplog.text
    assert "1 of 5 records cannot be used" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--method", "mend"], "mend"),
        (["--method", "memit"], "settings of memit: low: unknown key"),
        (["--format", "zsre"], "missing field 'src' (and 2 more)"),
    ],
)
def test_a_bad_call_is_one_line_and_leaves_nothing(more, complaint, files, capsys):
    assert run(files, *more) == 2
    assert complaint in capsys.readouterr().err.splitlines()[-1]
    assert not (files / "edited").exists()


@pytest.mark.parametrize(("device", "taken"), [("auto", True), ("cuda", True), ("cpu", False), (None, True)])
def test_a_device_that_is_not_named_is_a_free_one(device, taken, files, monkeypatch):
    """As for the pipeline's stages: several edits at once take a GPU each."""
    asked = []
    monkeypatch.setattr("jeep.__main__.own_devices", lambda _: asked.append(1) or nullcontext())

    def stops(self):
        raise UserError("far enough")

    monkeypatch.setattr(OwnModel, "load", stops)
    command = ["edit-facts", str(files / "model"), str(files / "facts.jsonl"), "--out", str(files / "edited")]
    assert main([*command, *(["--device", device] if device else [])]) == 2
    assert bool(asked) == taken


def test_the_cache_can_be_cleared(files):
    run(files)
    assert list(statistics.cache_folder().rglob("*.safetensors"))
    assert main(["clear-cache"]) == 0
    assert not list(statistics.cache_folder().rglob("*.safetensors"))

"""What is repeated when something has changed, and what is not."""

import json
import os
import shutil

import pytest
import torch
from project import LATER, jobs, snakemake, write_config

from jeep.common.storage import read_tensors


def test_run_again_it_does_nothing(done):
    assert "Nothing to be done" in snakemake(done, "all")[1]


def test_a_methods_settings_repeat_that_method_only(done):
    def closed_form(config):
        config["methods"]["memit"]["settings"]["region"]["prior"] = 30.0

    def optimization(config):
        config["methods"]["memit"]["settings"]["optimization"]["steps"] = 4

    try:
        write_config(done, closed_form)
        after = jobs(snakemake(done, "-n", "all")[1])
        assert after == {"edit": 1} | LATER
        write_config(done, optimization)
        after = jobs(snakemake(done, "-n", "all")[1])
        assert after == {"targets": 2, "edit": 1} | LATER
    finally:
        write_config(done)


def stamps(folder, pattern):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob(pattern)}


@pytest.mark.pipeline
def test_a_new_layer_repeats_its_own_method_and_collects_that_layer_only(done, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(done, folder)
    write_config(folder, lambda c: c["methods"]["memit"]["settings"]["region"].update(layers=[0, 1]))
    after = jobs(snakemake(folder, "-n", "all")[1])
    assert after == {"covariance_0_tiny": 1, "targets": 2, "edit": 1} | LATER
    before, edits = stamps(folder, "*.mlp.safetensors"), stamps(folder, "jeep/seed0/*.safetensors")
    snakemake(folder, "results/records/tiny/cities/memit/seed0.parquet")
    assert stamps(folder, "jeep/seed0/*.safetensors") == edits
    after = stamps(folder, "*.mlp.safetensors")
    assert {path.name for path in after.keys() - before.keys()} == {"1.mlp.safetensors"}
    assert {path: after[path] for path in before} == before
    assert jobs(snakemake(folder, "-n", "all")[1]) == LATER
    write_config(folder, lambda c: c["statistics"]["default"].update(tokens=3000))
    again = jobs(snakemake(folder, "-n", "all")[1])
    assert again["edit"] == 4, "another sample of text is another covariance, of every edit"


@pytest.mark.pipeline
def test_another_text_is_read_again_and_another_way_to_load_a_model_repeats_what_loads_one(done, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(done, folder)
    options = folder / "jeep/stages/options.py"
    text = options.read_text()
    options.write_text(text.replace("device or self.device", "device or str(self.device)"))
    again = jobs(snakemake(folder, "-n", "all")[1])
    assert {"covariance_0_tiny", "targets", "edit", "evaluate", "prefixes"} <= again.keys()
    assert "facts" not in again
    options.write_text(text)
    with (folder / "corpus.jsonl").open("a") as file:
        file.write(json.dumps({"title": "", "text": "One more."}) + "\n")
    again = jobs(snakemake(folder, "-n", "all")[1])
    assert {name: again[name] for name in ("corpus", "covariance_0_tiny", "edit")} == {
        "corpus": 1,
        "covariance_0_tiny": 1,
        "edit": 4,
    }
    (folder / "results/covariance/tiny/0.mlp.safetensors").write_bytes(b"broken")
    assert jobs(snakemake(folder, "-n", "all")[1])["covariance_0_tiny"] == 1


@pytest.mark.pipeline
def test_shards_of_the_text_give_the_same_covariances(fresh, done, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(fresh, folder)
    write_config(folder, lambda c: c["statistics"]["default"].update(shards=3))
    files = [f"results/covariance/tiny/{layer}.mlp.safetensors" for layer in (0, 2)]
    snakemake(folder, *files)
    for path in (done / "results/covariance/tiny").glob("*.safetensors"):
        ((name, whole),) = read_tensors(path)[0].items()
        torch.testing.assert_close(read_tensors(folder / path.relative_to(done))[0][name], whole)
    assert not list(folder.rglob("parts/*.safetensors"))


@pytest.mark.pipeline
def test_more_edits_optimise_the_new_target_vectors_only(done, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(done, folder)
    write_config(folder, lambda c: c["experiment"].update(edits=10))
    _, output = snakemake(folder, "results/records/tiny/cities/memit/seed0.parquet")
    assert jobs(output) == {"facts": 1, "targets": 2, "edit": 1}
    logs = [path.read_text() for path in sorted(folder.glob("logs/targets/tiny/cities/memit/seed0/*.log"))]
    assert all("60%" in log and "5/5" in log for log in logs), "three of five were there"


@pytest.mark.pipeline
def test_changes_of_weights_go_when_they_are_measured_and_come_back_for_a_checkpoint(done, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(done, folder)
    write_config(folder, lambda c: c["editing"].update(keep_deltas=False))
    for path in ("results/records.parquet", "results/records/tiny/cities/memit/seed0.parquet"):
        (folder / path).unlink()
    assert jobs(snakemake(folder, "results/records.parquet")[1]) == {"edit": 1, "collect": 1}
    assert not list(folder.glob("results/deltas/tiny/cities/memit/**/*.safetensors"))
    assert "edit" not in jobs(snakemake(folder, "-n", "all")[1])
    checkpoint = "results/checkpoints/tiny/cities/memit/seed0"
    assert jobs(snakemake(folder, "-n", f"{checkpoint}/6")[1]) == {"edit": 1, "apply_edit": 1}
    status, output = snakemake(folder, "-n", f"{checkpoint}/7", check=False)
    assert status != 0
    assert "tiny/cities/memit is edited with 1, 6 facts, not with 7: set experiment.edits" in output


@pytest.mark.pipeline
def test_a_message_repeats_nothing_and_a_template_the_report_alone(done, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(done, folder)
    source = folder / "jeep/writing/solve.py"
    text = source.read_text()
    assert "is not positive definite: " in text
    source.write_text(text.replace("is not positive definite: ", "cannot be inverted: "))
    assert "Nothing to be done" in snakemake(folder, "-n", "all")[1]
    template = folder / "jeep/report/report.md.jinja"
    template.write_text(template.read_text() + "\nThe end.\n")
    assert jobs(snakemake(folder, "-n", "all")[1]) == {"report": 1, "all": 1}


def test_a_methods_code_repeats_that_method_and_a_comment_nothing(done):
    source = done / "jeep/editors/memit.py"
    text = source.read_text()
    stamp = source.stat()
    try:
        source.write_text(f"# a comment\n\n{text}")
        assert "Nothing to be done" in snakemake(done, "-n", "all")[1]
        source.write_text(text + "\nSEEN = True\n")
        after = jobs(snakemake(done, "-n", "all")[1])
        assert after == {"edit": 1} | LATER
    finally:
        source.write_text(text)
        os.utime(source, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


@pytest.mark.pipeline
def test_another_way_to_measure_repeats_all_that_measures(done, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(done, folder)
    source = folder / "jeep/measure/evaluate.py"
    source.write_text(source.read_text() + "\nSEEN = True\n")
    after = jobs(snakemake(folder, "-n", "all")[1])
    assert (after["edit"], after["evaluate"]) == (4, 1)

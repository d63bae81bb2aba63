"""Edits in sequence as the pipeline runs them: killed at five points, its table and figure."""

import json
import re
import shutil
import subprocess
import time

import pandas as pd
import pytest
from project import environment, jobs, region, snakemake, write_config

pytestmark = pytest.mark.pipeline

FILES = ("results/tables/sequence.csv", "results/tables/sequence.md", "results/figures/sequence.png")
RUN = "results/sequences/sequence/tiny/cities/alphaedit/"


def in_sequence(config):
    """Seven facts in batches of two, the last one of one; two methods with an editor's memory, and none."""
    history = {"history": True, "prior": 0, "ridge": 0.01, "null_space": {"keep": 0.9}}
    config["methods"]["alphaedit"] = {
        "editor": "alphaedit",
        "added": "later",
        "settings": {"optimization": {"steps": 5}, "region": region([0, 1]) | history},
    }
    low, high = region([0]) | history, region([2]) | history
    config["methods"]["jeep-null"] = {"extends": "jeep", "added": "ours", "settings": {"low": low, "high": high}}
    grid = {"models": ["tiny"], "datasets": ["cities"], "methods": ["none", "alphaedit", "jeep-null"]}
    config["experiment"]["sequence"] = grid | {"batches": 5, "edits": 2, "measure_every": 2}


@pytest.fixture(scope="module")
def whole(done, tmp_path_factory):
    """A project whose sequence has run to its end."""
    folder = tmp_path_factory.mktemp("sequence") / "project"
    shutil.copytree(done, folder)
    write_config(folder, in_sequence)
    snakemake(folder, "--", *FILES)
    return folder


def records(folder):
    return {path.name: path.read_bytes() for path in (folder / RUN).glob("seed0.*") if "trace" not in path.name}


POINTS = [".seed0.partial/mark", ".seed0.partial/1.targets.safetensors", ".seed0.partial/2.targets.safetensors"]
POINTS += [".seed0.partial/4.parquet", ".seed0.partial/5.targets.safetensors"]
"""A run is killed as soon as these are there: before, in and behind batches."""


def test_killed_at_five_points_it_ends_with_the_same_files(whole, done, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(whole, folder)
    for path in (folder / RUN).iterdir():
        path.unlink()
    (command,) = re.findall(r"python -m jeep sequence .*--editor alphaedit.*?(?= 2> >)", shell_of(folder))
    for point in POINTS:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=folder, env=as_a_job(folder), stderr=subprocess.DEVNULL
        )
        while not (folder / RUN / point).exists():
            assert process.poll() is None, f"it has ended without {point}"
            time.sleep(0.005)
        process.kill()
        process.wait()
    subprocess.run(["bash", "-c", command], cwd=folder, env=as_a_job(folder), check=True, capture_output=True)
    assert records(folder) == records(whole)
    traces = [json.loads((each / RUN / "seed0.trace.json").read_text()) for each in (folder, whole)]
    one, other = ([{**note, "seconds": 0} for note in trace] for trace in traces)
    assert one == other
    assert not list((folder / RUN).glob(".*"))


def as_a_job(folder):
    """With as many threads as Snakemake gives a job: the same bits."""
    return environment(folder) | {"OMP_NUM_THREADS": "1"}


def shell_of(folder):
    """What Snakemake would run."""
    return snakemake(folder, "-n", "-p", "--", f"{RUN}seed0.parquet")[1].replace("\n", " ")


def test_the_table_follows_from_the_records(whole):
    table = pd.read_csv(whole / FILES[0])
    assert sorted(set(table["edits"])) == [2, 4, 8, 10]
    assert set(table["method"]) == {"none", "alphaedit", "jeep-null"}
    found = pd.read_parquet(whole / RUN / "seed0.parquet")
    last = found[found["edits"] == 10]
    by_hand = last[last["metric"] == "ES"].groupby("case_id")["value"].mean()
    first = by_hand[last.groupby("case_id")["batch"].first() == 1]
    rows = table[(table["method"] == "alphaedit") & (table["edits"] == 10)].set_index(["part", "metric"])["value"]
    assert rows["all", "ES"] == pytest.approx(100 * by_hand.mean(), abs=1e-3)
    assert len(first) == 2
    assert rows["first", "ES"] == pytest.approx(100 * first.mean(), abs=1e-3)
    trace = json.loads((whole / RUN / "seed0.trace.json").read_text())
    assert rows["model", "relative change"] == pytest.approx(max(trace[-1]["relative_change"].values()), abs=1e-4)
    assert rows["model", "not written"] == 0
    text = (whole / FILES[1]).read_text()
    assert re.search(r"\| tiny +\| alphaedit", text)
    assert "first batch" in text


def test_only_what_a_changed_setting_needs_is_run_again(whole, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(whole, folder)

    def softer(config):
        in_sequence(config)
        config["methods"]["alphaedit"]["settings"]["region"]["ridge"] = 0.5

    write_config(folder, softer)
    output = snakemake(folder, "-n", "--", *FILES)[1]
    assert {"sequence": 1, "sequence_table": 1, "sequence_figure": 1}.items() <= jobs(output).items()
    assert "eigenvectors" not in jobs(output)


def test_too_few_facts_for_the_batches_is_one_clear_line(whole, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(whole, folder)
    (command,) = re.findall(r"python -m jeep sequence .*--editor alphaedit.*?(?= 2> >)", run_again(folder))
    command = command.replace("--batches 5", "--batches 50")
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment(folder), capture_output=True, text=True)
    assert done.returncode != 0
    assert "facts, and 50 batches of 2 are asked for" in done.stderr
    assert "Traceback" not in done.stderr


def run_again(folder):
    for path in (folder / RUN).iterdir():
        path.unlink()
    return shell_of(folder)


def test_a_norm_is_measured_on_development_facts_and_handed_on(fresh, tmp_path):
    """NAS: the job that edits is given the one file that the job which measures writes."""

    def anchored(config):
        config["methods"]["nas"] = {"extends": "memit", "added": "later", "settings": {"anchor": True}}
        config["datasets"]["others"] = config["datasets"]["cities"]
        protocol = {"facts": 3, "draws": 1, "variants": 1, "finalists": 0}
        config["tuning"] = {"datasets": {"cities": "others"}, "protocol": protocol, "space": {}}
        grid = {"models": ["tiny"], "datasets": ["cities"], "methods": ["nas"]}
        config["experiment"]["sequence"] = grid | {"batches": 2, "edits": 2}

    folder = tmp_path / "project"
    shutil.copytree(fresh, folder)
    write_config(folder, anchored)
    output = snakemake(folder, "-n", "-p", "--", "results/tables/sequence.csv")[1]
    norms = "results/norms/tiny/cities/nas/seed0.json"
    assert f"--limit 3 --out {norms}" in output
    assert "--facts results/facts/tiny/others.jsonl" in output
    assert f"--norms {norms} " in output

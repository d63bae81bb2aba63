"""What goes wrong: runs that are killed, jobs of a cluster, runs at the same time, what cannot be."""

import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from cluster import slurm, squeue, why_not
from conftest import ROOT
from project import environment, make_project, snakemake, write_config
from safetensors.torch import save_file

from jeep.__main__ import main
from jeep.common.errors import UserError
from jeep.common.storage import read_jsonl, write_jsonl, write_tensors
from jeep.data.fetch import fetch_model
from jeep.data.sources import PathSource
from jeep.report.figures.style import save as save_figure
from jeep.runs.at_once import write_records

LAUNCH = "import jeep.launcher; jeep.launcher.main()"


def artifacts(folder):
    names = ("results/tables/table3.csv", "results/records.parquet")
    files = [folder / name for name in names] + sorted((folder / "results/deltas").rglob("*.safetensors"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


EVENTS = {
    "results/facts/*/*.jsonl": 1,
    "results/targets/*/*/*/*/*": 1,  # a file, or the folder of a shard that is under way
    "results/deltas/*/*/*/.seed0.partial/*.json": 1,  # a number of edits of a run that is under way
    "results/records/*/*/*/*.parquet": 1,
    "results/records/*/*/jeep*/*.parquet": 2,
}
"""After so many of which files a run is killed."""


@pytest.mark.pipeline
def test_killed_anywhere_it_ends_with_the_same_files(fresh, done, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(fresh, folder)
    for pattern, count in EVENTS.items():
        process = subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--cores", "2", "all"],
            cwd=folder,
            env=environment(folder),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while len(list(folder.glob(pattern))) < count:
            assert process.poll() is None, f"it has ended without {count} of {pattern}"
            time.sleep(0.02)
        process.kill()  # its jobs go on, orphans: the next run waits for those whose files it wants
        process.wait()
    assert not (folder / "results/tables/table3.csv").exists()
    snakemake(folder, "all")
    assert artifacts(folder) == artifacts(done)
    assert not [path for path in folder.rglob("results/**/.*") if "checkpoint" in path.name or path.is_dir()]


def cancelled(number):
    subprocess.run(["scancel", number], check=True)


def out_of_time(number):
    """Halted, too: Slurm looks at limits twice a minute, and the job of a tiny model would be done."""
    subprocess.run(["scontrol", "update", f"JobId={number}", "TimeLimit=00:00:01"], check=True)
    subprocess.run(["scancel", "--signal=STOP", "--full", number], check=True)


def killed(number):
    subprocess.run(["scancel", "--signal=KILL", "--full", number], check=True)


def job_of(number):
    return subprocess.run(["scontrol", "show", "job", number], capture_output=True, text=True, check=False).stdout


@pytest.mark.pipeline
@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_on_a_slurm_it_ends_with_the_same_files_whatever_befalls_its_jobs(fresh, done, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(fresh, folder)
    write_config(folder, lambda c: c["models"]["tiny"].update(device="auto"))
    befalls = {"targets": cancelled, "edit": out_of_time, "evaluate": killed}
    ends = {"targets": "CANCELLED", "edit": "TIMEOUT", "evaluate": "FAILED|CANCELLED"}
    asked, struck = {}, {}
    command = [sys.executable, "-c", LAUNCH]
    command += ["--profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "5"]
    command += ["--set-threads", "targets=1", "edit=1", "evaluate=1", "--", "all"]  # as many as there: the same bits
    with slurm(tmp_path / "slurm"), (folder / "log").open("w") as log:
        run = subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=log, stderr=log)
        while run.poll() is None:
            for line in squeue("-o", "%i|%T|%k"):
                number, state, comment = line.split("|")
                (rule,) = re.findall(r"^rule_(\w+?)(?:_wildcards.*)?$", comment) or [comment]
                if rule not in asked:
                    asked[rule] = job_of(number)
                if state == "RUNNING" and rule in befalls:
                    befalls.pop(rule)(number)
                    struck[rule] = number
            time.sleep(0.3)
        ended = {rule: re.search(r"JobState=(\w+)", job_of(number))[1] for rule, number in struck.items()}
    output = (folder / "log").read_text()
    assert run.returncode == 0, output[-4000:]
    assert ended.keys() == ends.keys()
    for rule, state in ended.items():
        assert re.fullmatch(ends[rule], state), f"{rule}: what befell it did not end it, but {state}"
    assert artifacts(folder) == artifacts(done)
    assert re.search(r"TresPer\w+=.*gpu", asked["edit"]), asked["edit"]
    assert "TimeLimit=01:01:00" in asked["edit"], "not the profile's hour: what it computes, rounded up"
    assert not {"table", "report", "collect"} & asked.keys()


@pytest.mark.pipeline
def test_two_runs_at_once_in_a_folder_are_kept_apart(fresh, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(fresh, folder)
    command = [sys.executable, "-c", LAUNCH, "--cores", "2", "results/quick.csv"]  # longer than a start
    options = {"cwd": folder, "env": environment(folder), "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    first = subprocess.Popen(command, **options)
    while not list(folder.glob(".snakemake/locks/*.lock")):
        assert first.poll() is None
        time.sleep(0.02)
    second = subprocess.run(command, text=True, check=False, **options)
    first.communicate()
    assert first.returncode == 0
    assert second.returncode != 0
    said = second.stdout.split("Building DAG of jobs...")[1].strip().splitlines()
    assert len(said) == 1
    assert said[0].startswith("error: another run makes the same files in this folder; wait for its end")


@contextmanager
def disk(folder, size):
    """A small disk of its own at a folder; skips where none can be mounted."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder, left=0):
    """Leave so many bytes of a disk."""
    with suppress(OSError), (folder / "filling").open("wb") as file:
        file.write(bytes(shutil.disk_usage(folder).free - left))


def figure(path):
    drawing, axes = plt.subplots()
    axes.scatter(*torch.rand(2, 30_000))
    save_figure(drawing, path)


WRITERS = {
    "rows.jsonl": lambda path: write_jsonl(path, ({"text": "x" * 100} for _ in range(5000))),
    "tensors.safetensors": lambda path: write_tensors(path, {"x": torch.zeros(100_000)}),
    "records.parquet": lambda path: write_records(path, [(1, pd.DataFrame({"x": torch.randn(50_000).numpy()}))], None),
    "figure.pdf": figure,
    "folder": lambda path: fetch_model(PathSource(kind="path", path=path.parents[1] / "model"), path),
}
"""What writes half a megabyte or so, in each of the ways that stages write."""


@pytest.mark.parametrize("left", [0, 4096, 65536])
@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_is_full_is_one_line_and_nothing_half_written(tmp_path, name, left):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    save_file({"x": torch.zeros(100_000)}, tmp_path / "model/model.safetensors")
    with disk(tmp_path / "small", "200k") as small:
        fill(small, left)
        with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)$") as error:
            WRITERS[name](small / name)
        assert str(error.value).startswith(str(small / name).removesuffix("pdf"))
        assert [path.name for path in small.iterdir()] == ["filling"]


def error_lines(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]


def test_a_stage_on_a_full_or_read_only_disk_ends_in_one_line(tmp_path, capsys):
    rows = [{"title": "", "text": "word " * 50} for _ in range(2000)]
    write_jsonl(tmp_path / "in.jsonl", rows)
    source = f'{{"kind": "path", "path": "{tmp_path / "in.jsonl"}"}}'
    with disk(tmp_path / "small", "100k") as small:
        command = ["corpus", "--source", source, "--out", str(small / "out/corpus.jsonl")]
        assert main(command) == 2
        assert error_lines(capsys) == [f"error: {small}/out/corpus.jsonl: cannot be written (No space left on device)"]
        assert list((small / "out").iterdir()) == []
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        assert main(command) == 2
        assert error_lines(capsys) == [f"error: {small}/out/corpus.jsonl: cannot be written (Read-only file system)"]


@pytest.mark.pipeline
def test_a_run_whose_disk_is_full_says_so_and_goes_on_when_there_is_room(byte_level, tmp_path):
    with disk(tmp_path / "small", "8m") as small:
        folder = small / "project"
        make_project(folder, byte_level)
        target = "results/corpus/wikipedia.jsonl"
        said = set()
        for left in range(0, 96 * 1024, 12 * 1024):  # Snakemake itself needs some room in front of the job's
            fill(small, left)
            status, output = snakemake(folder, target, check=False)
            if status == 0:
                break
            lines = [line for line in output.splitlines() if line.startswith("error: ")]
            assert len(lines) == 1, output[-3000:]
            said.add(lines[0].partition(" (")[0])
            assert "Traceback" not in output
            assert not (folder / target).exists()
        assert said == {"error: [Errno 28] No space left on device", f"error: {target}: cannot be written"}
        assert status == 0, "there is room enough at last"
        (folder / target).unlink()
        (small / "filling").unlink()
        snakemake(folder, target)
        assert len(list(read_jsonl(folder / target))) == 300
        assert not [path for path in (folder / "results/corpus").iterdir() if path.name.startswith(".")]
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        status, output = snakemake(folder, "results/facts/tiny/cities.jsonl", check=False)
        assert status != 0
        assert f"{folder}/.snakemake: cannot be written (Read-only file system)" in output
        assert "Traceback" not in output


def test_where_room_is_scarce_python_leaves_no_bytecode_that_might_be_half_written(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    with disk(tmp_path / "small", "8m") as small:
        for folder in (small, tmp_path / "large"):
            shutil.copytree(ROOT / "jeep", folder / "jeep", ignore=shutil.ignore_patterns("__pycache__"))
            command = [sys.executable, "-c", "import jeep.launcher"]
            subprocess.run(command, cwd=folder, env=environment(folder), check=True)
        assert not list(small.rglob("launcher*.pyc"))
        assert list((tmp_path / "large").rglob("launcher*.pyc"))


def test_read_only_results_are_named(fresh, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(fresh, folder)
    with disk(folder / "results", "100k") as results:
        subprocess.run(["mount", "-o", "remount,ro", results], check=True)
        status, output = snakemake(folder, "results/corpus/wikipedia.jsonl", check=False)
    assert status != 0
    assert output.strip().endswith("error: [Errno 30] Read-only file system: 'results/corpus'"), output[-2000:]
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda c: c.update(tokens=3), "config: tokens: unknown key"),
        (lambda c: c["models"]["tiny"].update(dtyp="x"), "models.tiny.dtyp: unknown key"),
        (lambda c: c["experiment"].update(methods=["rome"]), "experiment.methods names 'rome'"),
        (
            lambda c: c["methods"]["memit"]["settings"]["region"].update(layers=[0, 2]),
            "methods.memit for tiny/cities: region: layers must be consecutive",
        ),
        (
            lambda c: c["methods"]["jeep"]["settings"]["high"].update(layers=[0]),
            "the low region must lie below the high region",
        ),
        (
            lambda c: c["methods"]["jeep"].update(overrides={"none": {}}),
            "'none' is no model or model/dataset",
        ),
        (
            lambda c: c["methods"]["memit"]["settings"]["region"].update(layers=[4]),
            "methods.memit for tiny/cities: layer 4 of a model that has 4, counted from 0",
        ),
        (lambda c: c["models"]["tiny"].update(device="cpu$(touch owned)"), "models.tiny.device: "),
        (lambda c: c["models"]["tiny"].update(device="balanced"), "such as balanced:2"),
        (lambda c: c["datasets"]["cities"].update(label="--out=x"), "datasets.cities.label: "),
        (lambda c: c["datasets"]["cities"].update(chat=True, joiner=": "), "joiner: a chat template says itself"),
    ],
)
def test_a_bad_configuration_fails_before_the_dag(fresh, change, complaint):
    try:
        write_config(fresh, change)
        status, output = snakemake(fresh, "-n", "all", check=False)
    finally:
        write_config(fresh)
    assert status != 0
    assert complaint in output
    assert "Traceback" not in output
    assert "Job stats" not in output


MODEL = ["--model", "nowhere", "--facts", "none.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["evaluate", *MODEL, "--metrics", "zsre"], "nowhere: not a checkpoint folder"),
        (
            ["edit", *MODEL, "--prefixes", "p.json", "--editor", "memit", "--settings", '{"regio": 1}'],
            "regio: unknown key",
        ),
        (["targets", *MODEL, "--prefixes", "p.json", "--spec", "{}"], "nowhere: not a checkpoint folder"),
        (["corpus", "--source", '{"kind": "path", "path": "none.jsonl"}'], "none.jsonl: no such file"),
        (["fetch-file", "--source", '{"kind": "path", "path": "none", "x": 1}'], "x: unknown key"),
    ],
)
def test_a_stages_error_is_one_line_and_a_status(tmp_path, capsys, arguments, complaint):
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert complaint in line
    assert list(tmp_path.iterdir()) == []

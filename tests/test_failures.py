"""What goes wrong: runs that are killed, jobs of a cluster, runs at the same time, what cannot be."""

import re
import shutil
import subprocess
import sys
import time

import pytest
from cluster import slurm, squeue, why_not
from project import environment, snakemake, write_config

from jeep.__main__ import main


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
    subprocess.run(["scontrol", "update", f"JobId={number}", "TimeLimit=00:00:01"], check=True)


def killed(number):
    subprocess.run(["scancel", "--signal=KILL", "--full", number], check=True)


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_on_a_slurm_it_ends_with_the_same_files_whatever_befalls_its_jobs(fresh, done, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(fresh, folder)
    write_config(folder, lambda c: c["models"]["tiny"].update(device="auto"))
    befalls = {"targets": cancelled, "edit": out_of_time, "evaluate": killed}
    asked = {}
    command = [sys.executable, "-c", "import jeep.launcher; jeep.launcher.main()"]
    command += ["--profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "5"]
    command += ["--set-threads", "targets=1", "edit=1", "evaluate=1", "--", "all"]  # as many as there: the same bits
    with slurm(tmp_path / "slurm"), (folder / "log").open("w") as log:
        run = subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=log, stderr=log)
        while run.poll() is None:
            for line in squeue("-o", "%i|%T|%k"):
                number, state, comment = line.split("|")
                (rule,) = re.findall(r"^rule_(\w+?)(?:_wildcards.*)?$", comment) or [comment]
                if rule not in asked:
                    shown = ["scontrol", "show", "job", number]
                    asked[rule] = subprocess.run(shown, capture_output=True, text=True, check=False).stdout
                if state == "RUNNING" and rule in befalls:
                    befalls.pop(rule)(number)
            time.sleep(0.3)
    output = (folder / "log").read_text()
    assert run.returncode == 0, output[-4000:]
    assert not befalls
    assert artifacts(folder) == artifacts(done)
    assert re.search(r"TresPer\w+=.*gpu", asked["edit"]), asked["edit"]
    assert "TimeLimit=02:00:00" in asked["prefixes"]
    assert not {"table", "report", "collect"} & asked.keys()


def test_two_runs_at_once_in_a_folder_are_kept_apart(fresh, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(fresh, folder)
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "results/facts/tiny/cities.jsonl"]
    options = {"cwd": folder, "env": environment(folder), "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    first = subprocess.Popen(command, **options)
    while not list(folder.glob(".snakemake/locks/*.lock")):
        assert first.poll() is None
        time.sleep(0.02)
    second = subprocess.run(command, text=True, check=False, **options)
    first.communicate()
    assert first.returncode == 0
    assert second.returncode != 0
    assert "Another Snakemake" in second.stdout or "cannot be locked" in second.stdout


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

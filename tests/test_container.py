"""The image of the jobs' environment, as far as it can be tested here: a stand-in runs what Apptainer is handed."""

import os
import re

import pytest
from conftest import ROOT
from project import make_project, snakemake, write_config

STAND_IN = """\
#!/bin/bash
[ "$1" = --version ] && { echo "apptainer version 1.3.0"; exit; }
echo "$*" >> "$HANDED"
exec "${@: -3}"
"""


@pytest.fixture
def handed(tmp_path, monkeypatch):
    """What the stand-in is handed, a line for each call or more."""
    stand_in = tmp_path / "bin/apptainer"
    stand_in.parent.mkdir()
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HANDED", str(tmp_path / "handed.txt"))
    return tmp_path / "handed.txt"


@pytest.mark.parametrize(("workdir", "image"), [(None, "jeep.sif"), ("mine", "../jeep.sif")])
def test_every_job_is_handed_to_apptainer_with_the_image_beside_the_snakefile(
    handed, byte_level, tmp_path, workdir, image
):
    folder = tmp_path / "project"
    make_project(folder, byte_level)
    files = {"corpus": ("corpus.source", "corpus.jsonl"), "tiny": ("models.tiny.source", "tiny")}
    files["cities"] = ("datasets.cities.source", "cities.jsonl")

    def moved(config):
        if workdir:
            config["workdir"] = workdir
        for where, name in files.values():
            part = config
            for key in where.split("."):
                part = part[key]
            part["path"] = str(folder / name)

    write_config(folder, moved)
    snakemake(folder, "--software-deployment-method", "apptainer", "--", "results/corpus/wikipedia.jsonl")
    assert (folder / (workdir or ".") / "results/corpus/wikipedia.jsonl").is_file()
    calls = re.findall(r"^exec .* (\S+) bash -c .*python -m jeep (\S+)", handed.read_text(), re.MULTILINE)
    assert calls == [(image, "corpus")]


def test_what_the_image_copies_is_there_and_let_through():
    copied = [
        name
        for line in re.findall(r"^COPY (.*) \S+$", (ROOT / "envs/Dockerfile").read_text(), re.MULTILINE)
        for name in line.split()
    ]
    assert {"pyproject.toml", "Makefile", "jeep"} <= {*copied}
    let_through = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert sorted(copied) == sorted(let_through)
    assert all((ROOT / name).exists() for name in copied)

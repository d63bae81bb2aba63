"""The command line as people write it, and what Snakemake reads."""

import os
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from snakemake.cli import parse_args

from jeep.launcher import main, targets_first


@pytest.mark.parametrize("conda", [None, "/opt/conda"])
def test_jobs_run_the_python_of_this_environment_where_none_is_activated(conda, monkeypatch):
    """What conda has put on the PATH stays in front: it replaces it by a job's environment."""
    found = []
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    if conda:
        monkeypatch.setenv("CONDA_PREFIX", conda)
    monkeypatch.setattr("sys.argv", ["snakemake", "all"])
    monkeypatch.setattr("snakemake.cli.main", lambda words: found.append(os.environ["PATH"]))
    main()
    own = [] if conda else [str(Path(sys.executable).parent)]
    assert found[0].split(os.pathsep) == [*own, "/usr/bin", "/bin"]


def test_targets_may_stand_behind_resources():
    """The command as people write it: Snakemake alone would read `all` as a resource."""
    assert targets_first("--cores 8 --resources gpu=4 all".split()) == "all --cores 8 --resources gpu=4".split()
    assert targets_first("-n --res a=1 b=2 all x --cores 2".split()) == "all x -n --res a=1 b=2 --cores 2".split()
    assert targets_first("all --cores 8".split()) == "all --cores 8".split()


@pytest.mark.parametrize(
    ("typed", "understood"),
    [
        ("--configfile a.yaml all", "all --configfile a.yaml"),
        ("--configfile a.yaml b.json results/x.csv -n", "results/x.csv --configfile a.yaml b.json -n"),
        ("--set-threads edit=4 all", "all --set-threads edit=4"),
        ("--set-resources edit:mem_mb=1 all", "all --set-resources edit:mem_mb=1"),
        ("--default-resources mem_mb=1 all", "all --default-resources mem_mb=1"),
        ("--config a=1 b={c: 2} all", "all --config a=1 b={c: 2}"),
        ("-C a=1 all tune", "all tune -C a=1"),
        ("--rerun-triggers mtime all", "all --rerun-triggers mtime"),
        ("--groups edit=g all", "all --groups edit=g"),
        ("--forcerun edit all", "--forcerun edit all"),  # both are names of rules: Snakemake's to decide
        ("-q all", "-q all"),  # one of its levels
        ("--configfile a.yaml -- all", "--configfile a.yaml -- all"),
        ("--configfile=a.yaml all", "--configfile=a.yaml all"),
        ("--configfile a.yaml results/probe/m/regions.json", "results/probe/m/regions.json --configfile a.yaml"),
        ("--cores 2 all --resources gpu=1 tune -n", "all tune --cores 2 --resources gpu=1 -n"),
    ],
)
def test_targets_may_stand_behind_any_list(typed, understood):
    def words(line):
        return line.replace("{c: 2}", "{c:2}").split()

    assert targets_first(words(typed)) == words(understood)


SHIPPED = {
    "slurm": {"keep_going": True, "retries": 2, "latency_wait": 60, "executor": "slurm", "jobs": 32, "local_cores": 2},
    "gpu": {"keep_going": True, "retries": 1},
    None: {"keep_going": False, "retries": 0},
}


@pytest.mark.parametrize("profile", SHIPPED)
def test_a_profile_means_what_it_says(profile, monkeypatch):
    """Snakemake adds profiles/default to every other, and what stands there goes first."""
    monkeypatch.chdir(ROOT)
    _, options = parse_args([*(["--profile", f"profiles/{profile}"] if profile else []), "all"])
    assert {name: getattr(options, name) for name in SHIPPED[profile]} == SHIPPED[profile]
    assert options.rerun_incomplete

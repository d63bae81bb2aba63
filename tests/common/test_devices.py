"""A GPU for each job, on four pretended devices: what matters is which names the processes see."""

import os
import subprocess
import sys

import pytest
import torch

from jeep.__main__ import main
from jeep.common.devices import cards

JOB = """
import os, sys
from jeep.common.devices import own_devices
with own_devices(int(sys.argv[1])) as device:
    print(device, os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def start(tmp_path):
    """Start a job that holds its device until told to end; ends all of them."""
    jobs = []

    def job(visible="0,1,2,3", count=1):
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": visible, "TMPDIR": str(tmp_path)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        jobs.append(subprocess.Popen([sys.executable, "-c", JOB, str(count)], env=environment, **pipes))
        return jobs[-1]

    yield job
    for process in jobs:
        process.kill()
        process.communicate()


def device_of(job):
    device, visible = job.stdout.readline().split()
    assert device == visible, "the process sees its own device only"
    return device


def test_jobs_at_once_take_different_devices(start):
    jobs = [start() for _ in range(4)]
    assert {device_of(job) for job in jobs} == {"0", "1", "2", "3"}


def test_a_fifth_job_waits_and_gets_the_device_of_a_killed_one(start):
    jobs = {device_of(job): job for job in [start() for _ in range(4)]}
    fifth = start()
    with pytest.raises(subprocess.TimeoutExpired):
        fifth.wait(timeout=3)
    jobs["2"].kill()  # SIGKILL: nothing is cleaned up
    assert device_of(fifth) == "2"


def test_a_job_on_several_devices_holds_all_of_them(start):
    first, other, third = start(count=2), start(), start()
    names = [device_of(job) for job in (first, other, third)]
    assert sorted(",".join(names).split(",")) == ["0", "1", "2", "3"]
    assert len(names[0].split(",")) == 2
    waits = start(count=2)
    other.communicate("\n")
    with pytest.raises(subprocess.TimeoutExpired):
        waits.wait(timeout=3)  # one is free, and not held while it waits for another
    single = start()
    assert device_of(single) == names[1]
    single.communicate("\n")
    third.communicate("\n")
    assert sorted(device_of(waits).split(",")) == sorted(names[1:])


@pytest.mark.parametrize(("visible", "counts"), [("0", (1, 1)), ("1,3", (2, 3))])
def test_all_devices_that_are_to_be_seen_are_of_one_job_at_a_time(start, visible, counts):
    first = start(visible, counts[0])
    assert device_of(first) == visible
    second = start(visible, counts[1])
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(timeout=3)
    first.communicate("\n")
    assert device_of(second) == visible


def test_what_a_scheduler_has_given_is_used_without_a_lock(start, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert {device_of(job) for job in (start("0", count=1), start("0", count=1))} == {"0"}
    assert {device_of(job) for job in (start("1,3", count=2), start("1,3", count=2))} == {"1,3"}


@pytest.mark.parametrize(
    ("device", "count"), [("auto", 1), ("cuda", 1), ("cuda:1", 0), ("cpu", 0), ("balanced", 0), ("balanced:3", 3)]
)
def test_how_many_devices_a_job_takes(device, count):
    assert cards(device) == count


def test_a_job_that_ends_gives_its_device_back(start):
    first = start("1,3")
    assert device_of(first) == "1"
    first.communicate("\n")
    assert device_of(start("1,3")) == "1"


def test_only_devices_shown_from_outside_are_taken(start):
    assert {device_of(start("GPU-8f,MIG-3/1/0")), device_of(start("GPU-8f,MIG-3/1/0"))} == {"GPU-8f", "MIG-3/1/0"}


def test_without_a_gpu_nothing_is_taken(monkeypatch, tmp_path):
    from jeep.common.devices import own_devices

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with own_devices() as device:
        assert device is None
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize(("device", "asked"), [("cuda:1", True), ("cpu", False), ("auto", False)])
def test_a_job_on_a_gpu_asks_for_sums_in_a_fixed_order(device, asked, monkeypatch, tmp_path):
    """Before anything else, since the workspace is chosen when CUDA starts; a job on the CPU is left alone."""
    calls = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *args, **kwargs: calls.append((args, kwargs)))
    status = main(["prefixes", "--model", str(tmp_path / "nowhere"), "--device", device, "--out", "o"])
    assert status == 2, "there is no such model"
    assert calls == ([((True,), {"warn_only": True})] if asked else [])
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == (":4096:8" if asked else None)

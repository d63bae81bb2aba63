"""A Slurm on one machine, for the tests: controller, node and four cards that are no cards."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "munged")
MISSING = [name for name in PROGRAMS if shutil.which(name) is None]
FOLDER = Path("/etc/slurm")
"""The executor takes SLURM_CONF out of a job's environment: the configuration must lie where Slurm looks."""

CONFIGURATION = """\
ClusterName=jeep
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=2,bf_interval=2
KillWait=5
MinJobAge=7200
GresTypes=gpu
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=128000 Gres=gpu:4 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Why there can be no Slurm here; empty where there can."""
    if MISSING:
        return f"not installed: {', '.join(MISSING)} (Debian: slurm-wlm, munge)"
    if os.geteuid():
        return "Slurm's controller and node are started by root"
    return "another Slurm is configured here" if (FOLDER / "slurm.conf").exists() else ""


def squeue(*options: str) -> list[str]:
    """Lines of squeue about all jobs."""
    asked = ["squeue", "--noheader", *options]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()


@contextmanager
def slurm(folder: Path) -> Iterator[None]:
    """A Slurm whose state lies in a folder, for the length of a block."""
    host = socket.gethostname().split(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    for number in range(4):
        if subprocess.run(["mknod", folder / f"gpu{number}", "c", "1", "3"], check=False).returncode:
            pytest.skip("device nodes cannot be made here (mknod)")
    files = {
        "slurm.conf": CONFIGURATION.format(host=host, folder=folder),
        "gres.conf": f"NodeName={host} Name=gpu File={folder}/gpu[0-3]\n",
    }
    Path("/run/munge").mkdir(exist_ok=True)
    daemons: list[subprocess.Popen] = []
    try:
        for name, text in files.items():
            (FOLDER / name).write_text(text)
        for command in (["munged", "--force", "--foreground"], ["slurmctld", "-D"], ["slurmd", "-D"]):
            daemons.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        _wait_for_node()
        yield
    finally:
        subprocess.run(["scancel", "--state=PENDING,RUNNING"], check=False, capture_output=True)
        for name in files:
            (FOLDER / name).unlink(missing_ok=True)
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(timeout=30)


def _wait_for_node() -> None:
    for _ in range(120):
        found = subprocess.run(["sinfo", "--noheader", "-o", "%T"], capture_output=True, text=True, check=False)
        if found.stdout.strip() == "idle":
            return
        time.sleep(0.5)
    pytest.skip(f"a Slurm does not start here: {found.stdout}{found.stderr}")

"""GPUs of its own for each job: Snakemake's local executor counts GPUs but hands none out.

This module must not start CUDA: what a process sees is fixed when CUDA starts.
"""

import logging
import os
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from jeep.common.locks import lock_folder

VISIBLE = "CUDA_VISIBLE_DEVICES"
_SCHEDULERS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID", "KUBERNETES_SERVICE_HOST")
"""What schedulers tell the jobs that they give devices to."""
_SECONDS_BETWEEN_TRIES = 0.5


def candidates() -> list[str]:
    """The devices that this process may use: those of CUDA_VISIBLE_DEVICES, else all of the machine's."""
    if VISIBLE in os.environ:
        return [device.strip() for device in os.environ[VISIBLE].split(",") if device.strip() not in ("", "-1")]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def visible_cards() -> int:
    """How many NVIDIA cards this process may use, told without PyTorch; of others, none."""
    if VISIBLE in os.environ:
        return len(candidates())
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def is_balanced(device: str) -> bool:
    """Whether a configured device means several: "balanced" all that a process sees, "balanced:2" two of them."""
    return device.partition(":")[0] == "balanced"


def cards(device: str) -> int:
    """How many GPUs a job takes for itself on a configured device; none where the user has named one, or all."""
    kind, _, number = device.partition(":")
    return 1 if device in ("auto", "cuda") else int(number or 0) if kind == "balanced" else 0


@contextmanager
def own_devices(count: int = 1) -> Iterator[str | None]:
    """Take free GPUs and show this process no others, for the length of a block; yields their names, None without any.

    The locks are the operating system's (flock) and die with the process, however it ends. Waits while too many devices
    are taken; where fewer are to be seen than asked for, all are taken. What a scheduler has given to this job alone is
    used as it is: the same number means another device to another job.
    """
    devices = candidates()
    if not devices or (len(devices) <= count and any(name in os.environ for name in _SCHEDULERS)):
        yield ",".join(devices) or None
        return
    locks, taken = _take(devices, min(count, len(devices)))
    outside = os.environ.get(VISIBLE)
    os.environ[VISIBLE] = taken
    logging.info("GPU %s", taken)
    try:
        yield taken
    finally:
        for lock in locks:
            lock.release()
        if outside is None:
            del os.environ[VISIBLE]
        else:
            os.environ[VISIBLE] = outside


def make_repeatable() -> None:
    """Ask PyTorch for algorithms whose sums have a fixed order on a GPU; before CUDA starts.

    Where it has none it warns and goes on. Sums over a request's prompts are in a fixed order in any case (`segments`).
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # with NaN, in a kernel for each new tensor


def _take(devices: list[str], count: int) -> tuple[list[FileLock], str]:
    """The first devices that no other process holds; waits for so many, and holds none meanwhile."""
    folder, told = lock_folder("devices"), False
    while True:
        held: dict[str, FileLock] = {}
        for device in devices:
            lock = FileLock(folder / f"{re.sub(r'[^A-Za-z0-9-]', '_', device)}.lock")
            with suppress(Timeout):
                lock.acquire(blocking=False)
                held[device] = lock
            if len(held) == count:
                return list(held.values()), ",".join(held)
        for lock in held.values():
            lock.release()
        if not told:
            logging.info("of %s, %d are free; waiting for %d", ", ".join(devices), len(held), count)
            told = True
        time.sleep(_SECONDS_BETWEEN_TRIES * random.uniform(1, 2))  # two that wait for several must not meet for ever

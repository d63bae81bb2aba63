"""One GPU for each job: Snakemake's local executor counts GPUs but hands none out.

This module must not start CUDA: what a process sees is fixed when CUDA starts.
"""

import getpass
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

VISIBLE = "CUDA_VISIBLE_DEVICES"
_SECONDS_BETWEEN_TRIES = 0.5


def candidates() -> list[str]:
    """The devices that this process may use: those of CUDA_VISIBLE_DEVICES, else all of the machine's."""
    if VISIBLE in os.environ:
        return [device.strip() for device in os.environ[VISIBLE].split(",") if device.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


@contextmanager
def own_device() -> Iterator[str | None]:
    """Take a free GPU and show this process no other, for the length of a block; yields its name, None without a GPU.

    The lock is the operating system's (flock) and dies with the process, however it ends. Waits while all devices are
    taken. A single device is used as it is, without a lock: a cluster that shows a job one device has given it away,
    and the same number means another device to another job.
    """
    devices = candidates()
    if len(devices) < 2:
        yield devices[0] if devices else None
        return
    lock, device = _take(devices)
    outside = os.environ.get(VISIBLE)
    os.environ[VISIBLE] = device
    logging.info("GPU %s", device)
    try:
        yield device
    finally:
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


def _take(devices: list[str]) -> tuple[FileLock, str]:
    """The first device that no other process holds; waits for one."""
    folder = Path(tempfile.gettempdir()) / f"jeep-devices-{getpass.getuser()}"
    folder.mkdir(exist_ok=True)
    told = False
    while True:
        for device in devices:
            lock = FileLock(folder / f"{re.sub(r'[^A-Za-z0-9-]', '_', device)}.lock")
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            return lock, device
        if not told:
            logging.info("all of %s are taken; waiting for one", ", ".join(devices))
            told = True
        time.sleep(_SECONDS_BETWEEN_TRIES)

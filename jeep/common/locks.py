"""Locks of the operating system: they die with the process that holds them, however it ends."""

import fcntl
import getpass
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_CLAIMS: list[int] = []
"""Open files whose locks this process holds to its end."""


def lock_folder(kind: str) -> Path:
    """Where this machine's processes of one user lock things of a kind."""
    folder = Path(tempfile.gettempdir()) / f"jeep-{kind}-{getpass.getuser()}"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def held(path: Path) -> Iterator[None]:
    """No other process of this machine writes `path` during the block; waits for one that is at work on it, such as a
    job that outlived a killed run.
    """
    name = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:32]
    lock = FileLock(lock_folder("outputs") / f"{name}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        logging.info("another process is at work on %s; waiting for its end", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def alone_in(folder: Path) -> bool:
    """Note until this process ends that a run is at work in a folder; whether no other is.

    False also where the file system has no such locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / "jeep.lock", os.O_RDWR | os.O_CREAT)
    _CLAIMS.append(file)
    alone = False
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        alone = True
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_SH)  # waits for one that is asking just now
    return alone

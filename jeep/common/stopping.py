"""SIGTERM, by which schedulers end a job: one that keeps checkpoints writes one first; nothing half-written is left."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from weakref import WeakSet

STATUS = 128 + signal.SIGTERM
"""Exit status of a job that was asked to stop."""
SHELL = """set -euo pipefail; tee() { trap "" TERM; command tee "$@"; }; """
"""In front of a rule's command. A scheduler asks all processes of a job to stop: the log's tee stays until the job has
written its checkpoint, which would else end at its next word.
"""
_keepers: WeakSet = WeakSet()
_asked = False


def keeps(keeper: object) -> None:
    """`keeper` asks `asked_to_stop` before long, and then writes a checkpoint and ends the process."""
    _keepers.add(keeper)


def keeps_no_more(keeper: object) -> None:
    """`keeper` has nothing to write any more."""
    _keepers.discard(keeper)


def asked_to_stop() -> bool:
    """Whether the process should end at the next place where it can go on from."""
    return _asked


def _stop(_: int, __: FrameType | None) -> None:
    global _asked
    if not _keepers or _asked:
        sys.exit(STATUS)
    _asked = True


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM ends the block as an exception does, so that what it has begun is cleared away."""
    global _asked
    _asked, before = False, signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        _asked = False
        signal.signal(signal.SIGTERM, before)

"""How long something takes."""

import time
from collections.abc import Callable

import torch


def synchronize() -> None:
    """Wait until the accelerator, where there is one, has done what it was given."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def seconds(run: Callable[[], object]) -> float:
    """How long `run` takes."""
    synchronize()
    start = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - start

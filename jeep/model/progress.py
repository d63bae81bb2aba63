"""Checkpoints of long work, so that a killed job goes on from its last one."""

import hashlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from jeep.common.errors import UserError
from jeep.common.stopping import STATUS, asked_to_stop, keeps, keeps_no_more
from jeep.common.storage import clear_scratch, read_tensors, write_tensors
from jeep.model.editable import EditableModel


def fingerprint(model: EditableModel, *content: object) -> str:
    """What an unfinished result depends on: the weights and their precision, PyTorch, and `content` by its repr."""
    parts = (model.identity, str(model.norm.weight.dtype), torch.__version__, content)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


SECONDS = 60.0
"""Between two checkpoints, at least."""
SHARE = 0.05
"""Of the time that checkpoints take, at most."""


class Progress:
    """One checkpoint file, written again every minute, or less often where writing takes long."""

    def __init__(self, path: Path | None, fingerprint: str):
        """Without a path nothing is kept. A checkpoint with another fingerprint is not used."""
        self.path, self.fingerprint = path, fingerprint
        self.last, self.pause = time.monotonic(), SECONDS
        if path is not None:
            keeps(self)

    def load(self) -> tuple[int, dict[str, Tensor]]:
        """How much was done, and the tensors that were kept; 0 and none where there is no checkpoint to go on from."""
        if self.path is None:
            return 0, {}
        clear_scratch(self.path)
        if not self.path.is_file():
            return 0, {}
        try:
            tensors, provenance = read_tensors(self.path)
        except UserError as error:
            logging.warning("%s: begun anew", error)
            return 0, {}
        return (provenance["done"], tensors) if provenance.get("fingerprint") == self.fingerprint else (0, {})

    def save(self, done: int, tensors: Callable[[], dict[str, Tensor]]) -> None:
        """Keep what `tensors` returns, unless the last one is too young; and end the process if it is to stop."""
        started, stop = time.monotonic(), asked_to_stop()
        if self.path is not None and (stop or started - self.last >= self.pause):
            write_tensors(self.path, tensors(), {"done": done, "fingerprint": self.fingerprint})
            self.last = time.monotonic()
            self.pause = max(SECONDS, (self.last - started) / SHARE)
        if stop:
            sys.exit(STATUS)

    @contextmanager
    def resting(self, done: int, tensors: Callable[[], dict[str, Tensor]]) -> Iterator[None]:
        """For the length of a block, in which nothing is done and the process may end at once: all is kept before."""
        if self.path is not None:
            write_tensors(self.path, tensors(), {"done": done, "fingerprint": self.fingerprint})
        keeps_no_more(self)
        try:
            yield
        finally:
            if self.path is not None:
                keeps(self)

    def end(self) -> None:
        """Nothing more is kept. The checkpoint stays: who has written the result removes it."""
        keeps_no_more(self)


def adam_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an Adam optimizer as named tensors; none before its first step."""
    state = optimizer.state_dict()["state"]
    return {f"adam.{number}.{name}": value for number, entry in state.items() for name, value in entry.items()}


def restore_adam(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Bring back what `adam_tensors` returned, from among other tensors."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("adam."):
            _, number, part = name.split(".")
            state.setdefault(int(number), {})[part] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})

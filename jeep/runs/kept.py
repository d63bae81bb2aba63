"""What a sequence of edits keeps on disk until it is whole, so that a killed run goes on from there."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from jeep.common.storage import read_tensors, write_tensors, written


@dataclass
class State:
    """What goes from batch to batch: W and what the editor remembers, and nothing that grows with the batches."""

    done: int = 0
    """Batches."""
    weights: dict[str, Tensor] = field(default_factory=dict)
    """The parameters that were changed, as they are now, in the model's precision."""
    memory: dict[str, Tensor] = field(default_factory=dict)
    """`Editor.remember`'s."""
    trace: list[dict[str, Any]] = field(default_factory=list)
    """Of each batch: what was left out, ‖ΔW‖/‖W‖ of every matrix since the start, the editor's trace, seconds."""


@dataclass(frozen=True)
class Kept:
    """A folder of what was done, for results that depend on `mark` alone."""

    folder: Path
    mark: str

    def targets(self, batch: int) -> Path:
        """Target vectors of a batch that is under way."""
        return self.folder / f"{batch}.targets.safetensors"

    def progress(self, batch: int) -> Path:
        """What an editor keeps inside a batch."""
        return self.folder / f"{batch}.progress.safetensors"

    def results(self, count: int) -> Path:
        """Results of the first facts, once their batch is measured."""
        return self.folder / f"{count}.parquet"

    def drift(self, count: int) -> Path:
        """What became of held-out text behind the first facts."""
        return self.folder / f"{count}.drift.json"

    @property
    def _state(self) -> Path:
        return self.folder / "state.safetensors"

    def finish_batch(self, state: State) -> None:
        """Write the state behind a batch, whole or not at all, and remove what was kept inside the batch."""
        parts = {"weights": state.weights, "memory": state.memory}
        tensors = {f"{part}/{name}": value for part, entries in parts.items() for name, value in entries.items()}
        about = {"done": state.done, "trace": state.trace}
        write_tensors(self._state, {name: value.cpu().contiguous() for name, value in tensors.items()}, about)
        for path in (self.targets(state.done), self.progress(state.done)):
            path.unlink(missing_ok=True)

    def state(self) -> State:
        """The state that a killed run has kept; the first one where there is none."""
        if not self._state.is_file():
            return State()
        tensors, about = read_tensors(self._state)
        state = State(about["done"], trace=about["trace"])
        for name, value in tensors.items():
            part, _, name = name.partition("/")
            getattr(state, part)[name] = value
        return state

    def clear_stale(self) -> None:
        """Remove what was kept of a run that other results came of."""
        mark = self.folder / "mark"
        if not mark.is_file() or mark.read_text() != self.mark:
            self.clear()
            with written(mark):
                self.folder.mkdir(parents=True)
                mark.write_text(self.mark)

    def clear(self) -> None:
        """Remove the folder: the results are written elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)

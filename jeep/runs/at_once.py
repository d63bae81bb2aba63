"""A run: a method's edits of several numbers of facts, each measured as soon as it is made; a killed one goes on."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from jeep.common.errors import NotFinite
from jeep.common.settings import Metrics
from jeep.common.storage import atomic, read_json, write_json
from jeep.data.facts import Fact
from jeep.measure.evaluate import evaluate
from jeep.model.editable import EditableModel
from jeep.model.files import write_of

if TYPE_CHECKING:
    from jeep.editors.base import Editor
    from jeep.vectors.task import Task


def measured(
    model: EditableModel, deltas: dict[str, Tensor], facts: Sequence[Fact], metrics: Metrics, token_budget: int
) -> pd.DataFrame:
    """Results of facts in the model with some changes."""
    logging.info("measuring %d facts", len(facts))
    with model.edited(deltas):
        return evaluate(model, facts, metrics, token_budget)


def write_records(path: Path, results: Iterable[tuple[int, pd.DataFrame]], columns: Mapping[str, Any] | None) -> None:
    """Results by the number of edits in one file, with columns that name the run."""
    rows = [each.assign(edits=count, **columns or {}) for count, each in results]
    with atomic(path) as temporary:
        pd.concat(rows).to_parquet(temporary, index=False)


def finite(deltas: dict[str, Tensor]) -> dict[str, Tensor]:
    """The changes. Raises NotFinite where one is not finite."""
    broken = [name for name, delta in deltas.items() if not torch.isfinite(delta).all()]
    if broken:
        raise NotFinite(f"the change of {', '.join(broken)} is not finite: float32 may help")
    return deltas


@dataclass(frozen=True)
class Run:
    """Edits of one method in one model, in a folder of N.safetensors for N edits."""

    model: EditableModel
    method: Editor
    facts: Sequence[Fact]
    tasks: Mapping[int, Task]
    """By the number of edits, smallest first. Facts without a finite target are left out, of a small one all."""
    metrics: Metrics | None
    out: Path
    about: Mapping[str, Any]
    """What the files say of themselves."""
    mark: str
    """What the results depend on: of a run that was killed, what has another mark is made anew."""

    @property
    def partial(self) -> Path:
        """Where finished numbers wait for the others."""
        return self.out.with_name(f".{self.out.name}.partial")

    def make(self) -> tuple[dict[int, pd.DataFrame], dict[int, float]]:
        """Make what is not there: the edits; the results of each number, if asked for; the seconds of each edit.

        All of it waits in `partial` until `publish`.
        """
        seconds = {count: took for count in self.tasks if (took := self._kept(count)) is not None}
        for count, deltas, took in self._changes(seconds):
            task = self.tasks[count]
            left_out = {fact.case_id for fact in self.facts[:count]} - {fact.case_id for fact in task.facts}
            about = {
                **self.about,
                "edits": len(task.facts),
                "left_out": sorted(left_out | set(task.unwritten)),
                "trace": task.trace,
            }
            write_of(self.model.identity, self._path(count, "safetensors"), deltas, about)
            if self.metrics:
                result = measured(self.model, deltas, self.facts[:count], self.metrics, task.token_budget)
                with atomic(self._path(count, "parquet")) as temporary:
                    result.to_parquet(temporary, index=False)
            write_json(self._path(count, "json"), {"mark": self.mark, "seconds": took})
            self._path(count, "progress.safetensors").unlink(missing_ok=True)
            seconds[count] = took
        results = {count: pd.read_parquet(self._path(count, "parquet")) for count in self.tasks if self.metrics}
        return results, {count: seconds[count] for count in self.tasks}

    def publish(self) -> None:
        """Put the edits in their folder, when what was found of them is written: until then nothing is lost."""
        with atomic(self.out) as folder:
            folder.mkdir()
            for count in self.tasks:
                os.replace(self._path(count, "safetensors"), folder / f"{count}.safetensors")
        shutil.rmtree(self.partial)

    def _path(self, count: int, kind: str) -> Path:
        return self.partial / f"{count}.{kind}"

    def _kept(self, count: int) -> float | None:
        """The seconds of an edit that a killed run has finished; None where there is none."""
        path = self._path(count, "json")
        whole = path.is_file() and self._path(count, "safetensors").is_file()
        known = read_json(path) if whole else {}
        return known["seconds"] if known.get("mark") == self.mark else None

    def _changes(self, kept: Mapping[int, float]) -> Iterator[tuple[int, dict[str, Tensor], float]]:
        """The changes of each number of edits that is not kept, and the seconds that it takes from none."""
        asked = {
            count: replace(task, checkpoint=self._path(count, "progress.safetensors"))
            for count, task in self.tasks.items()
            if count not in kept
        }
        changes = self.method.edits(self.model, [task for task in asked.values() if task.facts])
        before = max(kept.values(), default=0.0)
        for count, task in asked.items():
            started = time.monotonic()
            deltas = finite(next(changes)) if task.facts else {}
            took = time.monotonic() - started + (before if self.method.one_pass else 0.0)
            before = took
            yield count, deltas, took
        next(changes, None)  # nothing more is kept

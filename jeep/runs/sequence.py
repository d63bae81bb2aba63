"""A sequence of edits: each batch is written into the model that the batches before left (lifelong editing)."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from jeep.common.errors import NotFinite
from jeep.common.settings import Metrics
from jeep.common.storage import atomic, read_json, read_tensors, write_json, write_tensors, written
from jeep.data.facts import Fact
from jeep.measure.drift import Reference, drift, summarize_drift, unedited
from jeep.measure.evaluate import evaluate
from jeep.model.editable import EditableModel
from jeep.runs.at_once import finite
from jeep.vectors.files import optimize_shard, read_targets
from jeep.vectors.task import Task

if TYPE_CHECKING:
    from jeep.editors.base import Editor


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
class SequenceRun:
    """T batches of n facts, in the facts' order, measured after every k-th batch and after the last."""

    model: EditableModel
    method: Editor | None
    """None measures the model as it is, in the same way."""
    facts: Sequence[Fact]
    size: int
    """n."""
    every: int
    """k."""
    task: Task
    """What every batch is given, beside its own facts and target vectors."""
    metrics: Metrics
    windows: Sequence[tuple[int, ...]]
    """Of held-out text, as token ids; none where drift is not measured."""
    folder: Path
    """Where a run is kept that is not finished."""
    mark: str
    """What results depend on: of a run that was killed, what has another mark is made anew."""

    @property
    def batches(self) -> int:
        """T; the last batch may be shorter."""
        return -(-len(self.facts) // self.size)

    @cached_property
    def batch_of(self) -> dict[str, int]:
        """The batch, counted from 1, that writes a fact, by its case id."""
        return {fact.case_id: number // self.size + 1 for number, fact in enumerate(self.facts)}

    def run(self) -> tuple[dict[int, pd.DataFrame], list[dict[str, Any]], dict[str, Tensor]]:
        """Results of all facts so far by their number; a trace of every batch; the change of all batches together.

        Results have a column `batch`, the fact's own; the trace of a measured batch has what it did to held-out text
        (`drift`, as `summarize_drift` says it). The model is left as it was, bit for bit.
        """
        self._warn_of_repeated()
        results: dict[int, pd.DataFrame] = {}
        drifts: dict[int, dict[str, Any]] = {}
        self._clear_stale()
        reference = unedited(self.model, self.windows, self.task.token_budget) if self.windows else None
        with self._given_back() as originals:
            state = self._resumed(originals)
            for batch in range(1, self.batches + 1):
                if batch > state.done:
                    self._advance(state, batch, originals)
                if batch % self.every == 0 or batch == self.batches:
                    count = min(batch * self.size, len(self.facts))
                    results[count] = self._measured(count, originals)
                    if reference:
                        drifts[batch] = self._drifted(count, originals, reference)
            total = self._changes(originals)
        trace = [note | {"drift": drifts[note["batch"]]} if note["batch"] in drifts else note for note in state.trace]
        return results, trace, total

    def clear(self) -> None:
        """Remove what was kept: the results are written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _warn_of_repeated(self) -> None:
        """A fact that is edited twice stays in the history with its old value, which the new edit fights."""
        asked = [(fact.subject, fact.template) for fact in self.facts]
        if repeated := len(asked) - len(set(asked)):
            logging.warning("%d of %d facts of the sequence are edited more than once", repeated, len(asked))

    @contextmanager
    def _given_back(self) -> Iterator[dict[str, Tensor]]:
        """The parameters as they were at first, filled as they are changed; they are back when the block ends."""
        originals: dict[str, Tensor] = {}
        try:
            yield originals
        finally:
            self._restore(originals)

    # One batch

    def _advance(self, state: State, batch: int, originals: dict[str, Tensor]) -> None:
        """Write a batch, and keep the state behind it."""
        started = time.monotonic()
        facts = self.facts[(batch - 1) * self.size : batch * self.size]
        logging.info("batch %d of %d", batch, self.batches)
        note: dict[str, Any] = {"batch": batch, "facts": len(facts)}
        if self.method is not None:
            own = {"memory": state.memory, "checkpoint": self._path(batch, "progress")}
            task = replace(self.task, facts=facts, **own, trace=[], notes={}, unwritten=[])
            note |= self._written(task, state, batch, originals)
        state.done = batch
        state.trace.append({**note, "seconds": round(time.monotonic() - started, 3)})
        self._keep(state)
        for path in (self._path(batch, "targets"), self._path(batch, "progress")):
            path.unlink(missing_ok=True)

    def _written(self, task: Task, state: State, batch: int, originals: dict[str, Tensor]) -> dict[str, Any]:
        """Change the model by a batch; what there is to say of it.

        A batch of which nothing stays finite is not written: a model that has broken down goes on to be measured.
        """
        asked = {fact.case_id for fact in task.facts}
        task, deltas, failure = self._edit(task, batch)
        for name in deltas:
            originals.setdefault(name, self.model.weight(name).clone())
        self.model.add_(deltas)
        if deltas:
            state.memory = self._editor.remember(self.model, task)
        state.weights = {name: self.model.weight(name) for name in originals}
        written = {fact.case_id for fact in task.facts} - set(task.unwritten) if deltas else set()
        return {
            "left_out": sorted(asked - written),
            "failure": failure,
            "relative_change": {
                name: float(change.norm() / originals[name].float().norm().clamp(min=torch.finfo(torch.float32).tiny))
                for name, change in self._changes(originals, task.trace).items()
                if change.ndim == 2
            },
            "layers": task.trace,
        }

    def _edit(self, task: Task, batch: int) -> tuple[Task, dict[str, Tensor], str | None]:
        """The task with its target vectors, the change, and why there is none."""
        try:
            task = self._with_targets(task, batch)
            return task, finite(self._editor.edit(self.model, task)), None
        except NotFinite as error:
            logging.warning("batch %d is not written: %s", batch, error)
            return task, {}, str(error)

    def _with_targets(self, task: Task, batch: int) -> Task:
        """Target vectors on the model as it is; kept batch by batch, so that a killed run goes on inside this one."""
        spec, path = self._editor.target_spec, self._path(batch, "targets")
        if spec is None:
            return task
        optimize_shard(self.model, task.facts, task.prefixes, spec, task.token_budget, path)
        vectors = read_targets([path], self.model, spec, task.facts)
        return task.of_first(len(task.facts), vectors)

    @cached_property
    def _editor(self) -> Editor:
        """The method, without what it makes of the change of all batches together."""
        return self.method.model_copy(update={"postprocess": None}) if self._whole else self.method

    @property
    def _whole(self) -> bool:
        """Whether the method makes something of the change of all batches together."""
        return self.method is not None and self.method.postprocess is not None and self.method.postprocess.whole

    # All batches so far

    def _changes(self, originals: dict[str, Tensor], trace: list[dict[str, Any]] | None = None) -> dict[str, Tensor]:
        """The change of all batches so far, float32 on the CPU, as it is measured; `trace` is told how it is made."""
        weight = self.model.weight
        total = {name: weight(name).float().cpu() - value.float().cpu() for name, value in originals.items()}
        if not self._whole:
            return total
        with self._unedited(originals):
            return self.method.finished(self.model, total, replace(self.task, trace=[] if trace is None else trace))

    def _measured(self, count: int, originals: dict[str, Tensor]) -> pd.DataFrame:
        """Results of the first facts, in the model as it is."""
        path = self.folder / f"{count}.parquet"
        if not path.is_file():
            logging.info("measuring %d facts", count)
            with self._as_measured(originals):
                found = evaluate(self.model, self.facts[:count], self.metrics, self.task.token_budget, broken=True)
            with atomic(path) as temporary:
                found.assign(batch=found["case_id"].map(self.batch_of)).to_parquet(temporary, index=False)
        return pd.read_parquet(path)

    def _drifted(self, count: int, originals: dict[str, Tensor], reference: Reference) -> dict[str, Any]:
        """What the model makes of held-out text, as it is; None where it answers NaN."""
        path = self.folder / f"{count}.drift.json"
        if not path.is_file():
            with self._as_measured(originals):
                try:
                    found = summarize_drift(drift(self.model, reference, self.task.token_budget))
                except NotFinite as error:
                    logging.warning("%s", error)
                    found = dict.fromkeys(("kl", "kl_ci95", "ratio"))
            write_json(path, found)
        return read_json(path)

    @contextmanager
    def _as_measured(self, originals: dict[str, Tensor]) -> Iterator[None]:
        """With what the method makes of all batches together in place of their plain sum."""
        if not self._whole:
            yield
            return
        finished = self._changes(originals)
        with self._unedited(originals):
            self.model.add_(finished)
            yield

    @contextmanager
    def _unedited(self, originals: dict[str, Tensor]) -> Iterator[None]:
        """The model as it was at first, for the length of a block."""
        with self.model.scratch(list(originals)):
            self._restore(originals)
            yield

    def _restore(self, weights: dict[str, Tensor]) -> None:
        for name, value in weights.items():
            self.model.weight(name).copy_(value)

    # What a killed run goes on from

    def _path(self, batch: int, kind: str) -> Path:
        return self.folder / f"{batch}.{kind}.safetensors"

    def _keep(self, state: State) -> None:
        """Write the state, whole or not at all."""
        parts = {"weights": state.weights, "memory": state.memory}
        tensors = {f"{part}/{name}": value for part, entries in parts.items() for name, value in entries.items()}
        about = {"done": state.done, "trace": state.trace}
        write_tensors(self._state, {name: value.cpu().contiguous() for name, value in tensors.items()}, about)

    @property
    def _state(self) -> Path:
        return self.folder / "state.safetensors"

    def _clear_stale(self) -> None:
        """Remove what was kept of a run that other results came of."""
        mark = self.folder / "mark"
        if not mark.is_file() or mark.read_text() != self.mark:
            self.clear()
            with written(mark):
                self.folder.mkdir(parents=True)
                mark.write_text(self.mark)

    def _resumed(self, originals: dict[str, Tensor]) -> State:
        """The state that a killed run has kept, and the model as it was then; the first one where there is none."""
        if not self._state.is_file():
            return State()
        tensors, about = read_tensors(self._state)
        state = State(about["done"], trace=about["trace"])
        for name, value in tensors.items():
            part, _, name = name.partition("/")
            getattr(state, part)[name] = value
        originals |= {name: self.model.weight(name).clone() for name in state.weights}
        self._restore(state.weights)
        return state

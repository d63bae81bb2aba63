"""A sequence of edits: each batch is written into the model that the batches before left (lifelong editing)."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from jeep.common.errors import NotFinite
from jeep.common.settings import Metrics, measured_batches
from jeep.common.storage import atomic, read_json, write_json
from jeep.data.facts import Fact
from jeep.measure.drift import Reference, drift, summarize_drift, unedited
from jeep.measure.evaluate import evaluate
from jeep.model.editable import EditableModel
from jeep.runs.at_once import finite
from jeep.runs.kept import Kept, State
from jeep.vectors.files import optimize_shard, read_targets
from jeep.vectors.task import Task

if TYPE_CHECKING:
    from jeep.editors.base import Editor


@dataclass(frozen=True)
class SequenceRun:
    """T batches of n facts, in the facts' order, measured after the first, after every k-th and after the last."""

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
    kept: Kept
    """Where a run is kept that is not finished."""

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
        self.kept.clear_stale()
        reference = self._reference()
        with self._given_back() as originals:
            state = self.kept.state()
            originals |= {name: self.model.weight(name).clone() for name in state.weights}
            self._restore(state.weights)
            for batch in range(1, self.batches + 1):
                if batch > state.done:
                    self._advance(state, batch, originals)
                if batch in self._measured_batches:
                    count = self._count(batch)
                    self._measure(count, originals, reference)
                    results[count] = pd.read_parquet(self.kept.results(count))
                    if self.windows:
                        drifts[batch] = read_json(self.kept.drift(count))
            total = self._changes(originals)
        trace = [note | {"drift": drifts[note["batch"]]} if note["batch"] in drifts else note for note in state.trace]
        return results, trace, total

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
            own = {"memory": state.memory, "checkpoint": self.kept.progress(batch)}
            task = replace(self.task, facts=facts, **own, trace=[], notes={}, unwritten=[])
            note |= self._written(task, state, batch, originals)
        state.done = batch
        state.trace.append({**note, "seconds": round(time.monotonic() - started, 3)})
        self.kept.finish_batch(state)

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
        spec, path = self._editor.target_spec, self.kept.targets(batch)
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

    @cached_property
    def _measured_batches(self) -> list[int]:
        return measured_batches(self.batches, self.every)

    def _count(self, batch: int) -> int:
        """Facts of the first batches."""
        return min(batch * self.size, len(self.facts))

    def _reference(self) -> Reference | None:
        """What the unedited model makes of held-out text; None where nothing is to be held against it any more."""
        wanted = [self.kept.drift(self._count(batch)) for batch in self._measured_batches] if self.windows else []
        if all(path.is_file() for path in wanted):
            return None
        return unedited(self.model, self.windows, self.task.token_budget)

    def _measure(self, count: int, originals: dict[str, Tensor], reference: Reference | None) -> None:
        """Write the first facts' results and what becomes of held-out text, unless they are: in the model as it is."""
        evaluated, drifted = self.kept.results(count), self.kept.drift(count)
        if evaluated.is_file() and (drifted.is_file() or not reference):
            return
        logging.info("measuring %d facts", count)
        with self._as_measured(originals):
            if not evaluated.is_file():
                found = evaluate(self.model, self.facts[:count], self.metrics, self.task.token_budget, broken=True)
                with atomic(evaluated) as temporary:
                    found.assign(batch=found["case_id"].map(self.batch_of)).to_parquet(temporary, index=False)
            if reference and not drifted.is_file():
                write_json(drifted, self._drifted(reference))

    def _drifted(self, reference: Reference) -> dict[str, Any]:
        """What the model makes of held-out text, as it is; None where it answers NaN."""
        try:
            return summarize_drift(drift(self.model, reference, self.task.token_budget))
        except NotFinite as error:
            logging.warning("%s", error)
            return dict.fromkeys(("kl", "kl_ci95", "ratio"))

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

"""A model with all that editing it with any settings needs, and the scores of an edit on development facts."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from jeep.common.errors import UserError
from jeep.common.places import Where
from jeep.common.settings import Metrics
from jeep.data.facts import Fact
from jeep.data.neighbours import Subjects
from jeep.editors.base import Editor
from jeep.measure.evaluate import evaluate
from jeep.measure.metrics import summarize
from jeep.model.checkpoints import bit_sum
from jeep.model.editable import EditableModel
from jeep.vectors.targets import Target, optimize_facts, with_finite_targets
from jeep.vectors.task import Task
from jeep.writing.anchors import mean_norms
from jeep.writing.null_space import Eigenvectors


@dataclass(frozen=True)
class DevelopmentSet:
    """Facts that a search edits; the experiment edits others."""

    name: str
    facts: Sequence[Fact]
    metrics: Metrics
    neighbours: Subjects = field(default_factory=dict)


@dataclass
class Bench:
    """A model and all that editing it with any settings needs; the model is back as it was after each edit."""

    model: EditableModel
    sets: Sequence[DevelopmentSet]
    prefixes: Sequence[str]
    covariance: Mapping
    token_budget: int
    training: Sequence[Fact] = ()
    """What hyper-networks are trained on."""
    networks: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """Hyper-networks trained so far, by their editor's settings."""
    eigenvectors: dict[Where, Eigenvectors] = field(default_factory=dict)
    """Of the covariances in whose null space some edit so far was written."""

    @property
    def content(self) -> tuple:
        """What scores depend on beside the model and the settings."""
        sums = sorted((place, bit_sum(matrix)) for place, matrix in self.covariance.items())
        return self.sets, tuple(self.prefixes), sums, self.training

    def prepare(
        self, editor: Editor, rounds: Sequence[Sequence[Fact]], seed: int
    ) -> tuple[list[list[Target]], Mapping[str, Tensor]]:
        """What is dear: the target vectors of every set's facts, the hyper-network."""
        spec, network = editor.target_spec, {}
        if editor.trained:
            key = editor.model_dump_json()
            if key not in self.networks:
                self.networks[key] = editor.train(self.model, self.training, seed, self.token_budget)[0]
            network = self.networks[key]
        if spec is None:
            return [[] for _ in rounds], network
        return [optimize_facts(self.model, facts, self.prefixes, spec, self.token_budget) for facts in rounds], network

    def scores(
        self, editors: Sequence[Editor], rounds: Sequence[Sequence[Fact]], seed: int
    ) -> Iterator[dict[str, dict[str, Any]]]:
        """The metrics of each set under each of some editors that share what is dear.

        Settings that an editor cannot work with (a network that does not train, say) score nothing, with the reason.
        """
        if not editors:
            return
        try:
            targets, network = self.prepare(editors[0], rounds, seed)
        except UserError as error:
            logging.warning("%s", error)
            for _ in editors:
                yield {each.name: {"Score": 0.0, "failed": str(error)} for each in self.sets}
            return
        for editor in editors:
            yield {
                each.name: self.score(editor, facts, each, vectors, network)
                for each, facts, vectors in zip(self.sets, rounds, targets, strict=True)
            }

    def _decompose(self, editor: Editor) -> None:
        """Find the eigenvectors that an editor needs; covariances stay as they are."""
        for where in editor.projected:
            if where not in self.eigenvectors:
                self.eigenvectors[where] = Eigenvectors.of(self.covariance[where], self.model.device)

    def _norms(self, editor: Editor, facts: Sequence[Fact], targets: Sequence[Target]) -> Sequence[float]:
        """Of the facts that are edited, for an editor that anchors: a search has no others."""
        return mean_norms(self.model, facts, targets, editor.sites, self.token_budget) if editor.anchors else ()

    def score(
        self, editor: Editor, facts: Sequence[Fact], given: DevelopmentSet, targets: Sequence[Target], network: Mapping
    ) -> dict[str, Any]:
        """The metrics of a set's facts after the edit, the half-width of Score, and what reached neighbours, by layer.

        Facts without a finite target are not written.

        An edit that cannot be made scores nothing, with the reason.
        """
        written = facts
        if targets:
            written, targets = with_finite_targets(facts, targets)
            if not written:
                return {"Score": 0.0, "failed": "no target vector stayed finite"}
        self._decompose(editor)
        task = Task(
            written,
            self.prefixes,
            self.token_budget,
            targets,
            self.covariance,
            network,
            eigenvectors=self.eigenvectors,
            norms=self._norms(editor, written, targets),
            neighbours=given.neighbours,
        )
        try:
            deltas = editor.edit(self.model, task)
            with self.model.edited(deltas):
                results = evaluate(self.model, facts, given.metrics, self.token_budget)
        except UserError as error:  # a layer whose covariance is singular, say, or weights that overflow
            return {"Score": 0.0, "failed": str(error)}
        summary = summarize(results).round(2).set_index("metric")
        half = summary["ci95"]["Score"]
        reached = {"reached": _reached(task.trace)} if given.neighbours and not editor.postprocess else {}
        return {**summary["value"], "ci95": None if math.isnan(half) else half, **reached}


def _reached(trace: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the updates of layers reached of the neighbours."""
    names = ("layer", "position", "leak", "gain", "gain_neighbours")
    return [
        {name: round(step[name], 3) if isinstance(step[name], float) else step[name] for name in names if name in step}
        for step in trace
    ]

"""Search for the hyper-parameters of small models, on development facts, by one protocol for every method.

Round one edits the same facts with settings drawn from the method's space. Round two edits as many other facts with the
best few settings of round one; the best there is chosen, and its Score is of facts that did not choose those few.
"""

import itertools
import json
import logging
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from jeep.editors import load_editor
from jeep.editors.base import Editor
from jeep.errors import UserError
from jeep.evaluate import evaluate
from jeep.facts import Fact
from jeep.metrics import summarize
from jeep.models import EditableModel
from jeep.progress import bit_sum, fingerprint
from jeep.settings import Metrics, Protocol, with_value, with_values
from jeep.storage import write_jsonl
from jeep.targets import Target, optimize_facts
from jeep.task import Task

Settings = Mapping[str, Any]
"""Nested settings of an editor, or one value for each dotted path of a space, such as low.clamp."""
Space = Mapping[str, Sequence[Any]]
"""Values to try by the dotted path of a setting."""
Trial = dict[str, Any]
"""round, draw, settings, Score (the mean over data sets), and the metrics of each data set under `sets`."""


@dataclass(frozen=True)
class DevelopmentSet:
    """Facts that a search edits; the experiment edits others."""

    name: str
    facts: Sequence[Fact]
    metrics: Metrics


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
                each.name: self.score(editor, facts, each.metrics, vectors, network)
                for each, facts, vectors in zip(self.sets, rounds, targets, strict=True)
            }

    def score(
        self, editor: Editor, facts: Sequence[Fact], metrics: Metrics, targets: Sequence[Target], network: Mapping
    ) -> dict[str, Any]:
        """The metrics after the edit, and the half-width of Score. Facts without a finite target are not written."""
        written = facts
        if targets:
            usable = [(fact, target) for fact, target in zip(facts, targets, strict=True) if target.finite]
            if not usable:
                return {"Score": 0.0, "failed": "no target vector stayed finite"}
            written, targets = zip(*usable, strict=True)
        task = Task(written, self.prefixes, self.token_budget, targets, self.covariance, network)
        deltas = editor.edit(self.model, task)
        with self.model.scratch(list(deltas)):
            self.model.add_(deltas)
            summary = summarize(evaluate(self.model, facts, metrics, self.token_budget)).round(2).set_index("metric")
        half = summary["ci95"]["Score"]
        return {**summary["value"], "ci95": None if math.isnan(half) else half}


def search(
    bench: Bench,
    name: str,
    settings: Settings,
    space: Space,
    protocol: Protocol,
    seed: int,
    checkpoint: Path | None = None,
) -> list[dict[str, Any]]:
    """Search an editor's settings; `settings` are what the space leaves out.

    Dear settings, which target vectors depend on, or all of a method without them, are drawn `protocol.draws` times;
    for each of these the others `protocol.variants` times. A search that was killed goes on from `checkpoint`, where
    each trial is noted as it ends. Returns a line about the search, then its trials in the order they were made,
    those of round two behind, the chosen one last. Raises UserError where a set has too few facts.
    """
    size = protocol.facts
    for each in bench.sets:
        if len(each.facts) < size * protocol.rounds:
            raise UserError(f"{each.name}: {len(each.facts)} usable facts, {size * protocol.rounds} are needed")
    mark = fingerprint(bench.model, bench.content, name, settings, space, protocol, seed)
    about = {"editor": name, "protocol": protocol.model_dump(), "seed": seed, "fingerprint": mark}
    notes = _Notes(checkpoint, about)

    def trials(number: int, draw: int, points: Sequence[Settings]) -> list[Trial]:
        """Points that differ in cheap settings alone; what is dear is made once, if one of them is not noted yet."""
        missing = [point for point in points if (number, point) not in notes]
        rounds = [each.facts[(number - 1) * size : number * size] for each in bench.sets]
        editors = [load_editor(name, with_values(settings, point)) for point in missing]
        for point, found in zip(missing, bench.scores(editors, rounds, seed), strict=True):
            mean = round(sum(scores["Score"] for scores in found.values()) / len(found), 2)
            notes.add({"round": number, "draw": draw, "settings": dict(point), "Score": mean, "sets": found})
        return [notes[number, point] for point in points]

    generator = random.Random(seed)
    dear, cheap = divide(name, settings, space)
    start = with_values(settings, {path: values[0] for path, values in cheap.items()})
    first: list[Trial] = []
    for draw, values in enumerate(draw_points(name, start, dear, protocol.draws, generator)):
        others = draw_points(name, with_values(settings, values), cheap, protocol.variants, generator)
        first += trials(1, draw, [values | other for other in others])
    best = sorted(first, key=lambda trial: -trial["Score"])[: protocol.finalists]
    second = [one for trial in reversed(best) for one in trials(2, trial["draw"], [trial["settings"]])]
    second.sort(key=lambda trial: trial["Score"])  # of equal ones the best of round one stays last
    return [about, *first, *second]


def divide(name: str, settings: Settings, space: Space) -> tuple[Space, Space]:
    """The part of a space that is dear, and the rest."""
    start = with_values(settings, {path: values[0] for path, values in space.items()})
    base = load_editor(name, start).target_spec
    if base is None:
        return space, {}

    def matters(path: str) -> bool:
        return any(load_editor(name, with_value(start, path, value)).target_spec != base for value in space[path])

    dear = {path for path in space if matters(path)}
    return {p: v for p, v in space.items() if p in dear}, {p: v for p, v in space.items() if p not in dear}


def draw_points(
    name: str, settings: Settings, space: Space, count: int, generator: random.Random
) -> list[dict[str, Any]]:
    """`count` distinct random points that the editor accepts together with `settings`; all where there are fewer."""
    points = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    generator.shuffle(points)

    def accepted(point: Settings) -> bool:
        try:
            load_editor(name, with_values(settings, point))
        except ValidationError:  # a combination that the editor excludes, such as regions that overlap
            return False
        return True

    return list(itertools.islice(filter(accepted, points), count))


class _Notes:
    """The trials of a search that are done, in a file of JSON lines that is read again after a kill."""

    def __init__(self, path: Path | None, about: Mapping[str, Any]):
        self.path, self.about = path, dict(about)
        self.trials: dict[str, Trial] = {}
        lines = path.read_text(encoding="utf-8").splitlines() if path and path.is_file() else []
        rows = list(_whole(lines))
        if rows and rows[0] == self.about:
            self.trials = {self._key(row["round"], row["settings"]): row for row in rows[1:]}
            logging.info("%d trials are done already", len(self.trials))
        elif rows:
            other = path.with_name(f"{path.name}.other")
            path.replace(other)
            logging.warning("%s is of another search (model, facts or space) and is kept as %s", path, other.name)
        if path:
            write_jsonl(path, [self.about, *self.trials.values()])

    @staticmethod
    def _key(number: int, point: Settings) -> str:
        return json.dumps([number, point], sort_keys=True)

    def __contains__(self, key: tuple[int, Settings]) -> bool:
        return self._key(*key) in self.trials

    def __getitem__(self, key: tuple[int, Settings]) -> Trial:
        return self.trials[self._key(*key)]

    def add(self, trial: Trial) -> None:
        """Note a trial that has ended."""
        logging.info("round %d: Score %.2f with %s", trial["round"], trial["Score"], trial["settings"])
        self.trials[self._key(trial["round"], trial["settings"])] = trial
        if self.path:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(trial, ensure_ascii=False) + "\n")


def _whole(lines: Sequence[str]):
    """The rows of JSON lines up to one that a kill has cut."""
    for line in lines:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return

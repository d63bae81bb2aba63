"""Search for the hyper-parameters of small models, on development facts, by Score."""

import itertools
import logging
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from jeep.editors import load_editor
from jeep.editors.base import Editor
from jeep.evaluate import evaluate
from jeep.facts import Fact
from jeep.metrics import summarize
from jeep.models import EditableModel
from jeep.settings import Metrics, with_value
from jeep.targets import Target, optimize_facts
from jeep.task import Task

Space = Mapping[str, Sequence[Any]]
"""Values to try by the dotted path of a setting, such as low.clamp."""


class Search:
    """Edits the development facts with many settings; the model is back as it was after each."""

    def __init__(
        self,
        model: EditableModel,
        facts: Sequence[Fact],
        metrics: Metrics,
        prefixes: Sequence[str],
        covariance: dict,
        token_budget: int,
        training: Sequence[Fact] = (),
    ):
        self.model, self.facts, self.metrics, self.prefixes = model, facts, metrics, prefixes
        self.covariance, self.token_budget, self.training = covariance, token_budget, training

    def run(
        self, name: str, settings: Mapping[str, Any], space: Space, trials: int, variants: int, seed: int
    ) -> list[dict[str, Any]]:
        """Score random settings: `trials` draws of those that are dear, `variants` of the rest each.

        Dear are settings that target vectors depend on, and all those of a method that trains a hyper-network. Where
        there are none, the others are drawn `trials` × `variants` times.
        The settings that are given are the first draw. Returns all that was tried, the best Score first.
        """
        generator = random.Random(seed)
        outer, inner = self._divide(name, settings, space)
        results = []
        for values in [{}, *self._draws(outer, trials - 1, generator)]:
            drawn = self._apply(settings, values)
            try:
                editor = load_editor(name, drawn)
            except ValidationError:  # a combination that the editor excludes, such as regions that overlap
                continue
            targets, network = self._targets(editor), self._network(editor, seed)
            for others in [{}, *self._draws(inner, (variants if outer else trials * variants) - 1, generator)]:
                chosen = {**values, **others}
                result = {"settings": chosen} | self._score(
                    load_editor(name, self._apply(drawn, others)), targets, network
                )
                logging.info("%s", result)
                results.append(result)
        return sorted(results, key=lambda result: -result["Score"])

    def _divide(self, name: str, settings: Mapping[str, Any], space: Space) -> tuple[Space, Space]:
        """The settings that are dear, and the others."""
        if load_editor(name, settings).trained:
            return space, {}

        def spec(values):
            return load_editor(name, values).target_spec

        base = spec(settings)
        outer = {p: v for p, v in space.items() if any(spec(with_value(settings, p, x)) != base for x in v)}
        return outer, {path: values for path, values in space.items() if path not in outer}

    @staticmethod
    def _draws(space: Space, count: int, generator: random.Random) -> list[dict[str, Any]]:
        """Distinct random points of a space."""
        if not space:
            return []
        points = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
        return generator.sample(points, min(count, len(points)))

    @staticmethod
    def _apply(settings: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        for path, value in values.items():
            settings = with_value(settings, path, value)
        return dict(settings)

    def _targets(self, editor: Editor) -> list[Target]:
        if editor.target_spec is None:
            return []
        return optimize_facts(self.model, self.facts, self.prefixes, editor.target_spec, self.token_budget)

    def _network(self, editor: Editor, seed: int) -> Mapping[str, Tensor]:
        return editor.train(self.model, self.training, seed, self.token_budget)[0] if editor.trained else {}

    def _score(self, editor: Editor, targets: list[Target], network: Mapping[str, Tensor]) -> dict[str, float | None]:
        """The metrics after the edit, and the half-width of Score."""
        task = Task(self.facts, self.prefixes, self.token_budget, targets, self.covariance, network)
        deltas = editor.edit(self.model, task)
        with self.model.scratch(list(deltas)):
            self.model.add_(deltas)
            summary = summarize(evaluate(self.model, self.facts, self.metrics, self.token_budget)).round(2)
        half = dict(zip(summary["metric"], summary["ci95"], strict=True))["Score"]
        return dict(zip(summary["metric"], summary["value"], strict=True)) | {
            "ci95": None if math.isnan(half) else half
        }

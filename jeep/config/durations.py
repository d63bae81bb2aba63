"""How many minutes the jobs of each rule may take: from the operations that they need. No torch.

Counted are passes of tokens through a model, two operations a weight forward and two more for each kind of gradient,
and the factors of the closed form; not what a cache saves, nor early stops. `benchmarks/operations.py` counts exactly.
"""

import math

from jeep.common.settings import measured_batches
from jeep.config.needs import PROMPT, Sizes
from jeep.config.plan import Plan
from jeep.editors import Editor

DAY = 1440
"""At most: queues have places for it. What takes longer goes on from its checkpoint."""
START = 60
"""Python, the weights from a shared disk, a few hundred prompts; on a card or, of a small model, on a CPU."""
RATE = 3e12
"""Operations a second that any card does: a third of what an A100 does in float32 at half its peak."""
EVALUATED = 260
"""Tokens of a record's prompts and answers: CounterFact's thirteen prompts of twenty each."""
GENERATED = 1000
"""Tokens of a fact's texts, and what a token costs more that is generated alone, on the whole."""
TRAINED = 48
"""Tokens of a record that a hyper-network learns from: its prompt, a paraphrase and an unrelated one, with answers."""
POSITIONS = 2048
"""Tokens of an article at most, where the configuration does not say."""
FORWARD, BY_STATE, BY_WEIGHT = 2.0, 4.0, 6.0
"""Operations a weight and token: forward alone, with gradients of states, with those of weights too."""

LONG = 480
"""Minutes of what reads all of Wikipedia's text and runs no model."""


def minutes(operations: float = 0.0, attempt: int = 1, least: int = START) -> int:
    """The time of a job that needs so many operations, as much again on each attempt; a day at most."""
    return min(math.ceil(least + operations / RATE / 60) * attempt, DAY)


class Durations:
    """What the jobs of a plan compute, in floating-point operations, given a checkpoint's sizes."""

    def __init__(self, plan: Plan):
        self.plan = plan

    def covariance(self, sizes: Sizes, model: str, places: int) -> float:
        """A pass over text, or over one shard of it, and k kᵀ of so many W_O."""
        entry = self.plan.config.statistics_of(model)
        tokens = entry.tokens or (entry.articles or 0) * (entry.length or POSITIONS)
        return tokens / entry.shards * (FORWARD * sizes.parameters + places * 2 * sizes.inputs**2)

    def targets(self, sizes: Sizes, model: str, dataset: str, method: str) -> float:
        """The target vectors of one shard."""
        editor = self.plan.editor(method, model, dataset)
        facts = max(self.plan.edit_counts(model, dataset, method))
        return _targets(sizes, editor, math.ceil(facts / self.plan.config.editing.shards))

    def edit(self, sizes: Sizes, model: str, dataset: str, method: str) -> float:
        """A run: the edits of every number, and their evaluation."""
        editor = self.plan.editor(method, model, dataset)
        counts = self.plan.edit_counts(model, dataset, method)
        return sum(_edit(sizes, editor, facts) + _evaluation(sizes, facts) for facts in counts)

    def evaluate(self, sizes: Sizes, model: str, dataset: str, method: str) -> float:
        """The evaluation of one model."""
        return _evaluation(sizes, max(self.plan.edit_counts(model, dataset, method)))

    def sequence(self, sizes: Sizes, model: str, dataset: str, method: str, part: str) -> float:
        """Every batch, and all facts so far after each that is measured."""
        editor, its = self.plan.editor(method, model, dataset), self.plan.experiment.sequences[part]
        batch = _targets(sizes, editor, its.edits) + _edit(sizes, editor, its.edits)
        return its.batches * batch + self.measured_sequence(sizes, part)

    def measured_sequence(self, sizes: Sizes, part: str) -> float:
        """The evaluations of a sequence, also of the model that is left as it is."""
        its = self.plan.experiment.sequences[part]
        held_out = its.held_out or 0
        measured = measured_batches(its.batches, its.measure_every)
        facts = sum(measured) * its.edits
        return _evaluation(sizes, facts) + len(measured) * held_out * FORWARD * sizes.parameters

    def damage(self, sizes: Sizes, model: str, dataset: str, seed: str | int) -> float:
        """All that is asked of the unedited model and of each run's."""
        part = self.plan.experiment.damage
        asked, counts = part.amounts, part.counts(dataset, self.plan.experiment.edits)
        questions = asked.questions * len(part.tasks) + 3 * asked.chains
        tokens = asked.facts * (EVALUATED + GENERATED) + asked.texts * GENERATED + asked.tokens + 100 * questions
        models = 1 + len(counts) * len(self.plan.damage_runs[model, dataset, int(seed)])
        return models * tokens * FORWARD * sizes.parameters

    def hypernetwork(self, sizes: Sizes, model: str, method: str) -> float:
        """Its training; a day where it is not said how many facts it is."""
        facts = self.plan.config.training_of(model).facts
        return _training(sizes, self.plan.trained_editor(model, method), facts)

    def search(self, sizes: Sizes, editor: Editor) -> float:
        """Every trial of both rounds."""
        its = self.plan.config.tuning.protocol
        learned = _training(sizes, editor, None) if editor.trained else _targets(sizes, editor, its.facts)
        tried = _edit(sizes, editor, its.facts) + _evaluation(sizes, its.facts)
        return (its.draws + its.finalists) * learned + (its.draws * its.variants + its.finalists) * tried


def _targets(sizes: Sizes, editor: Editor, facts: int) -> float:
    """Every step of every fact's target vectors: forward under all prefixes and the KL prompt, back to δ."""
    prompts = 2 + sum(texts for texts, _ in editor.prefix_kinds)
    steps = editor.spec.optimization.steps if editor.spec else 0
    return facts * steps * prompts * PROMPT * BY_STATE * sizes.parameters


def _edit(sizes: Sizes, editor: Editor, facts: int) -> float:
    """Keys and residuals of all facts, and a factor for each W_O; what is optimised during the edit."""
    weights = facts * PROMPT * sizes.parameters
    if not editor.covariances:
        return BY_WEIGHT * weights * getattr(editor, "epochs", 1)
    prompts = 1 + sum(texts for texts, _ in editor.prefix_kinds)
    within = 0.0 if editor.target_spec else _targets(sizes, editor, facts)
    return within + FORWARD * weights * prompts + len(editor.covariances) * 3 * sizes.inputs**3


def _evaluation(sizes: Sizes, facts: int) -> float:
    return facts * EVALUATED * FORWARD * sizes.parameters


def _training(sizes: Sizes, editor: Editor, facts: int | None) -> float:
    if facts is None:
        return RATE * DAY * 60
    return editor.training.epochs * facts * TRAINED * BY_WEIGHT * sizes.parameters

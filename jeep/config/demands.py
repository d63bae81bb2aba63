"""What the jobs of each rule ask a cluster for: the megabytes that they hold. No torch.

The rules' resources (rules/resources.smk) and the table in docs/scale.md both come from here and from `durations`.
"""

from collections.abc import Iterator, Mapping

from jeep.common.settings import UNEDITED, Dtype
from jeep.config import needs
from jeep.config.durations import Durations, minutes
from jeep.config.experiment import CaseStudy, QuickLook
from jeep.config.needs import Sizes
from jeep.config.plan import Plan
from jeep.editors import Editor


class Demands:
    """What the jobs of a plan hold of a checkpoint's sizes, in megabytes beside the process itself (`needs.total`)."""

    def __init__(self, plan: Plan):
        self.plan = plan

    def read(self, sizes: Sizes, model: str) -> float:
        """A job that runs a model as it is: prefixes, probes."""
        return needs.running(sizes, self.plan.config.models[model].dtype)

    def run(self, sizes: Sizes, model: str, dataset: str, method: str) -> float:
        """A job that runs a model for a method: target vectors, evaluation, the edited checkpoint."""
        return needs.running(sizes, self.plan.precision(model, dataset, method))

    def edit(self, sizes: Sizes, model: str, dataset: str, method: str) -> float:
        """A run: its largest edit."""
        editor = self.plan.editor(method, model, dataset)
        facts = max(self.plan.edit_counts(model, dataset, method))
        dtype = self.plan.precision(model, dataset, method)
        return needs.running(sizes, dtype) + _editing(sizes, dtype, editor, facts, len(editor.covariances))

    def damage(self, sizes: Sizes, model: str, dataset: str, seed: str | int) -> float:
        """The model in the widest of its methods' precisions, and what it answers without an edit."""
        runs = self.plan.damage_runs[model, dataset, int(seed)]
        used = {self.plan.precision(model, dataset, run.method) for run in runs}
        return max(needs.running(sizes, dtype) for dtype in used)

    def sequence(self, sizes: Sizes, model: str, dataset: str, method: str, part: str) -> float:
        """A sequence of edits: one batch, and what goes from batch to batch."""
        editor = self.plan.editor(method, model, dataset)
        facts = self.plan.experiment.sequences[part].edits
        dtype, places = self.plan.precision(model, dataset, method), len(editor.covariances)
        held = needs.running(sizes, dtype) + _editing(sizes, dtype, editor, facts, places)
        return held + needs.remembered(sizes, dtype, len(editor.written))

    def covariance(self, sizes: Sizes, model: str, places: int) -> float:
        """A pass over text for so many W_O."""
        dtype = self.plan.config.statistics_of(model).dtype or self.plan.config.models[model].dtype
        return needs.running(sizes, dtype) + needs.covariances(sizes, places)

    def hypernetwork(self, sizes: Sizes, model: str, method: str) -> float:
        """The training of a hyper-network."""
        editor = self.plan.trained_editor(model, method)
        dtype = editor.precision(self.plan.config.models[model].dtype)
        return needs.running(sizes, dtype) + needs.training(sizes, dtype)

    def search(self, sizes: Sizes, model: str, editor: Editor, places: int) -> float:
        """A search over an editor's settings, with the covariances of so many W_O."""
        dtype = editor.precision(self.plan.config.models[model].dtype)
        facts = self.plan.config.tuning.protocol.facts
        return needs.running(sizes, dtype) + _editing(sizes, dtype, editor, facts, places)

    def shown(self, sizes: Sizes, part: CaseStudy | QuickLook) -> float:
        """The case study, or the first look: a model in the widest of its methods' precisions."""
        used = {self.plan.precision(part.model, part.dataset, method) for method in part.methods}
        return max(needs.running(sizes, dtype) for dtype in used)

    def table(self, sizes: Mapping[str, Sizes]) -> Iterator[dict[str, object]]:
        """The rules that run the models of the experiment, with what their largest and their longest job asks for."""
        for model, its in sizes.items():
            for rule, jobs in self._jobs(its, model).items():
                if jobs:
                    held, operations = (max(values) for values in zip(*jobs, strict=True))
                    asked = {"mem_mb": needs.total(held), "runtime": minutes(operations)}
                    yield {"model": model, "rule": rule, **asked}

    def _jobs(self, its: Sizes, model: str) -> dict[str, list[tuple[float, float]]]:
        """(megabytes, operations) of every job of a model, by rule."""
        work = Durations(self.plan)
        cells = [cell for cell in self.plan.cells if cell[0] == model]
        edited = [cell for cell in cells if cell[2] != UNEDITED]
        optimised = [cell for cell in edited if self.plan.editor(cell[2], cell[0], cell[1]).target_spec]
        collected = [(model, len(places)) for places in self.plan.collected_places(model).values() if places]
        trained = [(name, method) for name, method in self.plan.trained if name == model]
        sequences = [
            (run.model, run.dataset, run.method, part)
            for part in self.plan.experiment.sequences
            for run in self.plan.sequence_runs(part)
            if run.model == model and run.method != UNEDITED
        ]
        asked = {
            "covariance": (self.covariance, work.covariance, collected),
            "hypernetwork": (self.hypernetwork, work.hypernetwork, trained),
            "targets": (self.run, work.targets, optimised),
            "edit": (self.edit, work.edit, edited),
            "sequence": (self.sequence, work.sequence, sequences),
            "evaluate": (self.run, work.evaluate, [cell for cell in cells if cell[2] == UNEDITED]),
            "damage": (self.damage, work.damage, [where for where in self.plan.damage_runs if where[0] == model]),
        }
        found = {"prefixes": [(self.read(its, model), 0.0)]}
        for rule, (held, needed, jobs) in asked.items():
            found[rule] = [(held(its, *job), needed(its, *job)) for job in jobs]
        found["apply_edit"] = [(self.run(its, *cell), 0.0) for cell in edited]
        return found


def _editing(sizes: Sizes, dtype: Dtype, editor: Editor, facts: int, places: int) -> float:
    """What an edit holds beside the model; with the covariances of so many W_O, if it needs any."""
    if places:
        prompts = 1 + sum(texts for texts, _ in editor.prefix_kinds)
        held = needs.closed_form(sizes, dtype, places, 1 if editor.one_pass else facts, prompts)
        return held + needs.null_spaces(sizes, len(editor.projected))
    sums = needs.normal_equations(sizes, len(editor.written)) if getattr(editor, "normal_equations", False) else 0.0
    return needs.training(sizes, dtype) + sums

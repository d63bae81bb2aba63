"""An edit: facts written into a model that is in memory, measured, undone, saved."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jeep.api.damage import Tasks, damage_of
from jeep.api.defaults import usual_settings
from jeep.api.facts import Facts, usable_facts
from jeep.api.outcome import answered, outcome_of, prompts_of, reasons_of, summary
from jeep.api.statistics import covariances_for, sample_of
from jeep.common.errors import UserError
from jeep.common.nested import merge
from jeep.common.places import require_layers
from jeep.common.storage import atomic, write_json
from jeep.data.neighbours import draw_subjects
from jeep.editors import checked_editor
from jeep.probes.contrast import contrast
from jeep.probes.proposal import propose_regions
from jeep.report.texts import render
from jeep.vectors.prefixes import sample_prefixes
from jeep.vectors.targets import Target, optimize_facts, with_finite_targets
from jeep.vectors.task import Task
from jeep.writing.neighbourhood import require_neighbours

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from jeep.common.settings import Sample
    from jeep.data.facts import Fact
    from jeep.data.formats import Format
    from jeep.editors.base import Editor
    from jeep.model.editable import EditableModel


@dataclass
class Edit:
    """Facts that were written into a model: in force until `undo`, or for the length of a `with` block."""

    model: EditableModel
    facts: list[Fact]
    method: str
    settings: dict[str, Any]
    deltas: dict[str, Tensor]
    """The change of each parameter, by its name."""
    outcome: pd.DataFrame
    """A row for each prompt of the facts: case_id, kind (edited, paraphrase, unrelated), prompt, the answer that is
    wanted, its probability before and after (p_before, p_after), whether the model says it (said_before, said_after),
    ok, and why an edited prompt is not."""
    refused: list[dict[str, str]]
    """Records that could not be used, with reasons."""
    seconds: float
    sample: Sample | None = None
    """The text that its covariances are of."""
    trace: list[dict[str, Any]] = field(default_factory=list)
    """Of each written layer: its relative change, the residuals before and after; what reached neighbours."""
    damaged: pd.DataFrame | None = field(default=None, repr=False)
    """What `damage` found, once it was asked."""
    _scratch: ExitStack | None = field(default=None, repr=False)
    """Gives the parameters back; there while the edit is in force."""

    def __str__(self) -> str:
        """What took, what did not and why, and how long it took."""
        return summary(self.outcome, self.seconds)

    @property
    def in_force(self) -> bool:
        """Whether the model has the edit."""
        return self._scratch is not None

    def apply(self) -> Edit:
        """Write the edit into the model (again); nothing where it is in force."""
        if not self.in_force:
            self._scratch = ExitStack()
            self._scratch.enter_context(self.model.edited(self.deltas))
            self.model.edits.append(self)
        return self

    def undo(self) -> None:
        """Give the model back what it was, bit for bit. Raises UserError while a later edit is in force."""
        if not self.in_force:
            return
        if self.model.edits[-1] is not self:
            raise UserError("a later edit is in force: undo that one first")
        self._scratch.close()
        self._scratch = None
        self.model.edits.pop()

    def __enter__(self) -> Edit:
        """In force for the length of the block."""
        return self.apply()

    def __exit__(self, *error: object) -> None:
        self.undo()

    def damage(
        self,
        text: str | Path | Iterable[str] | None = None,
        *,
        tokens: int = 10_000,
        tasks: Tasks | None = None,
        facts: int = 100,
        token_budget: int = 2048,
    ) -> pd.DataFrame:
        """What else the edit changes, held against the model without it; the page of `report` shows it then.

        A row for each metric: units, before, after, difference and the ends of its 95 % interval, paired over units.
        perplexity (difference in percent), nll and kl (nats a token) are of `tokens` of `text`, a file or texts that
        the covariances have not read; by default of what they have left of theirs. ES_g, GS_g and LS_g (percent) are
        of free answers to the prompts of the first `facts`: the new answer and nothing else, or, for unrelated
        prompts, the same text as before; ES_p and GS_p: beginning with the new answer. `tasks` are further multiple
        choice (percent right), by name: files of JSON lines {text, choices, label}, or questions.

        Where the covariances have read all of their text, and no other is given, the log says so, and perplexity and
        drift are left out. Raises UserError while a later edit is in force, and for text too short for a window.
        """
        self.damaged = damage_of(self, text, tokens, tasks or {}, facts, token_budget)
        return self.damaged

    def report(self, path: str | Path) -> Path:
        """A page of HTML: every prompt before and after, what did not take and why, the settings."""
        text = render(
            Path(__file__).with_name("report.html.jinja"),
            escape=True,
            title=f"{len(self.facts)} facts edited by {self.method}",
            summary=str(self),
            kinds={"edited": "Edited facts", "paraphrase": "Paraphrases", "unrelated": "Unrelated prompts"},
            outcome=self.outcome.to_dict("records"),
            damaged=[] if self.damaged is None else self.damaged.to_dict("records"),
            refused=self.refused,
            method=self.method,
            changed=sorted(self.deltas),
            settings=json.dumps(self.settings, ensure_ascii=False, indent=2),
        )
        with atomic(Path(path).expanduser()) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return Path(path)

    def save(self, folder: str | Path) -> Path:
        """The edited model as an ordinary checkpoint folder, with what was done in its jeep.json."""
        about = {
            "method": self.method,
            "settings": self.settings,
            "edits": [fact.to_json() for fact in self.facts],
            "changed": sorted(self.deltas),
            "took": int(self.outcome.query("kind == 'edited'")["ok"].sum()),
            "versions": {name: version(name) for name in ("jeep", "torch", "transformers")},
        }
        was_in_force, path = self.in_force, Path(folder).expanduser()
        self.apply()
        try:
            with atomic(path) as scratch:
                self.model.save(scratch)
                write_json(scratch / "jeep.json", about)
        finally:
            if not was_in_force:
                self.undo()
        return path


NEIGHBOURS = 20
"""Subjects of neighbours for each relation at most."""


def edit(
    model: EditableModel,
    facts: Facts,
    method: str = "jeep",
    *,
    settings: Mapping[str, Any] | None = None,
    regions: Literal["probe"] | None = None,
    neighbours: Facts | None = None,
    text: str | Path | Iterable[str] | None = None,
    tokens: int | None = None,
    form: Format | None = None,
    on_invalid: Literal["error", "skip"] = "error",
    chat: bool = False,
    seed: int = 0,
    token_budget: int = 2048,
) -> Edit:
    """Write facts into a model and measure what that did; the model has the edit afterwards (`Edit.undo`).

    `facts` are a file, a table, or records (the project's own, CounterFact's, zsRE's or EasyEdit's names). `method` is
    jeep, memit, pmet, rome or ft_wd; `settings` replace some of its settings for this model, which are the paper's for
    the paper's models and else by relative depth. `regions="probe"` takes JEEP's layers from the contrast probe on
    these facts, which then need original answers. `neighbours` are facts of the same relations that are neither edited
    nor asked about: the edit's `trace` says how much of it reaches their subjects, and settings may spare them.
    Covariances are estimated on `text` (default: leads of Wikipedia) over `tokens` (default: ten for each input of
    W_O), and kept. `chat` asks each prompt as the user's turn of the tokenizer's chat template.

    Raises UserError where facts, settings and model do not fit one another; the model is then as it was.
    """
    started = time.monotonic()
    chosen, refused = usable_facts(facts, model, form, on_invalid, chat)
    editor, full = _editor(model, method, settings or {}, _probed(model, chosen, token_budget) if regions else {})
    subjects = {}
    if neighbours is not None:
        subjects = draw_subjects(chosen, usable_facts(neighbours, model, None, on_invalid, chat)[0], NEIGHBOURS, seed)
    require_neighbours(editor.placements, subjects)
    logging.info("%s with %s", method, json.dumps(full))
    prompts = prompts_of(chosen)
    before = answered(model, prompts, token_budget)
    prefixes = sample_prefixes(model, seed, editor.prefix_kinds)
    sample = sample_of(model, editor.covariances, text, tokens)
    covariance = covariances_for(model, editor.covariances, sample, token_budget)
    targets = optimize_facts(model, chosen, prefixes, editor.target_spec, token_budget) if editor.target_spec else []
    task = replace(_task(chosen, targets, prefixes, covariance, token_budget), neighbours=subjects)
    deltas = editor.edit(model, task)
    done = Edit(model, chosen, method, full, deltas, prompts, refused, 0.0, sample, task.trace).apply()
    after = answered(model, prompts, token_budget)
    if not np.isfinite(after[0]).all():
        done.undo()
        raise UserError("the edited model answers NaN: softer settings, or float32, may help")
    done.outcome = outcome_of(prompts, before, after, reasons_of(chosen, targets, task.unwritten))
    done.seconds = time.monotonic() - started
    return done


def _editor(
    model: EditableModel, method: str, settings: Mapping[str, Any], regions: Mapping[str, Any]
) -> tuple[Editor, dict[str, Any]]:
    """The method for this model, and all its settings."""
    name, known = usual_settings(method, model)
    full = merge(merge(known, regions), settings)
    editor = checked_editor(name, full, f"settings of {method}")
    require_layers(editor.written, model.depth)
    return editor, full


def _probed(model: EditableModel, facts: list[Fact], token_budget: int) -> dict[str, Any]:
    """JEEP's regions as the contrast probe proposes them on the facts."""
    found = propose_regions(contrast(model, facts, norm=True, token_budget=token_budget), low=6, high=3)
    empty = [name for name in ("low", "high") if not found[name]]
    if empty:
        raise UserError(
            f"the probe proposes no {empty[0]} region on these {len(facts)} facts: give its layers yourself"
        )
    return {name: {"layers": found[name]} for name in ("low", "high")}


def _task(
    facts: list[Fact], targets: list[Target], prefixes: list[str], covariance: Mapping, token_budget: int
) -> Task:
    """What is written: facts whose target vector did not stay finite are left out. Raises UserError where all are."""
    if not targets:
        return Task(facts, prefixes, token_budget, covariance=covariance)
    written, vectors = with_finite_targets(facts, targets)
    if not written:
        raise UserError("no target vector stayed finite: a smaller learning rate, or float32, may help")
    return Task(written, prefixes, token_budget, vectors, covariance)

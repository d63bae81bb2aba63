"""What else the edits of several methods change, asked of one model: a killed job repeats only the run it was in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from jeep.common.storage import atomic, sha256
from jeep.data.facts import Fact
from jeep.measure.damage import COLUMNS, DRAWN, KINDS, Damage, Questions
from jeep.model.editable import EditableModel
from jeep.model.files import read_of
from jeep.model.progress import fingerprint


@dataclass
class DamageRun:
    """The runs of one model, data set and seed, in one file of rows (`jeep.measure.damage`) with what names each."""

    facts: Sequence[Fact]
    """Of the largest edit."""
    questions: Questions
    """But for the held-out windows, which depend on the model's tokenizer."""
    columns: Mapping[str, Any]
    """What names the runs, beside method and edits."""
    code: str
    """Digest of the code."""
    token_budget: int
    out: Path
    _done: dict[tuple[str, int], pd.DataFrame] = field(default_factory=dict)
    _known: dict[str, pd.DataFrame] = field(default_factory=dict)
    """What the file held, by its marks."""

    def __post_init__(self):
        if self.out.is_file():
            self._known = dict(tuple(pd.read_parquet(self.out).groupby("mark", sort=False)))

    def ask(
        self,
        model: EditableModel,
        windows: Sequence[tuple[int, ...]],
        runs: Sequence[tuple[Mapping[str, Any], Path]],
    ) -> None:
        """Ask `model` with each run's edits, and write the file after each.

        A run is its method and its numbers of edits, smallest first, and the folder of its changes. With fewer edits
        than the most it is asked what the figure draws alone. What the file holds is kept where edit, model, questions
        and code are the same. Raises UserError for an edit of another model.
        """
        questions = replace(self.questions, windows=windows)
        damage = None
        for run, folder in runs:
            for count in run["edits"]:
                path, kinds = folder / f"{count}.safetensors", KINDS if count == run["edits"][-1] else DRAWN
                content = (questions, self.token_budget, run["method"], sha256(path), kinds, self.code)
                mark = fingerprint(model, *content)
                rows = self._known.pop(mark, None)
                if rows is None:
                    damage = damage or Damage(model, questions, self.token_budget)
                    with model.edited(read_of(model.identity, path)[0]):
                        rows = damage.of(self.facts[:count], kinds)
                names = {**self.columns, "method": run["method"], "edits": count, "mark": mark}
                self._done[run["method"], count] = rows[COLUMNS].assign(**names)
                self._write([*self._done.values(), *self._known.values()])

    def finish(self, methods: Sequence[str]) -> None:
        """Write the runs in the order of `methods`, and nothing else that the file held."""
        order = sorted(self._done, key=lambda key: (methods.index(key[0]), key[1]))
        self._write([self._done[key] for key in order])

    def _write(self, parts: Sequence[pd.DataFrame]) -> None:
        with atomic(self.out) as temporary:
            pd.concat(parts, ignore_index=True).to_parquet(temporary, index=False)

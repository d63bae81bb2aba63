"""What else the edits of several methods change, asked of one model: a killed job repeats only the run it was in."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from jeep.common.storage import atomic, sha256
from jeep.data.facts import Fact
from jeep.measure.damage import COLUMNS, DRAWN, KINDS, Rows
from jeep.model.editable import EditableModel
from jeep.model.files import read_of
from jeep.model.progress import fingerprint


class Asker(Protocol):
    """What an unedited model has answered, and how an edited one is held against it."""

    def of(self, edited: Sequence[Fact], kinds: Sequence[str]) -> Rows:
        """The answers of the model as it is now, with these facts edited in it."""


@dataclass
class DamageRun:
    """The runs of one model, data set and seed, in one file of rows (`jeep.measure.damage`) with what names each."""

    facts: Sequence[Fact]
    """Of the largest edit."""
    columns: Mapping[str, Any]
    """What names the runs, beside method and edits."""
    code: str
    """Digest of the code."""
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
        asker: Callable[[], Asker],
        content: object,
        runs: Sequence[tuple[Mapping[str, Any], Path]],
    ) -> None:
        """Ask `model` with each run's edits, and write the file after each.

        `asker` asks the unedited model, where anything is to be asked at all; `content` is all that it depends on. A
        run is its method and its numbers of edits, smallest first, and the folder of its changes. With fewer edits than
        the most it is asked what the figure draws alone. What the file holds is kept where edit, model, content and
        code are the same. Raises UserError for an edit of another model.
        """
        before = None
        for run, folder in runs:
            for count in run["edits"]:
                path, kinds = folder / f"{count}.safetensors", KINDS if count == run["edits"][-1] else DRAWN
                mark = fingerprint(model, content, run["method"], sha256(path), kinds, self.code)
                rows = self._known.pop(mark, None)
                if rows is None:
                    before = before or asker()
                    with model.edited(read_of(model.identity, path)[0]):
                        rows = before.of(self.facts[:count], kinds)
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

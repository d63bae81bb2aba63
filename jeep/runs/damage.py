"""What else the edits of several methods change, asked of one model: a killed job repeats only the run it was in."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from jeep.common.storage import atomic, sha256
from jeep.data.facts import Fact
from jeep.measure.damage import COLUMNS, DRAWN, KINDS, TEXTS, Rows
from jeep.model.editable import EditableModel
from jeep.model.files import read_of
from jeep.model.progress import fingerprint


class Asker(Protocol):
    """What an unedited model has answered, and how an edited one is held against it."""

    texts: pd.DataFrame
    """What the model wrote when it was asked last."""

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
    texts: Path | None = None
    """Where what the models wrote goes, beside the rows."""
    _done: dict[tuple[str, int], list[pd.DataFrame]] = field(default_factory=dict)
    _known: dict[str, list[pd.DataFrame]] = field(default_factory=dict)
    """What the files held, by their marks."""

    def __post_init__(self):
        if not all(path.is_file() for path in self._files):
            return
        held = [dict(tuple(pd.read_parquet(path).groupby("mark", sort=False))) for path in self._files]
        none = pd.DataFrame(columns=TEXTS)
        self._known = {mark: [rows, *(each.get(mark, none) for each in held[1:])] for mark, rows in held[0].items()}

    @property
    def _files(self) -> list[Path]:
        return [self.out, *filter(None, [self.texts])]

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
                mark = fingerprint(model, content, run["method"], count, sha256(path), kinds, self.code)
                parts = self._known.pop(mark, None)
                if parts is None:
                    before = before or asker()
                    with model.edited(read_of(model.identity, path)[0]):
                        parts = [before.of(self.facts[:count], kinds), before.texts]
                names = {**self.columns, "method": run["method"], "edits": count, "mark": mark}
                columns = (COLUMNS, TEXTS)[: len(self._files)]
                self._done[run["method"], count] = [
                    part[chosen].assign(**names) for part, chosen in zip(parts, columns, strict=False)
                ]
                self._write([*self._done.values(), *self._known.values()])

    def finish(self, methods: Sequence[str]) -> None:
        """Write the runs in the order of `methods`, and nothing else that the file held."""
        order = sorted(self._done, key=lambda key: (methods.index(key[0]), key[1]))
        self._write([self._done[key] for key in order])

    def _write(self, runs: Sequence[Sequence[pd.DataFrame]]) -> None:
        """The rows last: what has no rows is asked again."""
        for path, parts in reversed(list(zip(self._files, zip(*runs, strict=True), strict=True))):
            with atomic(path) as temporary:
                pd.concat(parts, ignore_index=True).to_parquet(temporary, index=False)

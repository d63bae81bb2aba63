"""The trials of a search, noted as they end."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jeep.common.storage import write_jsonl
from jeep.tuning.space import Settings

Trial = dict[str, Any]
"""round, draw, settings, Score (the mean over data sets), and the metrics of each data set under `sets`."""


class Notes:
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

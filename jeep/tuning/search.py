"""Search for the hyper-parameters of small models, on development facts, by one protocol for every method.

Round one edits the same facts with settings drawn from the method's space. Round two edits as many other facts with the
best few settings of round one; the best there is chosen, and its Score is of facts that did not choose those few.
"""

import json
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jeep.common.errors import UserError
from jeep.common.nested import with_values
from jeep.common.settings import Protocol
from jeep.common.storage import write_jsonl, written
from jeep.editors import load_editor
from jeep.model.progress import fingerprint
from jeep.tuning.bench import Bench
from jeep.tuning.space import Settings, Space, divide, draw_points

Trial = dict[str, Any]
"""round, draw, settings, Score (the mean over data sets), and the metrics of each data set under `sets`."""


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
    best = sorted(first, key=rank, reverse=True)[: protocol.finalists]
    second = [one for trial in reversed(best) for one in trials(2, trial["draw"], [trial["settings"]])]
    second.sort(key=rank)  # of equal ones the best of round one stays last
    return [about, *first, *second]


def rank(trial: Trial) -> tuple[float, bool]:
    """Better is higher: by Score, and of those that score nothing, what could be written before what could not."""
    return trial["Score"], not any("failed" in scores for scores in trial["sets"].values())


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
            with written(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(trial, ensure_ascii=False) + "\n")


def _whole(lines: Sequence[str]) -> Iterator[Trial]:
    """The rows of JSON lines up to one that a kill has cut."""
    for line in lines:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return

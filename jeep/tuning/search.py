"""Search for the hyper-parameters of small models, on development facts, by one protocol for every method.

Round one edits the same facts with settings drawn from the method's space. Round two edits as many other facts with the
best few settings of round one; the best there is chosen, and its Score is of facts that did not choose those few.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jeep.common.errors import UserError
from jeep.common.settings import Protocol, with_values
from jeep.editors import load_editor
from jeep.model.progress import fingerprint
from jeep.tuning.bench import Bench
from jeep.tuning.notes import Notes, Trial
from jeep.tuning.space import Settings, Space, divide, draw_points


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
    notes = Notes(checkpoint, about)

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

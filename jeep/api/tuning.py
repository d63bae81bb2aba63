"""A search of a method's settings for one's own model, on facts that are not edited afterwards."""

import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from jeep.api.defaults import default_space, usual_settings
from jeep.api.facts import Facts, usable_facts
from jeep.api.outcome import answered, prompts_of
from jeep.api.statistics import covariances_for, sample_of
from jeep.common.errors import UserError
from jeep.common.nested import with_values
from jeep.common.places import places_in, require_layers
from jeep.common.settings import Protocol
from jeep.data.facts import Fact
from jeep.data.formats import Format
from jeep.editors import checked_editor
from jeep.model.editable import EditableModel
from jeep.tuning.bench import Bench, DevelopmentSet
from jeep.tuning.search import rank, search
from jeep.tuning.space import draw_points
from jeep.vectors.prefixes import sample_prefixes

MOST_FACTS = 60
"""Edited at once in a trial, where there are enough: more cost time and hardly change which settings are best."""


@dataclass(frozen=True)
class Tuning:
    """What a search found."""

    method: str
    settings: dict[str, Any]
    """All settings of the method with the chosen ones among them, for `jeep.edit(..., settings=...)`."""
    trials: pd.DataFrame
    """A row for each trial: round, draw, what was searched, Score, ES, GS, LS and the half-width of Score; the chosen
    one is the last, and its metrics are of facts that did not choose the finalists."""

    def __str__(self) -> str:
        """The best settings, and how much better they are than usual ones."""
        first, last = self.trials[self.trials["round"] == 1]["Score"], self.trials.iloc[-1]
        return (
            f"Score {last['Score']:.1f} with the chosen settings; of {len(first)} drawn ones the best had "
            f"{first.max():.1f}, the median {first.median():.1f}"
        )


def tune(
    model: EditableModel,
    facts: Facts,
    method: str = "jeep",
    *,
    space: Mapping[str, Sequence[Any]] | None = None,
    draws: int = 6,
    variants: int = 4,
    finalists: int = 3,
    text: str | Path | Iterable[str] | None = None,
    tokens: int | None = None,
    form: Format | None = None,
    on_invalid: Literal["error", "skip"] = "error",
    chat: bool = False,
    seed: int = 0,
    token_budget: int = 2048,
    notes: Path | None = None,
) -> Tuning:
    """Search a method's settings for this model by the pipeline's protocol; the model stays as it is.

    `facts` should be like those that are edited afterwards, and none of them; half of them (at most 60) are edited in
    each of `draws` × `variants` trials, as many others with the best `finalists` of these. What counts is what the
    model says: the tokens of the wanted answers that are the most probable ones (zsRE's metrics), of unrelated prompts
    those that it answers before. `space` has values to try by the path of a setting, such as {"low.clamp": [0.75, 1]}
    (default: around the settings without a search). `chat`, `text` and `tokens` are those of `jeep.edit`. A search that
    was killed goes on from `notes`.

    Raises UserError for facts without paraphrases or known unrelated answers, without which the most destructive edit
    wins, and where no settings of the space can be written.
    """
    chosen, _ = usable_facts(facts, model, form, on_invalid, chat)
    name, settings = usual_settings(method, model)
    space = dict(default_space(name, model.depth) if space is None else space)
    require_layers((layer for layer, _ in places_in(space)), model.depth, f"space of {method}: ")
    accepted = draw_points(name, settings, space, 1, random.Random(0))
    point = accepted[0] if accepted else {path: tried[0] for path, tried in space.items()}
    first = checked_editor(name, with_values(settings, point), f"space of {method}")
    places = first.searched_covariances(space)
    rounds = 2 if finalists else 1
    size = max(1, min(MOST_FACTS, len(chosen) // rounds))
    bench = Bench(
        model,
        [DevelopmentSet("facts", _dealt(_with_known(model, chosen, token_budget), rounds, size), "zsre")],
        sample_prefixes(model, seed, first.prefix_kinds),
        covariances_for(model, places, sample_of(model, places, text, tokens), token_budget),
        token_budget,
    )
    protocol = Protocol(facts=size, draws=draws, variants=variants, finalists=finalists)
    logging.info("%d facts in each trial, %d draws of %d variants", size, draws, variants)
    _, *trials = search(bench, name, settings, space, protocol, seed, notes)
    reasons = {trial["sets"]["facts"].get("failed") for trial in trials}
    if None not in reasons:
        raise UserError(f"no settings of the space could be tried: {'; '.join(sorted(reasons))}")
    if not finalists:
        trials.append(trials.pop(trials.index(max(trials, key=rank))))
    return Tuning(method, with_values(settings, trials[-1]["settings"]), pd.DataFrame(map(_row, trials)))


def _with_known(model: EditableModel, facts: Sequence[Fact], token_budget: int) -> list[Fact]:
    """The facts with those of their unrelated prompts that the model answers as it should."""
    prompts = prompts_of(facts)
    said = prompts[answered(model, prompts, token_budget)[1]]
    known = set(said[said["kind"] == "unrelated"][["prompt", "answer"]].itertuples(index=False, name=None))
    return [
        replace(fact, unrelated=tuple(each for each in fact.unrelated if (each.prompt, each.answer) in known))
        for fact in facts
    ]


def _dealt(facts: Sequence[Fact], rounds: int, size: int) -> list[Fact]:
    """`size` facts for each round, dealt so that every round has its share of those that can be measured whole.

    Raises UserError where some round would have none: the most destructive settings would look best.
    """

    def is_whole(fact: Fact) -> bool:
        return bool(fact.paraphrases and fact.unrelated)

    whole = sum(map(is_whole, facts))
    if whole < rounds:
        raise UserError(
            f"a search needs at least {rounds} facts with paraphrases and unrelated prompts that the model answers "
            f"(there are {whole}): without them the most destructive settings look best"
        )
    ordered = sorted(facts, key=is_whole, reverse=True)
    return [fact for number in range(rounds) for fact in ordered[number::rounds][:size]]


def _row(trial: Mapping[str, Any]) -> dict[str, Any]:
    return {"round": trial["round"], "draw": trial["draw"], **trial["settings"], **trial["sets"]["facts"]}

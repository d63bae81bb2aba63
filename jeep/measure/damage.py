"""What else an edit changes: a model answers the same questions without it and with it.

Beside the prompts that ES, GS and LS are about: what it writes freely, about edited facts and about their subjects;
what it makes of text that has nothing to do with them; small tasks that it could do; questions that follow from edits.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from jeep.common.errors import NotFinite
from jeep.common.settings import Metrics
from jeep.data.chains import Chain
from jeep.data.choices import Choice
from jeep.data.facts import Fact
from jeep.data.topics import References, Topic
from jeep.measure import drift
from jeep.measure.choices import score_choices
from jeep.measure.fluency import Consistency, compositions, written
from jeep.measure.generation import answers, matched
from jeep.measure.portability import multi_hop, multi_hop_answers
from jeep.model.editable import EditableModel

KINDS = ("generation", "writing", "text", "task", "multi_hop")
"""Of questions, in the order of tables."""
DRAWN = ("text", "task")
"""What a figure draws over the number of edits."""
COLUMNS = ["kind", "metric", "unit", "value", "before", "chance"]
Rows = pd.DataFrame
"""With these columns: `value` and `before`, of one unit, are what the model gives with and without the edit; `chance`
is what a guess gives, NaN where there is none to make."""
TEXTS = ["metric", "unit", "number", "text"]
"""Columns of what a model has written."""


@dataclass(frozen=True)
class Questions:
    """What a model is asked; any part may be empty."""

    facts: Sequence[Fact] = ()
    """Their prompts are answered freely."""
    metrics: Metrics = "counterfact"
    """How `facts` are measured."""
    topics: Sequence[Topic] = ()
    references: References = field(default_factory=dict)
    windows: Sequence[tuple[int, ...]] = ()
    """Of held-out text, as token ids."""
    tasks: Mapping[str, Sequence[Choice]] = field(default_factory=dict)
    chains: Sequence[Chain] = ()
    seed: int = 0
    """Of what is sampled."""

    def about(self, edited: Sequence[Fact]) -> "Questions":
        """The same without what is about other facts than the edited ones."""
        cases = {fact.case_id for fact in edited}
        contents = {_content(fact) for fact in edited}
        return replace(
            self,
            facts=[fact for fact in self.facts if fact.case_id in cases],
            topics=[topic for topic in self.topics if topic.case_id in cases],
            chains=[chain for chain in self.chains if contents.issuperset(map(_content, chain.facts))],
        )

    def first(self, facts: int, texts: int, questions: int, chains: int) -> "Questions":
        """The first so many of each part, `questions` being of each task.

        Topics are those that have references, where any has; chains one of each set of facts, then their second ones.
        """
        known = [topic for topic in self.topics if self.references.get(topic.about)]
        turns: Counter[str] = Counter()
        turn = []
        for chain in self.chains:
            turn.append(turns[_unit(chain)])
            turns[_unit(chain)] += 1
        in_turn = sorted(range(len(self.chains)), key=turn.__getitem__)
        return replace(
            self,
            facts=self.facts[:facts],
            topics=(known or self.topics)[:texts],
            tasks={name: each[:questions] for name, each in self.tasks.items()},
            chains=[self.chains[number] for number in in_turn[:chains]],
        )


def _unit(chain: Chain) -> str:
    """The edits that a chain takes: chains of the same ones are no independent units."""
    return "+".join(fact.case_id for fact in chain.facts)


def _content(fact: Fact) -> tuple[str, str, str]:
    return fact.template, fact.subject, fact.target_new


class Damage:
    """How the unedited model answers, for any number of edits to be held against it."""

    def __init__(self, model: EditableModel, questions: Questions, token_budget: int):
        """Ask `model`, which no edit may have changed. Raises NotFinite where it answers NaN."""
        self.model, self.questions, self.token_budget = model, questions, token_budget
        self._unedited_texts: pd.DataFrame | None = None
        self._reference: drift.Reference | None = None
        self._consistency = Consistency(questions.references) if questions.references else None
        self.texts = pd.DataFrame(columns=TEXTS)
        """What the model wrote when it was asked last, unaggregated: answers, and texts about subjects."""
        self._before = {kind: self._ask(kind, questions) for kind in KINDS}

    def of(self, edited: Sequence[Fact], kinds: Sequence[str] = KINDS) -> Rows:
        """What the model gives now that these facts are edited in it: one row for each record, window or question.

        kind and metric: generation (ES_g, GS_g, LS_g by an exact match, ES_p and GS_p by a prefix), writing (fluency in
        bits, consistency), text (nll of a token, in nats, and kl, whose `before` is 0), task (each by its name: the
        share of right answers) and multi_hop (MH by a prefix; a unit is the edits that chains take). A model that
        answers NaN has NaN in the place of all.
        """
        asked = self.questions.about(edited)
        self.texts = self.texts[:0]
        parts = [self._paired(kind, asked) for kind in kinds]
        return pd.concat([part for part in parts if len(part)] or [pd.DataFrame(columns=COLUMNS)], ignore_index=True)

    def _paired(self, kind: str, asked: Questions) -> Rows:
        logging.info("%s: asking", kind)
        before = self._before[kind]
        try:
            found = self._ask(kind, asked)
        except NotFinite as error:
            logging.warning("%s: %s", kind, error)
            found = before.assign(value=np.nan)
        key = ["metric", "unit"]
        paired = found.drop(columns="chance").merge(
            before.rename(columns={"value": "before"}), on=key, validate="one_to_one"
        )
        return paired.assign(kind=kind)[COLUMNS]

    def _ask(self, kind: str, asked: Questions) -> pd.DataFrame:
        """The model's answers of one kind, as metric, unit and value: the mean over a unit's prompts."""
        rows = pd.concat([pd.DataFrame(columns=["metric", "unit", "value", "chance"]), *_ASK[kind](self, asked)])
        rows = rows.astype({"unit": str, "value": float, "chance": float})
        return rows.groupby(["metric", "unit"], sort=False, as_index=False).mean()

    def _keep(self, texts: pd.DataFrame) -> None:
        self.texts = pd.concat([self.texts, texts[TEXTS].astype({"unit": str})], ignore_index=True)

    def _generation(self, asked: Questions) -> Iterator[pd.DataFrame]:
        if asked.facts:
            texts = answers(self.model, asked.facts, asked.metrics, self.token_budget)
            self._unedited_texts = texts if self._unedited_texts is None else self._unedited_texts
            found = matched(texts, self._unedited_texts)
            found = found.rename(columns={"case_id": "unit"})
            self._keep(found)
            yield found.assign(value=found["exact"])[["metric", "unit", "value"]]
            kept = found[found["metric"] != "LS_g"]
            metric = kept["metric"].str.replace("_g", "_p")
            yield kept.assign(metric=metric, value=kept["prefix"])[["metric", "unit", "value"]]

    def _writing(self, asked: Questions) -> Iterator[pd.DataFrame]:
        if asked.topics:
            texts = compositions(self.model, asked.topics, asked.seed, self.token_budget)
            self._keep(texts.rename(columns={"case_id": "unit"}).assign(metric="composition"))
            found = written(texts, asked.topics, self._consistency)
            yield found.rename(columns={"case_id": "unit"})[["metric", "unit", "value"]]

    def _text(self, asked: Questions) -> Iterator[pd.DataFrame]:
        if not asked.windows:
            return
        if self._reference is None:
            self._reference = drift.unedited(self.model, asked.windows, self.token_budget)
            values = {"nll": [float(nll.double().mean()) for nll in self._reference.nll], "kl": 0.0}
        else:
            rows = drift.drift(self.model, self._reference, self.token_budget)
            values = {"nll": rows["nll_after"] / rows["tokens"], "kl": rows["kl"] / rows["tokens"]}
        for metric, value in values.items():
            yield pd.DataFrame({"metric": metric, "unit": range(len(asked.windows)), "value": value})

    def _task(self, asked: Questions) -> Iterator[pd.DataFrame]:
        for name, questions in asked.tasks.items():
            rows = score_choices(self.model, questions, self.token_budget)
            chance = [1 / len(question.choices) for question in questions]
            yield pd.DataFrame({"metric": name, "unit": rows["number"], "value": rows["acc"], "chance": chance})

    def _multi_hop(self, asked: Questions) -> Iterator[pd.DataFrame]:
        if asked.chains:
            rows = multi_hop(multi_hop_answers(self.model, asked.chains, self.token_budget), asked.chains)
            units = {chain.case_id: _unit(chain) for chain in asked.chains}
            yield pd.DataFrame({"metric": "MH", "unit": rows["case_id"].map(units), "value": rows["prefix"]})


_ASK: dict[str, Callable[[Damage, Questions], Iterator[pd.DataFrame]]] = {
    "generation": Damage._generation,
    "writing": Damage._writing,
    "text": Damage._text,
    "task": Damage._task,
    "multi_hop": Damage._multi_hop,
}

"""How a model answers the prompts of edited facts, under teacher forcing (Eqs. 13-18)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from jeep.common.errors import NotFinite
from jeep.common.settings import Metrics
from jeep.data.facts import Fact
from jeep.model.attention import Context, KeysValues, Packing
from jeep.model.batches import in_batches
from jeep.model.editable import EditableModel
from jeep.model.readout import SILENT, read_out
from jeep.model.tokens import encode_answers


@dataclass(frozen=True)
class Item:
    """A prompt of a fact with the answers to score: for CounterFact the new and the true one, for zsRE its own."""

    case_id: str
    metric: Literal["ES", "GS", "LS"]
    number: int
    prompt: str
    answers: tuple[str, ...]
    joiner: str | None = None

    def encoded(self, tokenizer) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
        """Token ids of the prompt and of each answer."""
        return encode_answers(tokenizer, self.prompt, self.answers, self.joiner)


def items(facts: Sequence[Fact], metrics: Metrics) -> Iterator[Item]:
    """The prompts that measure each fact. A CounterFact fact needs a target_true."""
    for fact in facts:
        both = (fact.target_new, fact.target_true or "")
        own = both if metrics == "counterfact" else (fact.target_new,)
        yield Item(fact.case_id, "ES", 0, fact.prompt, own, fact.joiner)
        for number, prompt in enumerate(fact.paraphrases):
            yield Item(fact.case_id, "GS", number, prompt, own, fact.joiner)
        for number, question in enumerate(fact.unrelated):
            answers = (fact.target_new, question.answer) if metrics == "counterfact" else (question.answer,)
            yield Item(fact.case_id, "LS", number, question.prompt, answers, fact.joiner)


@dataclass(frozen=True)
class Scored:
    """One answer under teacher forcing: the log-probability of each token, and whether it was the argmax."""

    log_probabilities: np.ndarray
    correct: np.ndarray
    leads: np.ndarray | None = None
    """Each token's log-probability minus that of the best other one, if asked for."""


@torch.no_grad()
def score(
    model: EditableModel,
    prompts: Sequence[tuple[int, ...]],
    answers: Sequence[Sequence[tuple[int, ...]]],
    token_budget: int,
    *,
    leads: bool = False,
) -> list[list[Scored]]:
    """Score each prompt's answers. A prompt runs once, whoever asks it; its answers go on from its keys and values.

    Records about one object share neighbours: of 5 610 questions about the demo's unrelated facts 1 203 are distinct.
    """
    wanted: dict[tuple[int, ...], dict[tuple[int, ...], None]] = {}
    for prompt, asked in zip(prompts, answers, strict=True):
        wanted.setdefault(prompt, {}).update(dict.fromkeys(asked))
    distinct, groups = list(wanted), [list(group) for group in wanted.values()]
    batches = in_batches(
        [len(prompt) for prompt in distinct],
        token_budget,
        lambda batch: _score_batch(model, [distinct[n] for n in batch], [groups[n] for n in batch], leads),
    )
    found: dict[tuple[int, ...], dict[tuple[int, ...], Scored]] = {}
    with tqdm(total=len(distinct), desc="evaluating", unit="prompt", mininterval=2) as progress:
        for batch, scored in batches:
            for number, result in zip(batch, scored, strict=True):
                found[distinct[number]] = dict(zip(groups[number], result, strict=True))
            progress.update(len(batch))
    return [[found[prompt][answer] for answer in asked] for prompt, asked in zip(prompts, answers, strict=True)]


def _score_batch(
    model: EditableModel,
    prompts: Sequence[tuple[int, ...]],
    answers: Sequence[Sequence[tuple[int, ...]]],
    leads: bool,
) -> list[list[Scored]]:
    kept: dict[int, KeysValues] = {}
    packing, states = model.pack(prompts, record=kept)
    states = model.run(states, packing, 0, model.depth - 1)
    ends = packing.offsets + torch.tensor(packing.lengths) - 1
    first = states[ends.to(model.device)]

    rows = [(number, answer) for number, group in enumerate(answers) for answer in group]
    longer = [(number, answer) for number, answer in rows if len(answer) > 1]
    later = iter(_continue(model, packing, kept, longer))
    hidden = [
        torch.cat([first[number][None], next(later)]) if len(answer) > 1 else first[number][None]
        for number, answer in rows
    ]
    columns = _read_tokens(model, torch.cat(hidden), [token for _, answer in rows for token in answer], leads)
    results: list[list[Scored]] = [[] for _ in prompts]
    start = 0
    for number, answer in rows:
        stop = start + len(answer)
        results[number].append(Scored(*(column[start:stop] for column in columns)))
        start = stop
    return results


def _read_tokens(model: EditableModel, states: Tensor, tokens: Sequence[int], leads: bool) -> list[np.ndarray]:
    """The log-probability of each token at its state, and whether it is the argmax there; with `leads`, by how much."""
    ids = torch.tensor(tokens, device=states.device)

    def measure(logits: Tensor, rows: slice) -> list[Tensor]:
        wanted = ids[rows]
        found = [-functional.cross_entropy(logits, wanted, reduction="none"), logits.argmax(-1) == wanted]
        if leads:
            others = logits.scatter(1, wanted[:, None], -torch.inf).amax(1)
            found.append(logits.gather(1, wanted[:, None])[:, 0] - others)
        return found

    return [column.cpu().numpy() for column in read_out(model, states, measure)]


def _continue(
    model: EditableModel,
    packing: Packing,
    kept: dict[int, KeysValues],
    rows: list[tuple[int, tuple[int, ...]]],
) -> Sequence[Tensor]:
    """Final states of all but the last token of each answer, behind its prompt's keys and values."""
    if not rows:
        return []
    index = torch.full((len(rows), packing.width), -1, device=model.device)
    for line, (number, _) in enumerate(rows):
        start, length = int(packing.offsets[number]), packing.lengths[number]
        index[line, :length] = torch.arange(start, start + length)
    ids = [answer[:-1] for _, answer in rows]
    starts = [packing.lengths[number] for number, _ in rows]
    follow, states = model.pack(ids, starts=starts, context=Context(index, kept))
    states = model.run(states, follow, 0, model.depth - 1)
    return states.split(list(follow.lengths))


def evaluate(
    model: EditableModel, facts: Sequence[Fact], metrics: Metrics, token_budget: int, *, broken: bool = False
) -> pd.DataFrame:
    """One row per prompt: case_id, metric, number, value, argmax, and the mean log-probability of each answer.

    counterfact: value is 1 where the wanted answer has the greater mean token log-probability: the new one on edited
    prompts and paraphrases, the true one on unrelated prompts (Eqs. 16-18). zsre: value is the share of the answer's
    tokens that are the argmax (Eqs. 13-15). argmax: 1 where each token of the wanted answer is the most probable one,
    so that greedy decoding gives just this answer (`metrics.by_argmax`).

    Raises NotFinite for a model that answers NaN; with `broken`, as a sequence of edits may leave it, that is wrong.
    """
    todo = list(items(facts, metrics))
    asked = [item.encoded(model.tokenizer) for item in todo]
    prompts, answers = [prompt for prompt, _ in asked], [wanted for _, wanted in asked]
    rows = []
    for item, scored in zip(todo, score(model, prompts, answers, token_budget), strict=True):
        means = [float(answer.log_probabilities.mean()) for answer in scored]
        silent = any(map(math.isnan, means))
        if silent and not broken:
            raise NotFinite(f"record {item.case_id}: {SILENT}")
        if metrics == "counterfact":
            new, true = means
            value = float(true > new if item.metric == "LS" else new > true)
            wanted = scored[item.metric == "LS"]
        else:
            (true,), new = means, float("nan")
            wanted = scored[0]
            value = float(wanted.correct.mean())
        found = (0.0, 0.0) if silent else (value, float(wanted.correct.all()))
        rows.append((item.case_id, item.metric, item.number, *found, new, true))
    # Types are given, since a shard may have no facts.
    types = {"case_id": str, "metric": str, "number": int}
    types |= dict.fromkeys(("value", "argmax", "log_p_new", "log_p_true"), float)
    return pd.DataFrame(rows, columns=list(types)).astype(types)

"""What a model writes: greedily behind the prompts of edited facts, scored by a match; or sampled, text by text.

Teacher forcing shows a model the answer while it is scored; in use a model reads what it wrote. "The Mirage of Model
Editing" (ACL 2025) measures the difference. This is its protocol (WILD) without a judge: greedy decoding, at most 50
tokens, a stop at a full stop, a line feed or the end of text.
"""

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import torch
from torch import Tensor

from jeep.common.errors import UserError
from jeep.common.settings import Metrics
from jeep.data.facts import Fact
from jeep.data.joining import join
from jeep.measure.evaluate import Item, items
from jeep.measure.matching import exact_match, prefix_match
from jeep.model.decoding import decode
from jeep.model.editable import EditableModel
from jeep.model.tokens import encode

LIMIT = 50
"""New tokens at most."""
STOPS = (".", "\n")
Form = Literal["bare", "qa"]
"""How a question is asked: as it is, which is how it was edited, or as WILD frames it for models that are not chats."""
_FORMS: dict[Form, str] = {"bare": "{}", "qa": "Please answer the question:\n\nQ: {}\nA:"}
_CONTINUED = 5
"""Tokens of a neighbourhood prompt's continuation that are compared."""
_ROW = ["case_id", "metric", "number"]


def encode_front(tokenizer, prompt: str, joiner: str | None = None) -> tuple[int, ...]:
    """Token ids of a prompt as it stands in front of an answer that the model is to write (`jeep.data.joining`)."""
    return tuple(encode(tokenizer, join(prompt, "", joiner)[0]))


@dataclass(frozen=True)
class Stopping:
    """When a text ends, and what of it counts."""

    limit: int = LIMIT
    """New tokens at most."""
    stops: tuple[str, ...] = STOPS
    """Strings that end a text, and are no part of it; so does the model's end of text."""


def greedy_texts(
    model: EditableModel,
    prompts: Sequence[Sequence[int]],
    token_budget: int,
    stopping: Stopping | Sequence[Stopping] = Stopping(),
) -> list[str]:
    """The most probable continuation of each tokenised prompt, token by token, without white space around it.

    `stopping` is one for all, or each prompt's own. What a prompt is answered with does not depend on its batch, but
    for a tie in the model's precision. Raises UserError as `decode` does.
    """
    rules = [stopping] * len(prompts) if isinstance(stopping, Stopping) else list(stopping)
    texts: dict[int, str] = {}
    for rule in dict.fromkeys(rules):
        numbers = [number for number, own in enumerate(rules) if own == rule]
        found = _stopped(model, [prompts[number] for number in numbers], token_budget, rule)
        texts |= zip(numbers, found, strict=True)
    return [texts[number] for number in range(len(prompts))]


def _stopped(
    model: EditableModel, prompts: Sequence[Sequence[int]], token_budget: int, rule: Stopping
) -> Iterator[str]:
    ends = end_tokens(model)

    def ended(tokens: Sequence[int]) -> bool:
        return tokens[-1] in ends or _cut(_decoded(model, tokens), rule.stops) is not None

    for tokens in decode(model, prompts, [rule.limit] * len(prompts), _most_probable, ended, token_budget):
        text = _decoded(model, tokens[:-1] if tokens and tokens[-1] in ends else tokens)
        cut = _cut(text, rule.stops)
        yield (text if cut is None else cut).strip()


def _most_probable(logits: Tensor, _: Tensor, __: int) -> Tensor:
    return logits.argmax(-1)


def _decoded(model: EditableModel, tokens: Sequence[int]) -> str:
    return model.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _cut(text: str, stops: Sequence[str]) -> str | None:
    """A text up to its first stop; None where it has none."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(places)] if places else None


def end_tokens(model: EditableModel) -> frozenset[int]:
    """The tokens that end a text: the tokenizer's, and those of the checkpoint's settings for generation."""
    found: set[int] = set()
    settings = getattr(model.network, "generation_config", None)
    for each in (model.tokenizer.eos_token_id, getattr(settings, "eos_token_id", None)):
        found |= set(each) if isinstance(each, list | tuple) else {each}
    return frozenset(found - {None})


def sampled(
    model: EditableModel,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[str],
    token_budget: int,
    *,
    length: int = 100,
    k: int = 5,
) -> list[str]:
    """Each prompt with what is sampled behind it until both have `length` tokens: each token is one of the `k` most
    probable ones, with the model's probabilities (temperature 1). Nothing ends a text before.

    Each prompt has its own `seeds`, so that no text depends on its batch or on what else is asked. Special tokens, the
    prompt's and what the model writes, are no part of the text. Source: MEMIT's release, util/generate.py.
    """
    limits = [max(0, length - len(prompt)) for prompt in prompts]
    draws = torch.zeros(len(prompts), max(limits, default=0), dtype=torch.float64)
    for number, (seed, limit) in enumerate(zip(seeds, limits, strict=True)):
        generator = random.Random(seed)
        draws[number, :limit] = torch.tensor([generator.random() for _ in range(limit)], dtype=torch.float64)

    def choose(logits: Tensor, numbers: Tensor, step: int) -> Tensor:
        best = logits.topk(min(k, logits.shape[1]))
        below = best.values.double().softmax(-1).cumsum(-1)[:, :-1]  # by the inverse of the distribution function
        place = (below <= draws[numbers, step].to(below.device)[:, None]).sum(-1, keepdim=True)
        return best.indices.gather(1, place)[:, 0]

    written = decode(model, prompts, limits, choose, lambda _: False, token_budget)
    return [_decoded(model, [*prompt, *tokens]) for prompt, tokens in zip(prompts, written, strict=True)]


def answers(
    model: EditableModel, facts: Sequence[Fact], metrics: Metrics, token_budget: int, form: Form = "bare"
) -> pd.DataFrame:
    """What the model writes behind each prompt that measures a fact, as it is, edited or not.

    One row per prompt: case_id, metric (ES_g, GS_g, LS_g), number, answer (the wanted one) and text. A neighbourhood
    prompt of CounterFact is continued by five tokens, whatever they are: its answer is no complete one.

    A model may end the line behind a bare question: its text is then empty, and so it is after an edit. The log counts
    such texts; LS_g says little where they are many, and `form` qa asks for an answer.
    """
    todo = list(items(facts, metrics))
    joined = [(_FORMS[form].replace("{}", item.prompt), item.joiner if form == "bare" else None) for item in todo]
    prompts = [encode_front(model.tokenizer, *each) for each in joined]
    fixed = Stopping(_CONTINUED, ())
    rules = [fixed if metrics == "counterfact" and item.metric == "LS" else Stopping() for item in todo]
    texts = greedy_texts(model, prompts, token_budget, rules)
    empty = texts.count("")
    if empty:
        logging.info(
            "%d of %d texts are empty: the model ends the line, or its text, behind the prompt", empty, len(texts)
        )
    rows = list(_rows(todo, texts))
    return pd.DataFrame(rows, columns=[*_ROW, "answer", "text"]).astype({"case_id": str, "number": int})


def _rows(todo: Sequence[Item], texts: Sequence[str]) -> Iterator[tuple]:
    for item, text in zip(todo, texts, strict=True):
        wanted = item.answers[-1] if item.metric == "LS" else item.answers[0]
        yield item.case_id, f"{item.metric}_g", item.number, wanted, text


def matched(texts: pd.DataFrame, unedited: pd.DataFrame) -> pd.DataFrame:
    """`texts` of an edited model with the columns exact and prefix, 0 or 1, by those of the unedited one.

    ES_g, GS_g: whether the text is the new answer, or begins with it (`jeep.measure.matching`). LS_g, both columns:
    whether it is what the unedited model writes there. A column as `value` makes rows for `metrics.summarize` with
    `metrics.GENERATED`. Raises UserError where the unedited model was asked something else.
    """
    before = unedited.set_index(_ROW)["text"].rename("before")
    joined = texts.join(before, on=_ROW)
    missing = joined[joined["before"].isna()]
    if len(missing):
        case, metric, number = missing[_ROW].iloc[0]
        raise UserError(f"record {case}: no text of the unedited model for prompt {number} of {metric}")
    same, kept = joined["text"] == joined["before"], joined["metric"] == "LS_g"
    pairs = list(zip(texts["text"], texts["answer"], strict=True))
    columns = {}
    for name, test in (("exact", exact_match), ("prefix", prefix_match)):
        found = pd.Series([test(*pair) for pair in pairs], index=texts.index, dtype=bool)
        columns[name] = same.where(kept, found).astype(float)
    return texts.assign(**columns)

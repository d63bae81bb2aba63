"""Multiple-choice tasks in packed batches: general abilities without another package.

As lm-evaluation-harness scores them (multiple_choice): the answer is the choice with the greatest log-probability
behind the text and one space (acc), or with the greatest one for each of its characters (acc_norm).
"""

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pandas as pd

from jeep.common.errors import NotFinite
from jeep.data.choices import Choice
from jeep.measure.evaluate import score
from jeep.model.editable import EditableModel
from jeep.model.readout import SILENT
from jeep.model.tokens import encode_pair

_Prompts = dict[tuple[int, ...], dict[int, tuple[int, ...]]]
"""Answers' token ids by prompt and by number: a prompt's last token may depend on what follows."""


def score_choices(model: EditableModel, questions: Sequence[Choice], token_budget: int) -> pd.DataFrame:
    """One row per question: number, chosen (by acc), acc and acc_norm, 0 or 1, and margin.

    A choice's log-probability is the sum over its tokens, whose ids are those of the whole text; acc_norm divides it by
    the choice's number of characters, without the space. Of equal ones the first is chosen. margin, in nats: how far
    the right choice is ahead of the best other one, to pair models by. Raises NotFinite for a model that answers NaN,
    and where a token would hold the end of a text and the beginning of a choice.
    """
    asked = [_asked(model.tokenizer, question) for question in questions]
    prompts = [(number, prompt) for number, group in enumerate(asked) for prompt in group]
    answers = [list(asked[number][prompt].values()) for number, prompt in prompts]
    sums = [np.empty(len(question.choices)) for question in questions]
    found = score(model, [prompt for _, prompt in prompts], answers, token_budget)
    for (number, prompt), scored in zip(prompts, found, strict=True):
        for place, answer in zip(asked[number][prompt], scored, strict=True):
            sums[number][place] = answer.log_probabilities.sum(dtype=np.float64)
    rows = [(number, *_row(*each)) for number, each in enumerate(zip(questions, sums, strict=True))]
    return pd.DataFrame(rows, columns=["number", "chosen", "acc", "acc_norm", "margin"])


def _asked(tokenizer, question: Choice) -> _Prompts:
    prompts: _Prompts = defaultdict(dict)
    for place, choice in enumerate(question.choices):
        prompt, answer = encode_pair(tokenizer, question.text, choice, " ")
        prompts[prompt][place] = answer
    return prompts


def _row(question: Choice, sums: np.ndarray) -> tuple[int, float, float, float]:
    if np.isnan(sums).any():
        raise NotFinite(f"{question.text[-40:]!r}: {SILENT}")
    chosen = int(sums.argmax())
    by_length = int((sums / [len(choice) for choice in question.choices]).argmax())
    best_other = np.delete(sums, question.label).max()
    return (
        chosen,
        float(chosen == question.label),
        float(by_length == question.label),
        sums[question.label] - best_other,
    )


def summarize_choices(rows: pd.DataFrame) -> pd.DataFrame:
    """acc and acc_norm of `score_choices` in percent, with the 95 % half-width 1.96 s/√n: metric, value, ci95."""
    both = 100 * rows[["acc", "acc_norm"]]
    half = 1.96 * both.std() / math.sqrt(len(rows))
    return pd.DataFrame({"metric": both.columns, "value": both.mean().to_numpy(), "ci95": half.to_numpy()})

"""What an edit did, prompt by prompt: probabilities before and after, whether it took, and why not."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from jeep.data.facts import Fact
from jeep.measure.evaluate import score
from jeep.model.editable import EditableModel
from jeep.model.selection import contradictions
from jeep.model.tokens import encode_pair
from jeep.vectors.targets import Target

KINDS = ("edited", "paraphrase", "unrelated")
_SHOWN = 120
"""Characters of a prompt in a line."""
REACHED = 0.5
"""Probability of the new answer under its target vector, from which on the vector is said to reach it."""


def prompts_of(facts: Sequence[Fact]) -> pd.DataFrame:
    """One row for each prompt of the facts: case_id, kind, prompt, the answer that is wanted, and what joins them."""
    rows = []
    for fact in facts:
        asked = [("edited", fact.prompt, fact.target_new)]
        asked += [("paraphrase", prompt, fact.target_new) for prompt in fact.paraphrases]
        asked += [("unrelated", question.prompt, question.answer) for question in fact.unrelated]
        rows += [(fact.case_id, *each, fact.joiner) for each in asked]
    return pd.DataFrame(rows, columns=["case_id", "kind", "prompt", "answer", "joiner"], dtype=object)


def answered(model: EditableModel, prompts: pd.DataFrame, token_budget: int) -> tuple[np.ndarray, np.ndarray]:
    """The probability of each wanted answer (of a token, as a geometric mean), and whether the model says it.

    It says an answer when each of its tokens is the most probable one behind those before it: greedy decoding then
    gives just this answer.
    """
    columns = prompts[["prompt", "answer", "joiner"]].itertuples(index=False)
    pairs = [encode_pair(model.tokenizer, *row) for row in columns]
    asked, wanted = [prompt for prompt, _ in pairs], [[answer] for _, answer in pairs]
    scored = [answers[0] for answers in score(model, asked, wanted, token_budget)]
    probability = np.array([np.exp(answer.log_probabilities.mean()) for answer in scored])
    return probability, np.array([bool(answer.correct.all()) for answer in scored])


def outcome_of(
    prompts: pd.DataFrame,
    before: tuple[np.ndarray, np.ndarray],
    after: tuple[np.ndarray, np.ndarray],
    reasons: Mapping[str, str],
) -> pd.DataFrame:
    """`prompts` with p_before, p_after, said_before, said_after, ok and why.

    An edited prompt or a paraphrase is ok when the model says the new answer; an unrelated prompt unless it has lost an
    answer that it gave before. `why` is given for edited prompts that are not ok.
    """
    table = prompts.drop(columns="joiner").assign(
        p_before=before[0], p_after=after[0], said_before=before[1], said_after=after[1]
    )
    unrelated = table["kind"] == "unrelated"
    table["ok"] = table["said_after"] | (unrelated & ~table["said_before"])
    failed = (table["kind"] == "edited") & ~table["ok"]
    table["why"] = [
        reasons.get(case, "") if fails else "" for case, fails in zip(table["case_id"], failed, strict=True)
    ]
    return table


def reasons_of(facts: Sequence[Fact], targets: Sequence[Target], unwritten: Collection[str] = ()) -> dict[str, str]:
    """Why each fact would not take, if it did not; `unwritten` are those that the editor has left out as it edited."""
    contradicted, reasons = contradictions(facts), {}
    by_case = {target.case_id: target for target in targets}
    nearest = _nearest(targets) if len(targets) > 1 else {}
    for fact in facts:
        target, case = by_case.get(fact.case_id), fact.case_id
        if case in contradicted:
            reasons[case] = f"contradicted by fact {contradicted[case]}"
        elif case in unwritten:
            reasons[case] = "its optimisation within the edit did not stay finite"
        elif target is None:
            reasons[case] = "its answer is not yet the most probable one"
        elif not target.finite:
            reasons[case] = "its optimisation did not stay finite"
        elif target.probabilities[-1] < REACHED:
            reasons[case] = f"its target vector was not reached (probability {target.probabilities[-1]:.2f})"
        elif case in nearest:
            other, cosine = nearest[case]
            reasons[case] = f"lost in writing beside the others, fact {other} nearest (cosine {cosine:.2f})"
        else:
            reasons[case] = "lost in writing"
    return reasons


def _nearest(targets: Sequence[Target]) -> dict[str, tuple[str, float]]:
    """For each fact the one whose state at the lookup position is most like its own, and their cosine."""
    states = torch.nn.functional.normalize(torch.stack([target.states[0] for target in targets]).float(), dim=1)
    alike = (states @ states.mT).fill_diagonal_(-2)
    best = alike.max(1)
    return {
        target.case_id: (targets[other].case_id, cosine)
        for target, other, cosine in zip(targets, best.indices.tolist(), best.values.tolist(), strict=True)
    }


def summary(outcome: pd.DataFrame, seconds: float) -> str:
    """What took, what did not and why, and what it did to unrelated prompts."""
    lines = []
    for kind, what in (("edited", "facts took"), ("paraphrase", "paraphrases answer the same")):
        rows = outcome[outcome["kind"] == kind]
        if len(rows):
            lines.append(f"{rows['ok'].sum()} of {len(rows)} {what} ({rows['said_before'].sum()} before)")
    rows = outcome[outcome["kind"] == "unrelated"]
    if len(rows):
        lines.append(f"{(~rows['ok']).sum()} of {rows['said_before'].sum()} unrelated answers that were right are lost")
    lines.append(f"{seconds:.0f} s")
    failed = outcome[(outcome["kind"] == "edited") & ~outcome["ok"]]
    text = "; ".join(lines)
    return "\n".join([text, *(f"  {_end(row.prompt)} … {row.answer}: {row.why}" for row in failed.itertuples())])


def _end(prompt: str) -> str:
    """The end of a prompt in one line: what stands in front is a conversation's header."""
    line = " ".join(prompt.split())
    return line if len(line) <= _SHOWN else f"…{line[-_SHOWN:]}"

"""Portability: whether what follows from an edit follows for the model, too (multi-hop accuracy of MQuAKE).

A chain's questions are asked behind worked examples, in the form Q: ... A: ..., and answered greedily up to the line's
end. A chain counts if any of its questions is answered with the new answer or an alias of it. Papers of sequential
editing report something else under this name, the share of correct tokens under teacher forcing; it is higher.
"""

from collections.abc import Sequence

import pandas as pd

from jeep.data.chains import Chain
from jeep.measure.generation import Stopping, encode_front, greedy_texts
from jeep.measure.matching import exact_match, prefix_match
from jeep.model.editable import EditableModel

EXAMPLES = (
    ("What is the capital of the country where the Eiffel Tower stands?", "Paris"),
    ("Who wrote the novel that the film Blade Runner is based on?", "Philip K. Dick"),
    ("On which continent is the country whose capital is Lima?", "South America"),
    ("Which language is spoken in the country where sushi comes from?", "Japanese"),
    ("Who founded the company that makes the iPhone?", "Steve Jobs"),
    ("What is the currency of the country where the Taj Mahal stands?", "rupee"),
    ("In which country was the composer of the Ninth Symphony, Beethoven, born?", "Germany"),
    ("What is the capital of the country that won the football World Cup of 1998?", "Paris"),
)
"""Two hops each; ours, since the release's are about its own records."""
MULTI_HOP = ("MH",)
"""The metric, for `metrics.summarize`."""
_STOPPING = Stopping(stops=("\n",))


def multi_hop_answers(
    model: EditableModel,
    chains: Sequence[Chain],
    token_budget: int,
    examples: Sequence[tuple[str, str]] = EXAMPLES,
) -> pd.DataFrame:
    """What the model answers, edited or not. One row per question: case_id, number, text.

    All questions stand behind the same examples, which run once for each batch.
    """
    front = "".join(f"Q: {question}\nA: {answer}\n" for question, answer in examples)
    asked = [(chain.case_id, number, each) for chain in chains for number, each in enumerate(chain.questions)]
    prompts = [encode_front(model.tokenizer, f"{front}Q: {question}\nA:") for _, _, question in asked]
    texts = greedy_texts(model, prompts, token_budget, _STOPPING)
    rows = [(case, number, text) for (case, number, _), text in zip(asked, texts, strict=True)]
    return pd.DataFrame(rows, columns=["case_id", "number", "text"]).astype({"case_id": str, "number": int})


def multi_hop(texts: pd.DataFrame, chains: Sequence[Chain]) -> pd.DataFrame:
    """One row per chain: case_id, metric (MH), and exact, prefix, old, each 0 or 1.

    exact, prefix: whether any of its texts is the new answer or an alias, or begins with one. old: whether any begins
    with the answer before the edits, as it does where nothing has followed. A column as `value` makes rows for
    `metrics.summarize` with MULTI_HOP.
    """
    said = texts.groupby("case_id")["text"].apply(list)
    rows = []
    for chain in chains:
        found = [
            any(match(text, answer) for text in said[chain.case_id] for answer in answers)
            for match, answers in (
                (exact_match, chain.answers_new),
                (prefix_match, chain.answers_new),
                (prefix_match, chain.answers_old),
            )
        ]
        rows.append((chain.case_id, "MH", *map(float, found)))
    return pd.DataFrame(rows, columns=["case_id", "metric", "exact", "prefix", "old"])

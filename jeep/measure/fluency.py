"""Fluency and consistency of texts that a model writes about edited subjects (ROME, MEMIT).

Fluency is low where a text repeats itself, as a damaged model does. Consistency is how much a text about an edited
subject is like texts about others that have the new object. Source: kmeng01/memit, experiments/py/
eval_utils_counterfact.py and experiments/summarize.py.

Words are those of NLTK's `word_tokenize`, but for its sentence splitter, whose trained model is a download (punkt_tab):
the same splitter is used untrained. It knows no abbreviations, so that "Dr." is two words here and one there.
"""

import logging
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pandas as pd

from jeep.common.errors import UserError
from jeep.data import topics as data
from jeep.data.topics import Topic
from jeep.measure.generation import encode_front, sampled
from jeep.model.editable import EditableModel

WRITTEN = ("fluency", "consistency")
"""The metrics of this file; in percent, as `metrics.summarize` gives them, they are as papers print them."""
_WEIGHTS = {2: 2 / 3, 3: 4 / 3}
"""Of bigrams and trigrams."""


@cache
def _tokenizer() -> Callable[[str], list[str]]:
    # Here, since NLTK's import takes seconds.
    from nltk.tokenize.destructive import NLTKWordTokenizer
    from nltk.tokenize.punkt import PunktSentenceTokenizer

    sentences, words = PunktSentenceTokenizer(), NLTKWordTokenizer()
    return lambda text: [word for sentence in sentences.tokenize(text) for word in words.tokenize(sentence)]


def words_of(text: str) -> list[str]:
    """A text's words and punctuation marks."""
    return _tokenizer()(text)


def ngram_entropy(words: Sequence[str], n: int) -> float:
    """H_n = −Σ p log₂ p over the frequencies p of the n-grams of a text, in bits; 0 of a text that has none."""
    counts = np.array(list(Counter(zip(*(words[start:] for start in range(n)), strict=False)).values()), dtype=float)
    shares = counts / counts.sum() if len(counts) else counts
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def fluency(text: str) -> float:
    """½ (⅔ H₂ + ⁴⁄₃ H₃) of a text's words, in bits: their bigrams' and trigrams' entropy, weighted and averaged."""
    words = words_of(text)
    return sum(weight * ngram_entropy(words, n) for n, weight in _WEIGHTS.items()) / len(_WEIGHTS)


class Consistency:
    """TF-IDF over reference texts, and how like them other texts are."""

    def __init__(self, references: data.References):
        """Vocabulary and idf are of all reference texts, each a document.

        Raises UserError where there are none with a word of two characters.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._references = references
        self._vectorizer = TfidfVectorizer()
        try:
            self._vectorizer.fit([text for texts in references.values() for text in texts])
        except ValueError as error:
            raise UserError(f"the reference texts have no words to compare by ({error})") from None

    def has(self, about: str) -> bool:
        """Whether there are reference texts of a relation and object."""
        return bool(self._references.get(about))

    def of(self, about: str, texts: Sequence[str]) -> float:
        """Cosine (0 to 1) of the TF-IDF vectors of `texts`, joined by spaces, and of the reference texts, likewise."""
        both = self._vectorizer.transform([" ".join(texts), " ".join(self._references[about])])
        return float(both[0].multiply(both[1]).sum())


def compositions(
    model: EditableModel, topics: Sequence[Topic], seed: int, token_budget: int, *, length: int = 100, k: int = 5
) -> pd.DataFrame:
    """A text of `length` tokens behind each prompt of each topic, its prompt included: case_id, number, text.

    Each is sampled (`generation.sampled`) with a seed of its own, made of `seed`, its record and its number: an edited
    and an unedited model are asked with the same draws. Normalised as in the release: NFKD, a space for a blank line.
    """
    asked = [(topic.case_id, number, prompt) for topic in topics for number, prompt in enumerate(topic.prompts)]
    prompts = [encode_front(model.tokenizer, prompt) for _, _, prompt in asked]
    seeds = [f"{seed}/{case}/{number}" for case, number, _ in asked]
    texts = sampled(model, prompts, seeds, token_budget, length=length, k=k)
    rows = [(case, number, _normalized(text)) for (case, number, _), text in zip(asked, texts, strict=True)]
    return pd.DataFrame(rows, columns=["case_id", "number", "text"]).astype({"case_id": str, "number": int})


def _normalized(text: str) -> str:
    return unicodedata.normalize("NFKD", text).replace("\n\n", " ")


def written(texts: pd.DataFrame, topics: Sequence[Topic], consistency: Consistency | None) -> pd.DataFrame:
    """One row per text (fluency, in bits) and per record (consistency, 0 to 1): case_id, metric, number, value.

    A record's consistency is that of all its texts together. Records without reference texts have none, and the log
    counts them; where nothing has any (None), there is no consistency.
    """
    rows = [(row.case_id, "fluency", row.number, fluency(row.text)) for row in texts.itertuples()]
    kinds = {topic.case_id: topic.about for topic in topics}
    without = 0
    for case, group in texts.groupby("case_id", sort=False):
        if consistency is None:
            continue
        if consistency.has(kinds[case]):
            rows.append((case, "consistency", 0, consistency.of(kinds[case], group["text"].tolist())))
        else:
            without += 1
    if without:
        logging.info("consistency: %d of %d records have no reference texts", without, texts["case_id"].nunique())
    return pd.DataFrame(rows, columns=["case_id", "metric", "number", "value"]).astype({"case_id": str, "value": float})

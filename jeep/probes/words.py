"""Words of texts, and the words that say nothing."""

import re
import string

from bm25s.stopwords import STOPWORDS_EN_PLUS

_WORD = re.compile(r"\w+(?:[’'-]\w+)*")

STOP_WORDS = frozenset(STOPWORDS_EN_PLUS) | frozenset(string.punctuation)
"""English stop words, in lower case (NLTK's list), and punctuation."""


def words(text: str) -> list[str]:
    """The words of a text, as they are written."""
    return _WORD.findall(text)


def terms(text: str) -> list[str]:
    """The words of a text for retrieval: in lower case."""
    return [word.lower() for word in words(text)]


def content_terms(text: str) -> list[str]:
    """The terms that are no stop words."""
    return [term for term in terms(text) if term not in STOP_WORDS]

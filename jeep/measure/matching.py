"""Whether a text that a model wrote is an answer: equal to it, or beginning with it, once both are normalised."""

import string
import unicodedata

from jeep.data.joining import join

_ARTICLES = ("a", "an", "the")


def normalized(text: str) -> str:
    """Lower case, without punctuation and the articles a, an, the, one space between words (SQuAD's normalisation).

    Articles stay where there is nothing else: they are then an answer. Source: WILD (Revisit-Editing-Evaluation),
    easyeditor/evaluate/evaluate_utils.py.
    """
    kept = "".join(each for each in text.lower() if not _is_punctuation(each)).split()
    return " ".join([word for word in kept if word not in _ARTICLES] or kept)


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def exact_match(text: str, answer: str) -> bool:
    """Whether a text is an answer, both normalised. No answer of punctuation alone is matched."""
    return bool(normalized(answer)) and normalized(text) == normalized(answer)


def prefix_match(text: str, answer: str) -> bool:
    """Whether a text begins with an answer, both normalised: with all of its last word, where words are spaced.

    A model that does not stop behind its answer goes on talking, which an exact match counts as wrong.
    """
    wanted, found = normalized(answer), normalized(text)
    if not wanted or not found.startswith(wanted):
        return False
    rest = found[len(wanted) :]
    in_a_word = bool(rest.strip()) and not rest.startswith(" ") and join(wanted, rest)[1].startswith(" ")
    return not in_a_word

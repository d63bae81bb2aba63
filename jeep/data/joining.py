"""How an answer continues its prompt in running text."""

import unicodedata

_UNSPACED = ("THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
"""Scripts without spaces between words, beside the wide ones of East Asia."""


_GERMAN = {"“": "„", "«": "»", "‘": "‚"}
"""What closes in German, and what opens it there."""


def join(prompt: str, answer: str, joiner: str | None = None) -> tuple[str, str]:
    """The text in front of an answer, and the answer with the spaces in front of it, which its first token holds.

    `joiner` stands between prompt and answer, such as a line break; where it is None, a space, as between words, or
    nothing: behind white space and opening marks, and where either side is of a script that has no spaces. White space
    around the answer is dropped, inside it is kept.
    """
    answer = answer.strip()
    if joiner is None:
        joiner = " " if answer and _is_spaced(prompt, answer) else ""
    text = prompt + joiner
    front = text.rstrip(" ")
    return front, text[len(front) :] + answer


def _is_spaced(prompt: str, answer: str) -> bool:
    """Whether a space stands between a prompt and its answer."""
    if not prompt or prompt[-1].isspace() or _opens(prompt):
        return False
    return not (_without_spaces(prompt[-1]) or _without_spaces(answer[0]))


def _opens(text: str) -> bool:
    """Whether a text ends in an opening bracket or quotation mark.

    Straight quotes open behind white space; German ones close with what opens in English and French.
    """
    last = text[-1]
    if last in "\"'":
        return len(text) == 1 or text[-2].isspace() or _opens(text[:-1])
    if last in _GERMAN:
        return text.count(_GERMAN[last]) < text.count(last)
    return unicodedata.category(last) in ("Ps", "Pi") or last in "¿¡"


def _without_spaces(character: str) -> bool:
    name = unicodedata.name(character, "")
    wide = unicodedata.east_asian_width(character) in "WF" and unicodedata.category(character) != "So"
    return (wide and not name.startswith("HANGUL")) or name.startswith(_UNSPACED)

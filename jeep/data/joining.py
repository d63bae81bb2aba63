"""How an answer continues its prompt in running text."""

import unicodedata

_UNSPACED = ("THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
"""Scripts without spaces between words, beside the wide ones of East Asia."""


def join(prompt: str, answer: str, joiner: str | None = None) -> tuple[str, str]:
    """A prompt without the spaces at its end, and the text that continues it with the answer.

    `joiner` stands between them; where it is None, a space, as between words, or nothing: behind white space and
    opening marks, and where either side is of a script that has no spaces. Spaces at the prompt's end belong to the
    continuation, since tokens begin with them. White space around the answer is dropped, inside it is kept.
    """
    bare, answer = prompt.rstrip(" "), answer.strip()
    if joiner is None:
        joiner = "" if not answer or not _is_spaced(prompt, answer) else " "
    return bare, prompt[len(bare) :] + joiner + answer


def _is_spaced(prompt: str, answer: str) -> bool:
    """Whether a space stands between a prompt and its answer."""
    if not prompt or prompt[-1].isspace() or _opens(prompt):
        return False
    return not (_without_spaces(prompt[-1]) or _without_spaces(answer[0]))


def _opens(text: str) -> bool:
    """Whether a text ends in an opening bracket or quotation mark; straight quotes open behind white space."""
    last = text[-1]
    if last in "\"'":
        return len(text) == 1 or text[-2].isspace() or _opens(text[:-1])
    return unicodedata.category(last) in ("Ps", "Pi") or last in "¿¡"


def _without_spaces(character: str) -> bool:
    name = unicodedata.name(character, "")
    wide = unicodedata.east_asian_width(character) in "WF" and unicodedata.category(character) != "So"
    return (wide and not name.startswith("HANGUL")) or name.startswith(_UNSPACED)

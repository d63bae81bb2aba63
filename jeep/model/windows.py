"""Running text as sequences of tokens: articles cut to a length, or windows of one length over all of them."""

import math
from collections.abc import Iterable, Iterator

from jeep.common.errors import UserError
from jeep.model.tokens import encode

_BETWEEN = "\n\n"
"""What stands between two articles."""


def sequences(tokenizer, texts: Iterable[str], length: int, tokens: int | None = None) -> Iterator[tuple[int, ...]]:
    """The texts' token ids, each cut to `length`, until `tokens` are reached."""
    left = math.inf if tokens is None else tokens
    for text in texts:
        ids = tuple(encode(tokenizer, text)[: int(min(length, left))])
        if ids:
            yield ids
            left -= len(ids)
        if left <= 0:
            return


def windows(tokenizer, texts: Iterable[str], length: int, tokens: int) -> list[tuple[int, ...]]:
    """The texts, one behind the other, as windows of `length` tokens that do not overlap, of about `tokens` in all.

    Each begins with the tokens that the tokenizer puts in front of a text (BOS), where it has any; what is left at the
    end is dropped. Fewer come of fewer texts. Raises UserError where there is not one.
    """
    front = _front(tokenizer)
    size, left, found = length - len(front), [], []
    wanted = max(1, tokens // length)
    for text in texts:
        left += tokenizer(text + _BETWEEN, add_special_tokens=False)["input_ids"]
        while len(left) >= size and len(found) < wanted:
            found.append((*front, *left[:size]))
            left = left[size:]
        if len(found) == wanted:
            return found
    if not found:
        raise UserError(f"the text is shorter than a window of {length} tokens")
    return found


def _front(tokenizer) -> tuple[int, ...]:
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = encode(tokenizer, "a")
    return tuple(whole[: len(whole) - len(bare)])

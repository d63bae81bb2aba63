"""Text as windows of tokens."""

import pytest

from jeep.common.errors import UserError
from jeep.model.windows import windows

TEXTS = ["Paris is a city in France.", "Rome.", "The city of Nice lies in France. It is old.", "Bonn is a city."]


def test_windows_are_the_texts_one_behind_the_other(byte_level):
    stream = [token for text in TEXTS for token in byte_level(text + "\n\n").input_ids]
    found = windows(byte_level, TEXTS, 5, 1000)
    assert [token for window in found for token in window] == stream[: len(stream) // 5 * 5]
    assert {len(window) for window in found} == {5}
    assert len(stream) % 5, "something is left"


def test_each_window_begins_as_the_tokenizer_begins_a_text(sentencepiece):
    found = windows(sentencepiece, TEXTS, 6, 1000)
    assert {window[0] for window in found} == {sentencepiece.bos_token_id}
    assert {len(window) for window in found} == {6}
    stream = [
        token for text in TEXTS for token in sentencepiece(text + "\n\n", add_special_tokens=False).input_ids
    ]  # fmt: skip
    assert [token for window in found for token in window[1:]] == stream[: len(stream) // 5 * 5]


def test_as_many_as_asked_and_no_text_is_read_in_vain(byte_level):
    read = []

    def counted():
        for text in TEXTS:
            read.append(text)
            yield text

    assert windows(byte_level, counted(), 5, 11) == windows(byte_level, TEXTS, 5, 1000)[:2]
    assert read == TEXTS[:2]
    assert len(windows(byte_level, TEXTS, 5, 3)) == 1, "one at least"


def test_text_that_is_too_short(byte_level):
    with pytest.raises(UserError, match="shorter than a window of 512 tokens"):
        windows(byte_level, TEXTS, 512, 1000)

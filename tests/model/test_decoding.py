"""Decoding with a cache against the model's own forward pass, one prompt at a time and without a cache."""

import pytest
import torch
from tiny import ARCHITECTURES, KINDS, random_network

from jeep.common.errors import UserError
from jeep.model import decoding
from jeep.model.decoding import decode
from jeep.model.editable import EditableModel

FRONT = (7, 3, 11, 5, 2)
ENDS = [(9,), (4, 8, 1), (12, 6, 30, 21, 17, 40), (9, 9)]
LIMITS = [4, 5, 2, 4]


def greedy(logits, numbers, step):
    return logits.argmax(-1)


def never(tokens):
    return False


@torch.no_grad()
def plain(network, prompt, limit, ended=never):
    """The whole sequence anew for every token."""
    written = []
    while len(written) < limit and not (written and ended(written)):
        logits = network(input_ids=torch.tensor([[*prompt, *written]])).logits[0, -1]
        written.append(int(logits.argmax()))
    return written


@pytest.mark.parametrize(
    ("name", "front"), [*((name, FRONT) for name in ARCHITECTURES), *((name, ()) for name in KINDS)]
)
def test_what_is_written_is_what_the_whole_model_would_write(name, front, byte_level):
    network = random_network(name)
    prompts = [front + end for end in ENDS]
    expected = [plain(network, prompt, limit) for prompt, limit in zip(prompts, LIMITS, strict=True)]
    assert len({tuple(row[:3]) for row in expected}) > 1, "they are not all alike"
    model = EditableModel(network, byte_level)
    for budget in (1000, 30):
        assert decode(model, prompts, LIMITS, greedy, never, budget) == expected


@pytest.mark.parametrize("name", KINDS)
def test_a_sequence_that_ends_leaves_the_others_as_they_are(name, byte_level):
    network = random_network(name)
    prompts = [FRONT + end for end in ENDS]
    whole = [plain(network, prompt, 9) for prompt in prompts]
    last = whole[0][2]  # written third by the first at the latest
    expected = [plain(network, prompt, 9, lambda written: written[-1] == last) for prompt in prompts]
    assert len(expected[0]) <= 3
    model = EditableModel(network, byte_level)
    assert decode(model, prompts, [9] * 4, greedy, lambda written: written[-1] == last, 1000) == expected


def test_the_number_and_the_step_of_a_token_are_told(byte_level):
    """Whoever chooses is asked once for each token of each sequence, whatever batches there are."""
    model = EditableModel(random_network("llama"), byte_level)
    for budget in (1000, 1):
        asked = []

        def choose(logits, numbers, step, asked=asked):
            asked += [(number, step) for number in numbers.tolist()]
            return numbers * 10 + step

        found = decode(model, ENDS, LIMITS, choose, never, budget)
        assert found == [[number * 10 + step for step in range(limit)] for number, limit in enumerate(LIMITS)]
        assert sorted(asked) == [(number, step) for number, limit in enumerate(LIMITS) for step in range(limit)]


def test_nothing_is_written_beyond_the_models_positions(byte_level):
    network = random_network("gpt2")  # 128, in a table
    model = EditableModel(network, byte_level)
    long = tuple(range(1, 126))
    found = decode(model, [long, (5,)], [10, 3], greedy, never, 1000)
    assert found == [plain(network, long, 3), plain(network, (5,), 3)]
    full = tuple(range(1, 129))
    assert decode(model, [full], [10], greedy, never, 1000) == [[]]


def test_what_cannot_be_continued(byte_level):
    model = EditableModel(random_network("gpt2"), byte_level)
    with pytest.raises(UserError, match="a prompt without tokens"):
        decode(model, [(1,), ()], [1, 1], greedy, never, 100)
    with torch.no_grad():
        model.network.get_parameter(model.parameter_name(3)).fill_(float("nan"))
    with pytest.raises(UserError, match="answers NaN"):
        decode(model, [(1,)], [1], greedy, never, 100)


def test_when_memory_runs_out_the_batch_is_made_smaller_and_nothing_is_lost(byte_level, monkeypatch):
    model = EditableModel(random_network("llama"), byte_level)
    expected = decode(model, ENDS, LIMITS, greedy, never, 1000)
    begin, failed = decoding._begin, []

    def short_of_memory(model, prompts, room):
        if len(prompts) > 2:
            failed.append(len(prompts))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return begin(model, prompts, room)

    monkeypatch.setattr(decoding, "_begin", short_of_memory)
    assert decode(model, ENDS, LIMITS, greedy, never, 1000) == expected
    assert failed

"""Sums by group in a fixed order."""

import pytest
import torch

from jeep.model.segments import Segments, each_place_once

GROUPS = [2, 0, 2, 2, 0]
ROWS = torch.arange(10.0, dtype=torch.float64).view(5, 2)


def test_sums_and_means_by_hand():
    segments = Segments(GROUPS, 4, torch.device("cpu"))
    expected = torch.tensor([[2 + 8, 3 + 9], [0, 0], [0 + 4 + 6, 1 + 5 + 7], [0, 0]]).double()
    assert torch.equal(segments.sum(ROWS), expected)
    assert torch.equal(segments.mean(ROWS[:, 0]), torch.tensor([5, 0, 10 / 3, 0], dtype=torch.float64))


def test_repeated_values_and_their_gradients():
    segments = Segments(GROUPS, 4, torch.device("cpu"))
    values = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.equal(segments.repeat(values), values[torch.tensor(GROUPS)])
    (segments.repeat(values) * ROWS).sum().backward()
    assert torch.equal(values.grad, segments.sum(ROWS))
    rows = ROWS.clone().requires_grad_()
    assert torch.autograd.gradcheck(segments.sum, rows)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_its_group(bad):
    segments = Segments(GROUPS, 4, torch.device("cpu"))
    rows = ROWS.clone()
    rows[0] = bad  # row 0 also fills the empty places of the other groups
    assert torch.isfinite(segments.sum(rows)).all(1).tolist() == [True, True, False, True]


def test_no_rows_are_zero():
    segments = Segments([], 3, torch.device("cpu"))
    assert torch.equal(segments.sum(torch.empty(0, 2)), torch.zeros(3, 2))
    assert segments.repeat(torch.ones(3, 2)).shape == (0, 2)


def test_writes_by_an_index_that_does_not_repeat_are_free_of_order_and_nothing_else_is():
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with pytest.raises(RuntimeError), each_place_once():
            assert not torch.are_deterministic_algorithms_enabled()
            raise RuntimeError
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    with each_place_once():
        pass
    assert not torch.are_deterministic_algorithms_enabled()

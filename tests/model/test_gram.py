"""Half of a symmetric product against all of it."""

import pytest
import torch

from jeep.model.gram import add_gram, mirrored


@pytest.mark.parametrize("size", [1, 7, 8, 37, 64])
def test_the_lower_triangle_is_that_of_the_whole_product(size):
    keys = torch.randn(size, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(size))
    total = torch.eye(size, dtype=torch.float64)
    add_gram(total, keys)
    whole = torch.eye(size, dtype=torch.float64) + keys @ keys.mT
    torch.testing.assert_close(total.tril(), whole.tril())
    torch.testing.assert_close(mirrored(total), whole)


def test_what_lies_behind_the_diagonal_is_not_computed():
    total = torch.zeros(64, 64)
    add_gram(total, torch.ones(64, 3))
    assert int((total == 0).sum()) == 64 * 64 * 7 // 16

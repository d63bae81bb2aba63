"""Products of a matrix with its own transpose, of which the lower triangle is made: 9/16 of the operations."""

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor

_STRIPS = 8


def lower_strips(size: int) -> Iterator[tuple[slice, slice]]:
    """The lower triangle of a symmetric matrix as strips of rows, each with the columns up to its diagonal block."""
    height = -(-size // _STRIPS)
    for start in range(0, size, height):
        stop = min(start + height, size)
        yield slice(start, stop), slice(stop)


def add_gram(total: Float[Tensor, "d d"], keys: Float[Tensor, "d m"]) -> None:
    """Add K Kᵀ to the lower triangle of `total`, all that a Cholesky factorisation reads."""
    for rows, columns in lower_strips(len(total)):
        total[rows, columns].addmm_(keys[rows], keys[columns].mT)


def mirrored(lower: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """The whole matrix, in place, of one whose lower triangle is there."""
    for rows, _ in lower_strips(len(lower)):
        lower[: rows.start, rows] = lower[rows, : rows.start].mT
    return lower

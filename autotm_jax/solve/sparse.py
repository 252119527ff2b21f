"""Sparse matrices that the rows of programs are made of."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


# How many segments in a row are summed up: with more, more cuts are found, and the
# program is larger.
_BLOCK = 128

# Of numbers that cancel out no more than this part of the largest is left.
_CANCELLED = 1e-12


def block_sums(count: int) -> sp.csr_array:
    """Sums of a vector, each from the beginning of its block of segments."""
    sizes = [min(_BLOCK, count - first) for first in range(0, count, _BLOCK)]
    blocks = [sp.csr_array(np.tril(np.ones((n, n)))) for n in sizes]
    return sp.csr_array(sp.block_diag(blocks))


def exact(matrix: sp.csr_array) -> sp.csr_array:
    """Without what is left of numbers that cancel out."""
    sizes = np.abs(matrix.data)
    matrix.data[sizes < _CANCELLED * sizes.max(initial=0.0)] = 0.0
    matrix.eliminate_zeros()
    return matrix


def ones_at(entries: list[tuple[int, int]], shape: tuple[int, int]) -> sp.csr_array:
    """A matrix of zeros, with ones at rows and columns."""
    return matrix_of([(row, column, 1.0) for row, column in entries], shape)


def matrix_of(
    entries: list[tuple[int, int, float]], shape: tuple[int, int]
) -> sp.csr_array:
    """A matrix of zeros, with values at rows and columns; those of one place add up."""
    row, column, value = zip(*entries, strict=True) if entries else ((), (), ())
    return sp.csr_array((value, (row, column)), shape=shape)

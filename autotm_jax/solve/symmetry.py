"""Layers that are alike, decided together.

A deep model repeats its layers, and so a problem repeats its tensors. Tensors whose
networks have the same shape form a class, in program order. Deciding a class as a whole
would be as coarse as a policy per layer. So a class of n is divided by the ruler
sequence: every second member, every second one of the others, and so on down to single
ones. With these log2(n) + 1 groups of n/2, n/4, ... members any number of layers can be
treated one way and the rest another; and since members of a group are far apart,
what is kept can stand between what is computed again from it.

A program with one boolean per column of a *group* has a fraction of the decisions. Its
solutions are solutions of the full program.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable

import numpy as np
import scipy.sparse as sp

from .columns import Columns


def tied(columns: Columns) -> sp.csr_array:
    """Which group decides each column.

    **Arguments:**

    - `columns`: of a program's networks.

    **Returns:**

    A 0/1 matrix with one row per column, and one column per decision of a group.
    """
    ends = np.searchsorted(columns.owner, np.arange(len(columns.problem.tensors) + 1))
    classes: dict[Hashable, list[int]] = defaultdict(list)
    for tensor, (first, end) in enumerate(zip(ends, ends[1:], strict=False)):
        classes[_shape(columns, tensor, int(first), int(end))].append(tensor)
    decision = np.empty(len(columns.edges), dtype=int)
    count = 0
    for members in classes.values():
        groups: dict[int, list[int]] = defaultdict(list)
        for rank, tensor in enumerate(members, start=1):
            groups[_ruler(rank)].append(tensor)
        for group in groups.values():
            size = int(ends[group[0] + 1] - ends[group[0]])
            for tensor in group:
                decision[ends[tensor] : ends[tensor + 1]] = np.arange(
                    count, count + size
                )
            count += size
    rows = np.arange(len(decision))
    shape = (len(decision), count)
    return sp.csr_array((np.ones(len(decision)), (rows, decision)), shape=shape)


def _ruler(rank: int) -> int:
    """How often 2 divides a number."""
    return (rank & -rank).bit_length() - 1


def _shape(columns: Columns, tensor: int, first: int, end: int) -> Hashable:
    # The same edges between the same uses, counted from the first.
    edges = columns.edges[first:end]
    kinds = tuple(tuple(type(a).__name__ for a in e.actions) for e in edges)
    found = columns.problem.tensors[tensor]
    seconds = None
    if found.recipe is not None:
        seconds = tuple(found.recipe.seconds.values()), len(found.recipe.roots)
    is_carried = found.carried is not None
    return found.nbytes, len(found.touches), kinds, seconds, is_carried

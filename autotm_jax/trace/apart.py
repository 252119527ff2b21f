"""One leaf of the state after the other.

What follows the last kernel of a segment is fused work without an order of its own: the
updates of all leaves would run together, with all of them on the device at once. Each
leaf's update, with those that it reads (the moments of a parameter with the parameter),
gets a segment of its own; small ones share one.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from .nest import Scope
from .primitives import Kind
from .program import Equation, Value


# A leaf smaller than the largest one by this factor is next to nothing.
_NOTHING = 4096


def apart(
    equations: Sequence[Equation],
    scopes: Sequence[Scope],
    values: Sequence[Value],
    carried: Collection[int],
) -> tuple[tuple[Equation, ...], list[Scope]]:
    """Gives the updates of a segment segments of their own.

    **Arguments:**

    - `equations`: the program, with segments as homes.
    - `scopes`: per segment, the loop in whose body it runs.
    - `values`: of the program.
    - `carried`: the results that take the places of arguments in the next step.

    **Returns:**

    The equations with new homes, and the scopes of the segments that there are now.
    """
    groups = _groups(equations, values, carried)
    by_home: dict[int, list[list[int]]] = defaultdict(list)
    for members in groups:
        home = equations[members[0]].home
        if scopes[home] is None:
            by_home[home].append(members)
    # Per equation, how many segments after the one that was its home.
    later: dict[int, int] = {}
    added: dict[int, int] = {}
    for home, found in by_home.items():
        later |= _numbered(equations, values, carried, found)
        added[home] = max(later[i] for members in found for i in members)
    if not any(added.values()):
        return tuple(equations), list(scopes)
    shift, out_scopes = 0, []
    shifts: list[int] = []
    for home, scope in enumerate(scopes):
        shifts.append(shift)
        more = added.get(home, 0)
        out_scopes += [scope] * (1 + more)
        shift += more
    later = _propagated(equations, later)
    moved = (
        dataclasses.replace(e, home=e.home + shifts[e.home] + later.get(e.index, 0))
        for e in equations
    )
    return tuple(moved), out_scopes


def _groups(
    equations: Sequence[Equation], values: Sequence[Value], carried: Collection[int]
) -> list[list[int]]:
    """Updates, as equations, that read each other's results, in program order."""
    # Through fused work, the carried results that a value is computed from. What is
    # small (a count of steps, say) is read by all, and keeps none together.
    largest = max((values[v].nbytes for v in carried), default=0)
    origins: dict[int, frozenset[int]] = {}
    group_of: dict[int, list[int]] = {}
    for equation in equations:
        if equation.kind is not Kind.FUSED:
            continue
        read = frozenset().union(
            *(origins.get(v, frozenset()) for v in equation.operands)
        )
        own = [v for v in equation.outputs if v in carried]
        if own:
            members = [equation.index]
            for origin in sorted(read):
                known = group_of[origin]
                same_home = equations[known[0]].home == equation.home
                if same_home and known is not members:
                    known.extend(members)
                    for v in (v for v, g in group_of.items() if g is members):
                        group_of[v] = known
                    members = known
            group_of.update(dict.fromkeys(own, members))
            large = [v for v in own if values[v].nbytes * _NOTHING >= largest]
            read = frozenset(large)
        for output in equation.outputs:
            origins[output] = read
    unique = {id(g): sorted(g) for g in group_of.values()}
    return sorted(unique.values())


def _numbered(
    equations: Sequence[Equation],
    values: Sequence[Value],
    carried: Collection[int],
    groups: Sequence[Sequence[int]],
) -> dict[int, int]:
    """By equation, the number of its segment: as many groups as the largest fills."""

    def nbytes(members: Sequence[int]) -> int:
        made = (v for i in members for v in equations[i].outputs)
        return sum(values[v].nbytes for v in made if v in carried)

    most = max(map(nbytes, groups))
    out: dict[int, int] = {}
    number = filled = 0
    for members in groups:
        more = nbytes(members)
        if filled and filled + more > most:
            number, filled = number + 1, 0
        filled += more
        out.update(dict.fromkeys(members, number))
    return out


def _propagated(
    equations: Sequence[Equation], later: Mapping[int, int]
) -> dict[int, int]:
    """What reads an update in the same segment goes along with it."""
    ready: dict[int, tuple[int, int]] = {}  # by value: a home, and how much later
    out = dict(later)
    for equation in equations:
        after = max((ready[v] for v in equation.operands if v in ready), default=(0, 0))
        home, number = after
        if equation.index not in later and home == equation.home and number:
            out[equation.index] = number
        own = equation.home, out.get(equation.index, 0)
        for output in equation.outputs:
            is_update = equation.index in later
            waits = equation.kind is not Kind.FUSED or is_update
            ready[output] = max(own, after) if waits else after
    return out

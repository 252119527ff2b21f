"""Where the loops of a program are among its segments, and what crosses their borders.

A loop takes a range of segments, which are those of one iteration. Values are made in
a *scope*: the body of a loop, or outside of all. Where one that is made outside is read
inside, it is there for the whole loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .loops import Loop, path_of


Scope = int | None


class Nest:
    """The loops of a program as ranges of segments.

    - `ranges`: by loop, its first segment and the one after its last.
    - `scopes`: per segment, the loop in whose body it runs.

    **Arguments:**

    - `loops`: of the program.
    - `segments`: per segment, the loop in whose body it runs.
    - `scopes`: per value, the loop in whose body it is made.
    """

    def __init__(
        self,
        loops: Sequence[Loop],
        segments: Sequence[Scope],
        scopes: Sequence[Scope],
    ):
        self.loops = loops
        self.scopes, self._values = segments, scopes
        self._paths = {i: path_of(loops, i) for i in (None, *range(len(loops)))}
        self.ranges: dict[int, tuple[int, int]] = {}
        for k, loop in enumerate(segments):
            for outer in self._paths[loop]:
                first, _ = self.ranges.get(outer, (k, k))
                self.ranges[outer] = first, k + 1

    def is_within(self, scope: Scope, loop: Scope) -> bool:
        """Whether the body of `loop` is in that of `scope`, or the same."""
        return scope is None or scope in self._paths[loop]

    def child(self, scope: Scope, segment: int) -> int | None:
        """The outermost loop around a segment that is inside a scope, if any."""
        path = self._paths[self.scopes[segment]]
        depth = 0 if scope is None else path.index(scope) + 1
        return path[depth] if depth < len(path) else None

    def place(self, value: int, segment: int) -> Scope:
        """The scope in which a value is at hand for a segment.

        That in which it is made, or the body of the loop that is paired with that.
        """
        scope = self._values[value]
        loop = self.scopes[segment]
        if self.is_within(scope, loop):
            return scope
        # Of paired loops, which have one parent, the body of the other.
        assert scope is not None
        return self.child(self.loops[scope].parent, segment)

    def touched(self, value: int, segment: int) -> set[int]:
        """The segments that touch a value if one does."""
        inner = self.child(self.place(value, segment), segment)
        return {segment} if inner is None else set(range(*self.ranges[inner]))

    def borders(self) -> Iterator[tuple[int, int]]:
        """Values that loops take in and give out, with segments that touch them."""
        for loop in self.loops:
            first, end = self.ranges[loop.index]
            for constant in loop.constants:
                if isinstance(constant, int):
                    yield constant, first
            for carry in loop.carries:
                if isinstance(carry.initial, int):
                    yield carry.initial, first - 1
                yield carry.before, first
                if isinstance(carry.after, int):
                    yield carry.after, end - 1
                yield carry.result, end
            for stack in loop.stacks:
                if isinstance(stack.each, int):
                    yield stack.each, end - 1
                yield stack.whole, first
                if stack.begun is not None:
                    yield stack.begun, first - 1

    def crossing(self, value: int, touches: Sequence[int]) -> list[int]:
        """The loop that makes a value and those that read it, if there are others."""
        scope = self._values[value]
        if scope is None:
            return []
        places = dict.fromkeys(self.place(value, k) for k in touches)
        found = [place for place in places if place is not None]
        return found if len(found) > 1 else []

    def inside(self, scope: Scope) -> Iterator[tuple[int, int]]:
        """The ranges of the loops that stand in a scope, but not in one of those."""
        for loop in self.loops:
            if loop.parent == scope:
                yield self.ranges[loop.index]

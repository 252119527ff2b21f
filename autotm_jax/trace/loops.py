"""Loops of a flattened step, and the pairs that JAX's differentiation makes of them.

A loop is written out once: its equations stand for one iteration. What the forward loop
stacks and the backward loop of a gradient reads slice by slice is, for one iteration,
one value: made in the body of one loop and read in that of the other. Such loops are a
*pair*. The stack between them is then no value of the program any more, but one of the
ways to keep that value; the others are a stack on the host, and computing it again.

A `while` is such a loop, too, if there is something heavy in it. It stacks nothing, and
nobody knows how often it runs: where times are summed, a number is assumed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.extend.core as jex_core
import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params

from .. import compat
from .primitives import Kind, kind_of


COUNTER = compat.jaxpr_of_function(lambda: jnp.int32(0)).out_avals[0]
"""The abstract value of a counter."""

ASSUMED_LENGTH = 10
"""How often a `while` is taken to run. More make what is done in it weigh more."""


@dataclasses.dataclass(frozen=True)
class Carry:
    """A value that one iteration hands to the next.

    - `initial`, `result`: before the first iteration and after the last, outside.
    - `before`, `after`: at the start and at the end of an iteration, inside.

    Each is a value index; `initial` and `after` may be JAX literals.
    """

    initial: Any
    before: int
    after: Any
    result: int


@dataclasses.dataclass(frozen=True)
class Stack:
    """What every iteration reads or makes, and all of that in one array outside.

    - `each`: inside. It may be a JAX literal if it is made there.
    - `whole`: outside, with the iterations along its first axis.
    - `begun`: outside, a stack that another loop has begun to fill, if one has.
    """

    each: Any
    whole: int
    begun: int | None = None


@dataclasses.dataclass(frozen=True)
class Condition:
    """Whether a `while` runs once more.

    - `closed`: the closed jaxpr that says so, of `constants` and of what is carried.
    - `constants`: values outside, or JAX literals.
    """

    closed: Any
    constants: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Loop:
    """A `scan` or a `while`, written out.

    - `index`: its place in the program's loops.
    - `parent`: the loop whose body it stands in, if any.
    - `length`, `reverse`, `unroll`: as of `jax.lax.scan`; the length of a `while` is
        assumed.
    - `counter`: inside, the number of the iteration in the order of the stacks.
    - `start`: the lowest number.
    - `condition`: of a `while`.
    - `carries`, `slices`, `stacks`: what goes in and out.
    - `source`: the user's line.
    - `eqn`: the equation.
    """

    index: int
    parent: int | None
    length: int
    reverse: bool
    unroll: int
    counter: int
    carries: tuple[Carry, ...]
    slices: tuple[Stack, ...]
    stacks: tuple[Stack, ...]
    source: str
    start: int = 0
    condition: Condition | None = None
    eqn: jex_core.JaxprEqn | None = dataclasses.field(default=None, repr=False)

    @property
    def constants(self) -> tuple[Any, ...]:
        """What the condition of a `while` reads from outside."""
        return () if self.condition is None else self.condition.constants

    @property
    def entered(self) -> tuple[int, ...]:
        """Values inside that no equation makes."""
        return tuple(c.before for c in self.carries)

    @property
    def left_with(self) -> tuple[int, ...]:
        """Values outside that the loop makes."""
        carried = (c.result for c in self.carries)
        return (*carried, *(s.whole for s in self.stacks))

    def substituted(self, by: Mapping[int, Any]) -> Loop:
        """The loop with values replaced."""

        def now(atom: Any) -> Any:
            return by.get(atom, atom) if isinstance(atom, int) else atom

        carries = tuple(
            dataclasses.replace(c, initial=now(c.initial), after=now(c.after))
            for c in self.carries
        )
        slices = tuple(dataclasses.replace(s, whole=now(s.whole)) for s in self.slices)
        stacks = tuple(dataclasses.replace(s, each=now(s.each)) for s in self.stacks)
        counter, condition = by.get(self.counter, self.counter), self.condition
        if condition is not None:
            constants = tuple(map(now, condition.constants))
            condition = dataclasses.replace(condition, constants=constants)
        return dataclasses.replace(
            self,
            counter=counter,
            condition=condition,
            carries=carries,
            slices=slices,
            stacks=stacks,
        )


def why_whole(eqn: jex_core.JaxprEqn) -> str:
    """Why a `scan` or a `while` is not written out, as the end of a sentence.

    Empty if it is.
    """
    if compat.has_effects(eqn):
        return "has effects, which happen in their order"
    is_while = eqn.primitive.name == "while"
    if is_while and _is_heavy(eqn.params["cond_jaxpr"].jaxpr):
        return "has a condition that is not cheap"
    if is_while and eqn.params["cond_jaxpr"].out_avals[0].shape:
        return "ends at another time for each of a batch"
    if is_while and not _is_heavy(eqn.params["body_jaxpr"].jaxpr):
        return "does nothing that takes much memory"
    if not is_while and eqn.params["length"] < 2:
        return "runs less than twice"
    if compat.has_context(eqn):
        return "asks for more than a loop"
    if any(compat.is_on_host(v.aval) for v in (*eqn.invars, *eqn.outvars)):
        return "reads or makes values on the host"
    return ""


def _is_heavy(jaxpr: Any) -> bool:
    """Whether a kernel runs in it, or in what it calls."""
    for eqn in jaxpr.eqns:
        inner = list(jaxprs_in_params(eqn.params))
        if any(map(_is_heavy, inner)) or (not inner and kind_of(eqn) is Kind.KERNEL):
            return True
    return False


def can_be_filled(aval: Any) -> bool:
    """Whether a stack can be made of a literal, to be written to slice by slice.

    Keys have no literal, what is written to a weakly typed array is not weak, and what
    is made of a literal is not on the host.
    """
    return not (compat.is_key_type(aval) or aval.weak_type or compat.is_on_host(aval))


def path_of(loops: Sequence[Loop], loop: int | None) -> tuple[int, ...]:
    """The loops around the body of a loop, from the outermost to itself."""
    out: list[int] = []
    while loop is not None:
        out.append(loop)
        loop = loops[loop].parent
    return tuple(reversed(out))


def repeats(loops: Sequence[Loop], loop: int | None) -> int:
    """How often the body of a loop is run in one step."""
    return math.prod(loops[i].length for i in path_of(loops, loop))


def slice_of(whole: jax.Array, counter: Any) -> jax.Array:
    """The slice of a stack that belongs to an iteration."""
    zeros = [jnp.int32(0)] * (whole.ndim - 1)
    sizes = (1, *whole.shape[1:])
    part = jax.lax.dynamic_slice(
        whole, [counter, *zeros], sizes, allow_negative_indices=False
    )
    return jax.lax.squeeze(part, (0,))


def slicing(stack: Any) -> Any:
    """The closed jaxpr of `(stack, counter) -> the slice of an iteration`."""
    return compat.jaxpr_of_function(slice_of, stack, COUNTER)

"""Conditionals, which are one kernel each, and other ways to run them.

What happens in a branch is not part of the program around it: nobody knows whether it
does. It may run by a plan of its own, though. Each such plan is a variant of the
conditional.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core as jex_core

from .. import compat
from .flat import Flat, live
from .variants import Choice


Chooser = Callable[[jex_core.JaxprEqn], Choice | None]
"""Says which ways there are to run a conditional; `None` if there is but one."""


def is_conditional(eqn: jex_core.JaxprEqn) -> bool:
    """Whether an equation is a `cond` or a `switch` that may run in other ways."""
    # A context (compute type, XLA metadata) asks for this very call.
    asks = eqn.effects or compat.has_context(eqn)
    on_host = any(compat.is_on_host(v.aval) for v in (*eqn.invars, *eqn.outvars))
    return eqn.primitive.name == "cond" and not asks and not on_host


def with_choices(flat: Flat, choose: Chooser | None) -> Flat:
    """A flattened step whose conditionals may run in other ways.

    **Arguments:**

    - `flat`: the step.
    - `choose`: which ways there are; `None` leaves everything as it is.

    **Returns:**

    A `Flat` in which some conditionals are equations with variants.
    """
    if choose is None:
        return flat
    equations = []
    for equation in flat.equations:
        choice = None
        if is_conditional(equation.eqn) and equation.manual is None:
            choice = choose(equation.eqn)
        if choice is not None:
            eqn = choice.instead_of(equation.eqn)
            equation = dataclasses.replace(equation, eqn=eqn)
        equations.append(equation)
    return dataclasses.replace(flat, equations=tuple(equations))


def pass_on(flat: Flat) -> Flat:
    """Reads operands of conditionals instead of results that are nothing else.

    A gradient makes conditionals hand on what their counterparts in the backward pass
    need, even where that goes into them in the first place.

    **Arguments:**

    - `flat`: the step.

    **Returns:**

    A `Flat` with the same results.
    """
    by: dict[int, Any] = {}
    for equation in flat.equations:
        if equation.eqn.primitive.name != "cond" or equation.manual is not None:
            continue
        for output, place in zip(equation.outputs, _passed(equation.eqn), strict=True):
            operand = None if place is None else equation.inputs[place]
            if isinstance(operand, int) and flat.avals[operand] == flat.avals[output]:
                by[output] = by.get(operand, operand)
    return live(flat.substituted(by)) if by else flat


def _passed(eqn: jex_core.JaxprEqn) -> list[int | None]:
    """By result, the place of the operand that all branches return there, if any."""
    found: list[set[int | None]] = [set() for _ in eqn.outvars]
    for branch in eqn.params["branches"]:
        # The first operand is the number of the branch.
        place = {v: n for n, v in enumerate(branch.jaxpr.invars, start=1)}
        for known, var in zip(found, branch.jaxpr.outvars, strict=True):
            is_literal = isinstance(var, jex_core.Literal)
            known.add(None if is_literal else place.get(var))
    return [known.pop() if len(known) == 1 else None for known in found]


def as_it_is(eqn: jex_core.JaxprEqn) -> Any:
    """The closed jaxpr of one equation."""
    return compat.jaxpr_of_function(
        lambda *operands: compat.bind(eqn, *operands), *_avals(eqn)
    )


def with_branches(
    eqn: jex_core.JaxprEqn, branches: Sequence[Callable[..., list[Any]]]
) -> Any:
    """The closed jaxpr of a conditional with other branches.

    **Arguments:**

    - `eqn`: a conditional.
    - `branches`: flat functions of its operands but the first, the number of the
        branch.

    **Returns:**

    A closed jaxpr of the same operands and results.
    """

    def run(number: Any, *operands: Any) -> list[Any]:
        return jax.lax.switch(number, branches, *operands)

    return compat.jaxpr_of_function(run, *_avals(eqn))


def _avals(eqn: jex_core.JaxprEqn) -> list[Any]:
    return [v.aval for v in eqn.invars]

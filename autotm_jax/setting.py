"""What one call of a step is planned for: its devices, and the memory they are lent."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

from .devices import devices_of, is_on_mesh
from .division import Division
from .machine import with_lent_memory
from .request import Request
from .shared import check_same_step, spans_processes, with_least_memory


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a call is planned for.

    - `request`: what was asked for, of the machine as it is lent to this step.
    - `divide`: for a step on a mesh, asks XLA how its values are divided.
    - `is_shared`: whether it runs on devices of several processes.
    """

    request: Request
    divide: Division | None = None
    is_shared: bool = False


def setting_of(
    request: Request,
    jaxpr: Any,
    fun: Callable[..., Any],
    options: Mapping[str, Any],
    args: Any,
    kwargs: Any,
) -> Setting:
    """The setting of a call.

    **Arguments:**

    - `request`: what was asked for.
    - `jaxpr`: the closed jaxpr of the step.
    - `fun`, `options`: the step, and what was given to `jax.jit` for it.
    - `args`, `kwargs`: of the call.

    **Returns:**

    A `Setting`.

    **Raises:**

    - `AutoTMError`: if the step runs on several processes that do not ask for the same.
    """
    is_present = request.target.is_present
    if is_present:
        here = devices_of(args, kwargs, options).intersection(jax.local_devices())
        machine = with_lent_memory(request.target.machine, len(here))
        request = request.of(machine)
    if not is_on_mesh(args, kwargs, options):
        return Setting(request)
    divide = Division(fun, options, args, kwargs, to_run=is_present)
    request = dataclasses.replace(request, measured=False)
    is_shared = spans_processes(args, kwargs, options)
    if is_shared:
        request = request.of(with_least_memory(request.target.machine))
        check_same_step(jaxpr, request)
    return Setting(request, divide, is_shared)

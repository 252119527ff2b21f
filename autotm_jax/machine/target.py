"""Where a step will run: a device that is here, or one that is only described."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..errors import TargetError
from .machine import Machine, describe, known_machines, machine_of, target_config


_ALONE = "1x1x1"
_MEMORY_SIZE = re.compile(r"device_memory_size: *(\d+)")


@dataclasses.dataclass(frozen=True)
class Target:
    """What to compile for.

    - `machine`: its cost model.
    - `config`: XLA's description of an absent device (the text of a
        `GpuTargetConfigProto`); `None` if the device is here.
    - `topology`: how many absent devices there are: slices, hosts in each, and devices
        of each host.
    - `uses_triton`: whether XLA may have Triton write matmuls for an absent device.
    """

    machine: Machine
    config: str | None = None
    topology: str = _ALONE
    uses_triton: bool = True

    @property
    def is_present(self) -> bool:
        """Whether steps compiled for it can run in this process."""
        return self.config is None

    @property
    def platform(self) -> str | None:
        """JAX's name of what steps are lowered for, where that is sure.

        `None` for a device that is here: there a step is lowered for where its
        arguments are, or for the platforms that it is asked for.
        """
        return None if self.is_present else self.machine.platform

    @property
    def devices(self) -> tuple[Any, ...]:
        """The absent devices, to make a mesh of; those that are here otherwise.

        !!! Example

            ```python
            target = autotm.target("h100-sxm", topology="1x1x8")
            mesh = jax.make_mesh((8,), ("data",), devices=target.devices)
            ```
        """
        if self.config is None:
            return tuple(jax.devices())
        return _absent_devices(self.config, self.topology)

    @property
    def sharding(self) -> NamedSharding | None:
        """On the first absent device; `None` if the device is here."""
        if self.config is None:
            return None
        mesh = Mesh(np.array(self.devices[:1]), ("device",))
        return NamedSharding(mesh, PartitionSpec())

    def with_memory(self, nbytes: int) -> Target:
        """The same absent device with another amount of memory."""
        if self.config is None:
            raise TargetError("The memory of a present device cannot be changed.")
        config = _MEMORY_SIZE.sub(f"device_memory_size: {nbytes}", self.config)
        machine = dataclasses.replace(self.machine, device_bytes=nbytes)
        return dataclasses.replace(self, machine=machine, config=config)

    def place(self, tree: Any, on_mesh: bool = False) -> Any:
        """Abstract values of a pytree of arrays, placed on the target.

        **Arguments:**

        - `tree`: arrays, or abstract values.
        - `on_mesh`: whether they are where their shardings say, on several of the
            absent devices. If not, they are on the first.

        **Returns:**

        A pytree of `jax.ShapeDtypeStruct`s. For a present device the tree is returned
        as it is.
        """
        if self.config is None:
            return tree
        here = self.sharding

        def abstract(leaf: Any) -> Any:
            sharding = getattr(leaf, "sharding", None) if on_mesh else here
            if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
                leaf = np.asarray(leaf)
                dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
                return jax.ShapeDtypeStruct(
                    leaf.shape, dtype, sharding=sharding, weak_type=True
                )
            weak = getattr(leaf, "weak_type", False)
            return jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=sharding, weak_type=weak
            )

        return jax.tree.map(abstract, tree)


@functools.cache
def _absent_devices(config: str, topology: str) -> tuple[Any, ...]:
    try:
        found = topologies.get_topology_desc(
            platform="cuda", target_config=config, topology=topology
        )
    except Exception as error:
        raise TargetError(
            "Compiling for a GPU that is not here needs JAX's CUDA plugin, and JAX "
            "must not look for a GPU here: pip install 'autotm-jax[cuda-compile]', and "
            "set JAX_PLATFORMS=cpu before Python starts "
            f"(JAX said: {type(error).__name__}: {error})."
        ) from error
    return tuple(found.devices)


_TOPOLOGY = re.compile(r"[1-9]\d*x[1-9]\d*x[1-9]\d*")


def target(name: str | Target | None = None, topology: str = _ALONE) -> Target:
    """Names what a step is compiled for.

    !!! Example

        ```python
        h100 = autotm.target("h100-sxm")
        step = autotm.jit(train_step, budget="6GiB", target=h100)
        compiled = step.lower(state, batch).compile()   # no GPU needed
        ```

    **Arguments:**

    - `name`: a described machine, `None` for the default backend's first device, or
        a `Target`, which is returned.
    - `topology`: of a described machine, how many there are: slices, hosts in each, and
        devices of each host, as in `"1x1x8"`.

    **Returns:**

    A `Target`.

    **Raises:**

    - `TargetError`: if there is no such machine, or it cannot be compiled for.
    """
    if topology != _ALONE and not isinstance(name, str):
        raise TargetError(
            f"topology is {topology!r}, which is for machines that are named. Give the "
            "name of one, or leave topology out."
        )
    if isinstance(name, Target):
        return name
    if name is None:
        return Target(machine_of(jax.local_devices()[0]))
    if not isinstance(name, str):
        raise TargetError(
            f"target is {name!r}, a {type(name).__name__}. Give the name of a machine "
            f"({', '.join(known_machines())}), a Target, or None."
        )
    if not _TOPOLOGY.fullmatch(str(topology)):
        raise TargetError(
            f"topology is {topology!r}. Say how many slices, hosts in each and devices "
            "of each host there are, as in '1x1x8'."
        )
    machine = describe(name)
    config = target_config(name)
    if config is None:
        raise TargetError(
            f"The machine {name!r} is described for cost models only: XLA cannot "
            "compile for it while it is absent."
        )
    return Target(machine, config, topology)

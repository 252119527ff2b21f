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


_MEMORY_SIZE = re.compile(r"device_memory_size: *(\d+)")


@dataclasses.dataclass(frozen=True)
class Target:
    """What to compile for.

    - `machine`: its cost model.
    - `config`: XLA's description of an absent device (the text of a
        `GpuTargetConfigProto`); `None` if the device is here.
    """

    machine: Machine
    config: str | None = None

    @property
    def is_present(self) -> bool:
        """Whether steps compiled for it can run in this process."""
        return self.config is None

    @property
    def sharding(self) -> NamedSharding | None:
        """Replication over the one absent device; `None` if the device is here."""
        return None if self.config is None else _absent_device(self.config)

    def with_memory(self, nbytes: int) -> Target:
        """The same absent device with another amount of memory."""
        if self.config is None:
            raise TargetError("The memory of a present device cannot be changed.")
        config = _MEMORY_SIZE.sub(f"device_memory_size: {nbytes}", self.config)
        machine = dataclasses.replace(self.machine, device_bytes=nbytes)
        return Target(machine, config)

    def place(self, tree: Any) -> Any:
        """Abstract values of a pytree of arrays, placed on the target.

        Leaves without a shape are left alone. For a present device the tree is
        returned as it is.
        """
        sharding = self.sharding
        if sharding is None:
            return tree

        def abstract(leaf: Any) -> Any:
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
def _absent_device(config: str) -> NamedSharding:
    try:
        topology = topologies.get_topology_desc(
            platform="cuda", target_config=config, topology="1x1x1"
        )
    except Exception as error:
        raise TargetError(
            "Compiling for a GPU that is not here needs JAX's CUDA plugin: "
            "pip install 'autotm-jax[cuda-compile]' "
            f"(JAX said: {type(error).__name__}: {error})."
        ) from error
    mesh = Mesh(np.array(topology.devices[:1]), ("device",))
    return NamedSharding(mesh, PartitionSpec())


def target(name: str | Target | None = None) -> Target:
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

    **Returns:**

    A `Target`.

    **Raises:**

    - `TargetError`: if there is no such machine, or it cannot be compiled for.
    """
    if isinstance(name, Target):
        return name
    if name is None:
        return Target(machine_of(jax.devices()[0]))
    if not isinstance(name, str):
        raise TargetError(
            f"target is {name!r}, a {type(name).__name__}. Give the name of a machine "
            f"({', '.join(known_machines())}), a Target, or None."
        )
    machine = describe(name)
    config = target_config(name)
    if config is None:
        raise TargetError(
            f"The machine {name!r} is described for cost models only: XLA cannot "
            "compile for it while it is absent."
        )
    return Target(machine, config)

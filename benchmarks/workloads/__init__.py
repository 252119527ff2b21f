"""The training steps of the benchmarks, by name.

Every step has the same form, `step(state, batch) -> (state, loss)`, is written in
plain `jax.numpy` on pytrees of parameters, is unrolled (no scan over layers), and
donates its state. A name ending in `-tiny` is the same model, small enough to compile
and run on a CPU in seconds; one ending in `-small` takes tenths of a second per step
there, which is long enough to be timed. Names that begin with `autotm-` are those of
the AutoTM paper's networks; `autotm.NETWORKS` has them at the batches of the paper.

!!! Example

    ```python
    from benchmarks import workloads

    workload = workloads.get("mlp-tiny")
    step = jax.jit(workload.step, donate_argnums=workload.donate_argnums)
    state, loss = step(*workload.make(seed=0))
    ```
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from . import autotm, densenet, dlrm, gpt, inception, llama, mlp, resnet, unet, vgg, vit
from ._workload import Workload as Workload


_REGISTRY: dict[str, tuple[Callable[[Any, str], Workload], Any]] = {
    "gpt-12": (gpt.workload, gpt.Config()),
    "gpt-24": (gpt.workload, gpt.Config(layers=24)),
    "gpt-48": (gpt.workload, gpt.Config(layers=48)),
    "gpt-96": (gpt.workload, gpt.Config(layers=96)),
    "gpt-12-dropout": (gpt.workload, gpt.Config(dropout=0.1)),
    "gpt-12-variants": (gpt.workload, gpt.Config(variants=True)),
    "gpt-12-scanned": (gpt.workload, gpt.Config(scanned=True)),
    "gpt-32-scanned": (gpt.workload, gpt.Config(layers=32, scanned=True)),
    "gpt-small": (gpt.workload, gpt.SMALL),
    "gpt-tiny": (gpt.workload, gpt.TINY),
    "gpt-tiny-scanned": (gpt.workload, dataclasses.replace(gpt.TINY, scanned=True)),
    "gpt-tiny-variants": (
        gpt.workload,
        dataclasses.replace(gpt.TINY, variants=True),
    ),
    "llama-8b": (llama.workload, llama.Config()),
    "llama-tiny": (llama.workload, llama.TINY),
    "resnet-50": (resnet.workload, resnet.Config()),
    "resnet-200": (resnet.workload, resnet.Config(blocks=(3, 24, 36, 3), batch=32)),
    "resnet-small": (resnet.workload, resnet.SMALL),
    "resnet-tiny": (resnet.workload, resnet.TINY),
    "mlp": (mlp.workload, mlp.Config()),
    "mlp-small": (mlp.workload, mlp.SMALL),
    "mlp-tiny": (mlp.workload, mlp.TINY),
    "vit": (vit.workload, vit.Config()),
    "vit-tiny": (vit.workload, vit.TINY),
    "unet": (unet.workload, unet.Config()),
    "unet-tiny": (unet.workload, unet.TINY),
    "densenet-264": (densenet.workload, densenet.Config()),
    "densenet-tiny": (densenet.workload, densenet.TINY),
    "dlrm": (dlrm.workload, dlrm.Config()),
    "dlrm-tiny": (dlrm.workload, dlrm.TINY),
    "inception-tiny": (inception.workload, inception.TINY),
    "vgg-tiny": (vgg.workload, vgg.TINY),
    **{
        f"autotm-{name}": (network.build, network.config)
        for name, network in autotm.NETWORKS.items()
    },
}


def names() -> tuple[str, ...]:
    """The names that `get` knows."""
    return tuple(_REGISTRY)


def get(name: str) -> Workload:
    """Builds the workload of this name; nothing is allocated until its `make`.

    For other sizes call the model's own module, e.g.
    `gpt.workload(gpt.Config(layers=36))`.
    """
    if name not in _REGISTRY:
        raise ValueError(f"No workload is called {name!r}; there are {names()}.")
    build, config = _REGISTRY[name]
    return build(config, name)

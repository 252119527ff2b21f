"""Steps on a mesh of eight GPUs: memory of each device, and what they send.

`python -m benchmarks.sharded` compiles training steps whose state is spread over eight
H100 (fully sharded data parallelism: the largest dimension of each leaf is divided, but
not that of the layers of a scan), plain and planned; one of them also by hand, as one
`shard_map`. No GPU is needed: the bytes are those of real executables, the seconds are
modelled.

    python -m benchmarks.sharded --workloads llama-8b --budgets plain 40GiB min

- `predicted`, `compiled` and `temp` are of each device.
- `collectives` counts what is exchanged in a step, by kind; `sent` is the sum of the
  larger of operands and results of each.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from typing import Any


if __name__ == "__main__":
    # Before JAX starts: the target is compiled for, nothing runs.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import autotm_jax as autotm
from autotm_jax.compile import collectives, temp_bytes

from .workloads import Workload, gpt, llama


MIB, GIB = 2**20, 2**30
PLAIN = "plain"

WORKLOADS = {
    "llama-8b": lambda: llama.workload(llama.Config(batch=8), "llama-8b"),
    "gpt-12": lambda: gpt.workload(gpt.Config(batch=128), "gpt-12"),
    "gpt-12-by-hand": lambda: gpt.workload(gpt.Config(batch=128), "gpt-12"),
}
"""What is sharded, and how much of it: a batch that eight devices divide."""

BUDGETS = {
    "llama-8b": (PLAIN, "40GiB", "min"),
    "gpt-12": (PLAIN, "8GiB", "min"),
    "gpt-12-by-hand": (PLAIN, "8GiB", "min"),
}


def on_mesh(workload: Workload, over: Mesh) -> tuple[Any, Any]:
    """The arguments of a step, the state spread over a mesh, the batch by rows."""

    def spread(leaf: Any) -> Any:
        first = 1 if leaf.ndim == 3 else 0
        fit = [d for d in range(first, leaf.ndim) if leaf.shape[d] % over.size == 0]
        spec: list[Any] = [None] * leaf.ndim
        if fit:
            spec[max(fit, key=lambda d: leaf.shape[d])] = over.axis_names[0]
        return _abstract(leaf, NamedSharding(over, PartitionSpec(*spec)))

    rows = NamedSharding(over, PartitionSpec(over.axis_names[0]))
    state, batch = workload.args
    by_rows = jax.tree.map(lambda leaf: _abstract(leaf, rows), batch)
    return jax.tree.map(spread, state), by_rows


def _abstract(leaf: Any, sharding: NamedSharding) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def by_hand(over: Mesh, state: Any, batch: Any) -> Callable[..., Any]:
    """The step of GPT-12 as one `shard_map`: a weight is gathered before it is used.

    **Arguments:**

    - `over`: the mesh, of one axis.
    - `state`, `batch`: what the step takes, with shardings.
    """
    config, (name,) = gpt.Config(batch=128), over.axis_names
    own = dataclasses.replace(config, batch=config.batch // over.size)
    specs = jax.tree.map(lambda leaf: leaf.sharding.spec, (state, batch))

    def gathered(part: jax.Array, spec: PartitionSpec) -> jax.Array:
        if name not in spec:
            return part
        axis = tuple(spec).index(name)
        return jax.lax.all_gather(part, name, axis=axis, tiled=True)

    def step(state: Any, batch: Any) -> tuple[Any, jax.Array]:
        def loss(params: Any) -> jax.Array:
            whole = jax.tree.map(gathered, params, specs[0][0])
            return jax.lax.pmean(gpt.loss(whole, batch, own), name)

        value, grads = jax.value_and_grad(loss)(state[0])
        return config.optimizer.update(state, grads), value

    out_specs = specs[0], PartitionSpec()
    return jax.shard_map(step, mesh=over, in_specs=specs, out_specs=out_specs)


def row(name: str, budget: str, target: autotm.Target) -> str:
    """One line of the table."""
    workload = WORKLOADS[name]()
    over = Mesh(np.array(target.devices), ("data",))
    args = on_mesh(workload, over)
    run = by_hand(over, *args) if name.endswith("by-hand") else workload.step
    donated = workload.donate_argnums
    planning, predicted, seconds = 0.0, "-", "-"
    if budget == PLAIN:
        step = jax.jit(run, donate_argnums=donated)
        compiled = step.lower(*args).compile()
    else:
        step = autotm.jit(run, budget=budget, target=target, donate_argnums=donated)
        begin = time.perf_counter()
        step.plan(*args)
        planning = time.perf_counter() - begin
        compiled = step.lower(*args).compile()
        plan = step.plan(*args)
        if plan.device_bytes is not None:
            predicted = f"{plan.device_bytes / MIB:,.0f}"
        if plan.seconds is not None:
            seconds = f"{1e3 * plan.seconds:,.1f}"
    sent = collectives(compiled.as_text())
    figures = (
        autotm.device_bytes(compiled) / MIB,
        temp_bytes(compiled) / MIB,
        autotm.host_bytes(compiled) / MIB,
    )
    text = " ".join(f"{figure:>9,.0f}" for figure in figures)
    return (
        f"{name:<14} {budget:>8} {predicted:>9} {text} {seconds:>9} {planning:>6.1f} "
        f"{sum(sent.nbytes.values()) / GIB:>7.2f}  {sent}"
    )


HEADER = (
    f"{'workload':<14} {'budget':>8} {'predicted':>9} {'compiled':>9} {'temp':>9} "
    f"{'host':>9} {'model ms':>9} {'plan s':>6} {'sent':>7}  collectives\n"
    f"{'':<14} {'':>8} {'MiB':>9} {'MiB':>9} {'MiB':>9} {'MiB':>9} {'':>9} {'':>6} "
    f"{'GiB':>7}  in a step"
)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Steps on a mesh of eight GPUs.")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=WORKLOADS)
    parser.add_argument("--budgets", nargs="+")
    parser.add_argument("--target", default="h100-sxm")
    options = parser.parse_args(argv)
    target = autotm.target(options.target, topology="1x1x8")
    print(f"Each of eight {options.target}, by JAX {jax.__version__}; ms modelled.")
    print(HEADER)
    for name in options.workloads:
        for budget in options.budgets or BUDGETS[name]:
            print(row(name, budget, target), flush=True)


if __name__ == "__main__":
    main()

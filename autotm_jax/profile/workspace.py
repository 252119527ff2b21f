"""Workspace: the memory that XLA needs inside a fragment, asked from XLA itself.

Each structurally unique fragment is compiled alone for the target. Its operands are
made inside the compiled program, behind a barrier, so that XLA's buffer assignment
sees them as temporaries that die where they die in the whole step, with all the
in-place reuse that follows; a donated argument is overwritten as in the whole step,
and so is no place to work in. What is left after the operands and results that the
solver counts itself is the workspace.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp

from .. import compat
from ..compile.memory import temp_bytes
from ..compile.options import compiler_options
from ..machine import Target
from ..trace import LOCAL, Fragment, Kind, Program, evaluate
from . import cache


# Part of every cache key: raise it when a fragment is run or measured differently.
_HARNESS = 4


@dataclasses.dataclass(frozen=True)
class Probe:
    """A fragment whose workspace is wanted.

    - `fragment`: what runs.
    - `dying`: which of its operands nobody reads afterwards.
    - `must_compile`: whether XLA is asked even where an estimate would do.
    """

    fragment: Fragment
    dying: frozenset[int]
    must_compile: bool = False


def workspaces(
    program: Program, probes: Sequence[Probe], target: Target, always: bool = False
) -> tuple[list[int], str]:
    """Workspace bytes of fragments, and where the figures come from.

    **Arguments:**

    - `program`: the program the fragments belong to.
    - `probes`: the fragments. Structurally equal ones are compiled once.
    - `target`: what to compile for. For a CPU, workspace is estimated from the fused
        operands of the kernels instead,
    - `always`: unless it is to be asked, too.

    **Returns:**

    Bytes per probe (negative where results take the place of dying operands), and
    the source.
    """
    found, source = ask(program, probes, target, always)
    out = [
        estimate(program, p.fragment) if isinstance(w, str) else w
        for w, p in zip(found, probes, strict=True)
    ]
    return out, source


def ask(
    program: Program, probes: Sequence[Probe], target: Target, always: bool = False
) -> tuple[list[int | str], str]:
    """As `workspaces`, with the reason in place of what does not compile."""
    is_guessed = target.machine.platform == "cpu" and not always
    asked = [p for p in probes if p.must_compile or not is_guessed]
    if not asked:
        return [estimate(program, p.fragment) for p in probes], "estimated"
    keys = {id(p): _key(program, p, target) for p in asked}
    known: dict[str, int | str] = {}
    missing: dict[str, Probe] = {}
    for probe in asked:
        key = keys[id(probe)]
        if key in known or key in missing:
            continue
        entry = None if key.startswith(LOCAL) else cache.load("workspace", key)
        if isinstance(entry, dict) and isinstance(entry.get("workspace"), int):
            known[key] = entry["workspace"]
        else:
            missing[key] = probe
    with ThreadPoolExecutor(max(2, (os.cpu_count() or 2) // 2)) as pool:
        found = pool.map(lambda p: _compile(program, p, target), missing.values())
        for key, workspace in zip(missing, found, strict=True):
            known[key] = workspace
            if isinstance(workspace, int) and not key.startswith(LOCAL):
                cache.store("workspace", key, {"workspace": workspace})
    out = [
        known[keys[id(p)]] if id(p) in keys else estimate(program, p.fragment)
        for p in probes
    ]
    failed = sum(isinstance(w, str) for w in known.values())
    source = f"XLA, {len(known)} kinds of segment, {len(missing)} compiled now"
    if len(asked) < len(probes):
        return out, f"{source}, the others estimated"
    return out, source + (f", {failed} estimated" if failed else "")


def estimate(program: Program, fragment: Fragment) -> int:
    """Workspace without a compiler: the fused values that feed kernels."""
    equations = [program.equations[i] for i in fragment.equations]
    fused = {v for e in equations if e.kind is Kind.FUSED for v in e.outputs}
    fed = {v for e in equations if e.kind is Kind.KERNEL for v in e.operands}
    return sum(program.values[v].nbytes for v in fused & fed)


def _key(program: Program, probe: Probe, target: Target) -> str:
    fragment = probe.fragment
    pattern = [
        (v in probe.dying, v in program.resident or v in program.returned)
        for v in (*fragment.reads, *fragment.writes)
    ]
    local = LOCAL if fragment.signature.startswith(LOCAL) else ""
    place = {v: i for i, v in enumerate((*fragment.reads, *fragment.writes))}
    pattern += [(place[r], place[a]) for r, a in _in_place(program, fragment)]
    jax_versions = (compat.JAX_VERSION, compat.JAXLIB_VERSION)
    versions = (*jax_versions, _HARNESS, os.environ.get("XLA_FLAGS", ""))
    parts = (fragment.signature, pattern, _device(target))
    return local + cache.cache_key(*parts, *versions)


def _device(target: Target) -> str:
    return target.config or jax.devices()[0].device_kind


def _in_place(program: Program, fragment: Fragment) -> list[tuple[int, int]]:
    # Results that overwrite an argument which the fragment reads, by argument.
    writes, reads = set(fragment.writes), set(fragment.reads)
    found = {a: r for r, a in program.aliases if r in writes and a in reads}
    return [(found[a], a) for a in sorted(found)]


def _compile(program: Program, probe: Probe, target: Target) -> int | str:
    # A tensor lives in temporary memory; arguments, constants and results do not.
    fragment = probe.fragment
    kept = program.resident | program.returned

    def is_tensor(v: int) -> bool:
        return v not in kept and not compat.is_key_type(program.values[v].aval)

    tensors = [v for v in fragment.reads if is_tensor(v)]
    made = [v for v in fragment.writes if is_tensor(v)]
    survivors = [v for v in tensors if v not in probe.dying]
    # JAX pairs donated arguments and results in order.
    in_place = _in_place(program, fragment)
    updates, donated = [r for r, _ in in_place], [a for _, a in in_place]
    others = [v for v in fragment.reads if not is_tensor(v) and v not in donated]
    results = [v for v in fragment.writes if not is_tensor(v) and v not in updates]

    def harness(old: list[Any], given: list[Any], seeds: list[Any]) -> Any:
        arrays = [
            jnp.broadcast_to(s, program.values[v].aval.shape)
            for s, v in zip(seeds, tensors, strict=True)
        ]
        # The cuts before and after, as they are emitted.
        arrays = jax.lax.optimization_barrier([*old, *given, *arrays])
        env = dict(zip([*donated, *others, *tensors], arrays, strict=True))
        out = evaluate(program, fragment, env.__getitem__)
        returned = [out[v] for v in (*updates, *results)]
        alive = [out[v] for v in made] + [env[v] for v in survivors]
        returned, alive = jax.lax.optimization_barrier((returned, alive))
        return returned, [x[(0,) * x.ndim] for x in alive]

    sharding = target.sharding

    def abstract(value: int, shape: tuple[int, ...] | None = None) -> Any:
        aval = program.values[value].aval
        shape = aval.shape if shape is None else shape
        return jax.ShapeDtypeStruct(shape, aval.dtype, sharding=sharding)

    try:
        lowered = jax.jit(harness, donate_argnums=0).lower(
            [abstract(v) for v in donated],
            [abstract(v) for v in others],
            [abstract(v, ()) for v in tensors],
        )
        options = compiler_options(target.machine.platform)
        temp = temp_bytes(lowered.compile(options))
    except Exception as error:  # noqa: BLE001 - an effect, a mesh, a missing library
        text = str(error).strip().partition("\n")[0][:200].rstrip(".")
        return f"it does not compile ({type(error).__name__}: {text})"
    counted = sum(program.values[v].nbytes for v in (*tensors, *made))
    return temp - counted

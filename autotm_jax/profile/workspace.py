"""Workspace: the memory that XLA needs inside a fragment, asked from XLA itself.

Each structurally unique fragment is compiled alone for the target. Its operands are
made inside the compiled program, behind a barrier, so that XLA's buffer assignment
sees them as temporaries that die where they die in the whole step, with all the
in-place reuse that follows; a donated argument is overwritten as in the whole step,
and so is no place to work in. What is left after the operands and results that the
solver counts itself is the workspace.

XLA overwrites an operand in place only where it is all that another kernel wrote: no
view of that (a contraction writes matrices), not one of several results, nothing that
was copied or sliced. Whoever asks says which operands are; what is known of the results
comes with the workspace.

Where something is copied between the memories, XLA orders all kernels by its
latency-hiding scheduler, elsewhere only by the memory they need. So one number is
copied after the fragment, if the step copies something beside it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from .. import compat
from ..compile import assign, compiler_options, temp_bytes
from ..machine import Target
from ..timeline import Timeline
from ..trace import (
    LOCAL,
    Fragment,
    Kind,
    Program,
    as_in_memory,
    evaluate,
    held,
    in_order,
    is_conditional,
    stacked,
)
from . import cache
from .observed import (
    FRAGMENT,
    observed_timeline,
    operand_scope,
    plain_results,
    result_scope,
)


# Part of every cache key: raise it when a fragment is run or measured differently.
_HARNESS = 30


@dataclasses.dataclass(frozen=True)
class Probe:
    """A fragment whose workspace is wanted.

    - `fragment`: what runs.
    - `dying`: which of its operands nobody reads afterwards.
    - `plain`: which of those are all that another kernel wrote.
    - `stored`: which of its results are copied to the host right after it. What XLA
        leaves to such a copy it makes last, which decides what is overwritten.
    - `away`: what it reads and makes of the state of the step, if that is on the host
        between steps: it comes and goes as any other value, where a state on the
        device is overwritten.
    - `must_compile`: whether XLA is asked even where an estimate would do.
    - `copies`: whether anything is copied between the memories by the step around it,
        or in a loop, by its body.
    """

    fragment: Fragment
    dying: frozenset[int]
    plain: frozenset[int] = frozenset()
    stored: frozenset[int] = frozenset()
    away: frozenset[int] = frozenset()
    must_compile: bool = False
    copies: bool = True


@dataclasses.dataclass(frozen=True)
class Workspace:
    """What a fragment needs beside its operands and results.

    - `nbytes`: negative where results take the place of dying operands.
    - `timeline`: when it needs that, if XLA said so.
    - `plain`: which of `Fragment.writes`, by position, are all that a kernel writes.
    """

    nbytes: int
    timeline: Timeline | None = None
    plain: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Source:
    """Where workspaces come from.

    - `kinds`: of fragment that XLA was asked for.
    - `now`: of those, how many were not in the cache.
    - `failed`: of those, how many did not compile.
    - `guessed`: how many fragments it was not asked for.
    """

    kinds: int = 0
    now: int = 0
    failed: int = 0
    guessed: int = 0

    def __add__(self, other: Source) -> Source:
        return Source(
            self.kinds + other.kinds,
            self.now + other.now,
            self.failed + other.failed,
            self.guessed + other.guessed,
        )

    def __str__(self) -> str:
        if not self.kinds:
            return "estimated"
        text = f"XLA, {self.kinds} kinds of segment, {self.now} compiled now"
        if self.guessed:
            return f"{text}, the others estimated"
        return text + (f", {self.failed} estimated" if self.failed else "")


def workspaces(
    program: Program, probes: Sequence[Probe], target: Target, always: bool = False
) -> tuple[list[Workspace], Source]:
    """Workspace bytes of fragments, and where the figures come from.

    **Arguments:**

    - `program`: the program the fragments belong to.
    - `probes`: the fragments. Structurally equal ones are compiled once.
    - `target`: what to compile for. For a CPU, workspace is estimated from the fused
        operands of the kernels instead,
    - `always`: unless it is to be asked, too.

    **Returns:**

    A `Workspace` per probe, and their `Source`.
    """
    found, source = ask(program, probes, target, always)
    out = [
        estimate(program, p.fragment) if isinstance(w, str) else w
        for w, p in zip(found, probes, strict=True)
    ]
    return out, source


def ask(
    program: Program, probes: Sequence[Probe], target: Target, always: bool = False
) -> tuple[list[Workspace | str], Source]:
    """As `workspaces`, with the reason in place of what does not compile."""
    is_guessed = target.machine.platform == "cpu" and not always
    asked = [p for p in probes if p.must_compile or not is_guessed]
    if not asked:
        guessed = Source(guessed=len(probes))
        return [estimate(program, p.fragment) for p in probes], guessed
    keys = {id(p): _key(program, p, target) for p in asked}
    known: dict[str, Workspace | str] = {}
    missing: dict[str, Probe] = {}
    for probe in asked:
        key = keys[id(probe)]
        if key in known or key in missing:
            continue
        entry = None if key.startswith(LOCAL) else cache.load("workspace", key)
        read = _read(entry)
        if read is None:
            missing[key] = probe
        else:
            known[key] = read
    # The longest first, so that none is compiled alone in the end.
    order = sorted(missing, key=lambda key: -len(missing[key].fragment.equations))
    with ThreadPoolExecutor(max(2, (os.cpu_count() or 2) // 2)) as pool:
        found = pool.map(lambda key: _compile(program, missing[key], target), order)
        for key, workspace in zip(order, found, strict=True):
            known[key] = workspace
            if isinstance(workspace, Workspace) and not key.startswith(LOCAL):
                cache.store("workspace", key, dataclasses.asdict(workspace))
    out = [
        known[keys[id(p)]] if id(p) in keys else estimate(program, p.fragment)
        for p in probes
    ]
    failed = sum(isinstance(w, str) for w in known.values())
    guessed = len(probes) - len(asked)
    return out, Source(len(known), len(missing), failed, guessed)


def _read(entry: Any) -> Workspace | None:
    try:
        timeline = entry["timeline"]
        timeline = None if timeline is None else Timeline.of(timeline)
        plain = tuple(int(i) for i in entry["plain"])
        return Workspace(int(entry["nbytes"]), timeline, plain)
    except (KeyError, TypeError, ValueError):
        return None


def estimate(program: Program, fragment: Fragment) -> Workspace:
    """Workspace without a compiler: the fused values that feed kernels."""
    equations = [program.equations[i] for i in fragment.equations]
    fused = {v for e in equations if e.kind is Kind.FUSED for v in e.outputs}
    fed = {v for e in equations if e.kind is Kind.KERNEL for v in e.operands}
    return Workspace(sum(program.values[v].nbytes for v in fused & fed))


def _key(program: Program, probe: Probe, target: Target) -> str:
    fragment, kept = probe.fragment, _kept(program, probe)
    pattern = [
        (v in probe.dying, v in kept) for v in (*fragment.reads, *fragment.writes)
    ]
    pattern += [(v in probe.plain,) for v in fragment.reads]
    pattern += [(program.layouts[v],) for v in fragment.reads]
    pattern += [(program.turned(v),) for v in fragment.writes if v in probe.stored]
    pattern += [(v in probe.stored,) for v in fragment.writes]
    pattern += [(probe.copies,)]
    local = LOCAL if fragment.signature.startswith(LOCAL) else ""
    place = {v: i for i, v in enumerate((*fragment.reads, *fragment.writes))}
    pattern += [(place[r], place[a]) for r, a in _in_place(program, probe)]
    jax_versions = (compat.JAX_VERSION, compat.JAXLIB_VERSION)
    versions = (*jax_versions, _HARNESS, os.environ.get("XLA_FLAGS", ""))
    parts = (fragment.signature, pattern, _device(target), target.uses_triton)
    return local + cache.cache_key(*parts, *versions)


def _device(target: Target) -> str:
    return target.config or jax.devices()[0].device_kind


def _kept(program: Program, probe: Probe) -> frozenset[int]:
    # A tensor lives in temporary memory; arguments, constants and results do not.
    return (program.resident | program.with_results) - probe.away


def _in_place(program: Program, probe: Probe) -> list[tuple[int, int]]:
    # Results that overwrite an argument which the fragment reads, by argument; and what
    # a loop overwrites in the place of a result.
    writes = set(probe.fragment.writes) - probe.away
    reads = set(probe.fragment.reads) - probe.away
    pairs = (*program.aliases, *program.overwritten.items())
    found = {a: r for r, a in pairs if r in writes and a in reads}
    return [(found[a], a) for a in sorted(found)]


def _compile(program: Program, probe: Probe, target: Target) -> Workspace | str:
    fragment, kept = probe.fragment, _kept(program, probe)

    def is_tensor(v: int) -> bool:
        return v not in kept and not compat.is_key_type(program.values[v].aval)

    tensors = [v for v in fragment.reads if is_tensor(v)]
    made = [v for v in fragment.writes if is_tensor(v)]
    survivors = [v for v in tensors if v not in probe.dying]
    # JAX pairs donated arguments and results in order.
    in_place = _in_place(program, probe)
    updates, donated = [r for r, _ in in_place], [a for _, a in in_place]
    others = [v for v in fragment.reads if not is_tensor(v) and v not in donated]
    results = [v for v in fragment.writes if not is_tensor(v) and v not in updates]

    def operand(seed: Any, value: int) -> Any:
        shape = program.values[value].aval.shape
        sharding = program.values[value].sharding
        order = program.layouts[value]
        if value in probe.plain:
            plain = held(jnp.broadcast_to(seed, shape), sharding)
            return plain if order is None else in_order(plain, sharding, order)
        viewed = jnp.broadcast_to(seed, (1, *shape))
        if sharding is not None:
            viewed = held(viewed, stacked(sharding))
        viewed = jax.lax.squeeze(jax.lax.optimization_barrier(viewed), (0,))
        viewed = held(viewed, sharding)
        # Else it would come in the order that the fragment likes best.
        return viewed if order is None else in_order(viewed, sharding, order)

    def cut(arrays: dict[int, Any]) -> dict[int, Any]:
        # As it is emitted, in the same order: XLA's scheduler goes by that, too.
        values = sorted(arrays)
        handles = jax.lax.optimization_barrier([arrays[v] for v in values])
        shardings = [program.values[v].sharding for v in values]
        return dict(zip(values, map(held, handles, shardings), strict=True))

    def first(arrays: dict[int, Any], value: int) -> Any:
        return _first(arrays[value], program.values[value].sharding)

    def harness(old: list[Any], given: list[Any], seeds: list[Any]) -> Any:
        arrays = []
        for seed, value in zip(seeds, tensors, strict=True):
            with jax.named_scope(operand_scope(fragment.reads.index(value))):
                arrays.append(operand(seed, value))
        values = [*donated, *others, *tensors]
        env = cut(dict(zip(values, [*old, *given, *arrays], strict=True)))
        with jax.named_scope(FRAGMENT):
            out = evaluate(program, fragment, env.__getitem__)
        out = cut({**out, **{v: env[v] for v in survivors}})
        returned = [out[v] for v in (*updates, *results)]
        space = jax.memory.Space.Host
        stored = [v for v in made if v in probe.stored]
        views = [as_in_memory(out[v], program.turned(v)) for v in stored]
        returned += [jax.device_put(view, space) for view in views]
        read = [first(out, v) for v in survivors]
        for value in made:
            with jax.named_scope(result_scope(fragment.writes.index(value))):
                read.append(first(out, value))
        if probe.copies and target.machine.platform == "cuda":
            read += [jax.device_put(number, space) for number in read[:1]]
        return returned, read

    here = program.everywhere or target.sharding

    def abstract(value: int, shape: tuple[int, ...] | None = None) -> Any:
        aval, sharding = program.values[value].aval, program.values[value].sharding
        if shape is not None or sharding is None:
            sharding = here
        shape = aval.shape if shape is None else shape
        return jax.ShapeDtypeStruct(shape, aval.dtype, sharding=sharding)

    try:
        lowered = jax.jit(harness, donate_argnums=0).lower(
            [abstract(v) for v in donated],
            [abstract(v) for v in others],
            [abstract(v, ()) for v in tensors],
        )
        platform, uses_triton = target.machine.platform, target.uses_triton
        options = compiler_options(platform, uses_triton=uses_triton)
        if target.machine.platform == "cuda":
            assigned = assign(lowered, options, target.is_present)
            executable, lifetimes = assigned.executable, assigned.lifetimes
        else:
            executable, lifetimes = lowered.compile(options), None
    except Exception as error:  # noqa: BLE001 - an effect, a mesh, a missing library
        if target.uses_triton and compat.lacks_tiles(error):
            without = dataclasses.replace(target, uses_triton=False)
            return _compile(program, probe, without)
        text = str(error).strip().partition("\n")[0][:200].rstrip(".")
        return f"it does not compile ({type(error).__name__}: {text})"
    size = [v.nbytes for v in program.values]
    counted = sum(size[v] for v in (*tensors, *made))
    timeline, text = None, executable.as_text() or ""
    # What a branch of a conditional does is taken as the one block that it is here.
    eqns = [program.equations[i].eqn for i in fragment.equations]
    if lifetimes is not None and not any(map(is_conditional, eqns)):
        surviving = {fragment.reads.index(v) for v in survivors}
        timeline = observed_timeline(text, lifetimes, surviving)
    return Workspace(temp_bytes(executable) - counted, timeline, plain_results(text))


def _first(array: jax.Array, sharding: NamedSharding | None) -> jax.Array:
    def read(array: jax.Array) -> jax.Array:
        return array[(0,) * array.ndim]

    if sharding is None:
        return read(array)
    # Of a value on a mesh, what each device has: nothing is sent for it.
    mesh, spec = sharding.mesh, sharding.spec
    each = PartitionSpec(mesh.axis_names)
    options = {"mesh": mesh, "in_specs": spec, "out_specs": each, "check_vma": False}
    return jax.shard_map(lambda part: read(part)[None], **options)(array)

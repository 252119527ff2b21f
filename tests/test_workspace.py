from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive

import autotm_jax as autotm
from autotm_jax.profile.workspace import Probe, Workspace, ask, estimate, workspaces
from autotm_jax.trace import Program

from .compiling import needs_cuda_plugin
from .programs import program_of


TABLE = jnp.ones((4096, 256))
ROWS, AT = jnp.ones((64, 256)), jnp.arange(64) * 7


def update(table: Any, rows: Any, at: Any) -> Any:
    """A scatter into zeros, and a new table."""
    return table - jnp.zeros_like(table).at[at].add(rows)


def measured(program: Program, dying: bool = True) -> list[int]:
    """Workspace of every segment on an H100."""
    probes = [
        Probe(s.body, frozenset(s.dying if dying else ())) for s in program.segments
    ]
    found, source = workspaces(program, probes, autotm.target("h100-sxm"))
    assert "estimated" not in str(source)
    return [workspace.nbytes for workspace in found]


@needs_cuda_plugin
def test_a_donated_argument_is_no_place_to_work_in():
    (kept,) = measured(program_of(update, TABLE, ROWS, AT))
    (donated,) = measured(program_of(update, TABLE, ROWS, AT, donate_argnums=0))
    # The result of a step without donation is a buffer to scatter into.
    assert kept < TABLE.nbytes / 8
    assert donated >= TABLE.nbytes


@needs_cuda_plugin
def test_what_dies_makes_place():
    x = jnp.ones((1024, 1024))
    program = program_of(lambda x: jnp.sin(x @ x) @ x @ x, x)
    found, lasting = measured(program), measured(program, dying=False)
    assert all(a <= b for a, b in zip(found, lasting, strict=True))


@needs_cuda_plugin
def test_a_state_on_the_host_is_no_place_for_what_takes_its_place():
    w = jnp.ones((256, 256))
    update = lambda w, x: w - 0.1 * (x @ x)  # noqa: E731
    program = program_of(update, w, w, donate_argnums=0)
    (body,) = (s.body for s in program.segments)
    ((result, leaf),) = program.aliases
    there = Probe(body, frozenset({leaf}), away=frozenset({leaf, result}))
    probes = [Probe(body, frozenset()), there]
    (usual, there), _ = workspaces(program, probes, autotm.target("h100-sxm"))
    assert usual.timeline is not None and there.timeline is not None
    assert not usual.timeline.made and not usual.timeline.dying
    assert [made for made, *_ in there.timeline.made] == [0]
    assert [v for v, *_ in there.timeline.dying] == [body.reads.index(leaf)]


@needs_cuda_plugin
def test_copies_around_a_fragment_leave_the_order_of_its_kernels():
    wide, tall = jnp.ones((256, 4096)), jnp.ones((4096, 256))

    def step(x: Any) -> Any:
        a, b, c = (jax.lax.sort(x + i) for i in range(3))
        return jnp.tanh(a @ tall) @ wide, jax.lax.sort(b * jnp.sum(b) + c)

    program, target = program_of(step, wide), autotm.target("h100-sxm")
    (both,) = (s for s in program.segments if len(s.body.writes) == 2 and s.index > 1)
    dying = frozenset(both.dying)
    probes = [Probe(both.body, dying, copies=copies) for copies in (False, True)]
    (alone, beside), _ = workspaces(program, probes, target)
    # The product goes first, and its operand makes place for the sum. By what matmuls
    # take as it estimates them, XLA's other scheduler would begin with the sum.
    assert 0 < beside.nbytes - alone.nbytes < 1024  # a number that is copied


def test_a_cpu_says_nothing_about_an_accelerator():
    program = program_of(update, TABLE, ROWS, AT)
    probes = [Probe(s.body, frozenset()) for s in program.segments]
    found, source = workspaces(program, probes, autotm.target())
    assert str(source) == "estimated"
    assert found == [estimate(program, p.fragment) for p in probes]


def test_without_a_compiler_what_is_fused_into_kernels_counts():
    x = jnp.ones((32, 32))
    program = program_of(lambda x: jnp.sin(x @ x).T @ x, x)
    last = program.segments[-1].body
    assert estimate(program, last).nbytes >= 0
    fed = program_of(lambda x: (jnp.sin(x) + 1) @ x, x).segments[0].body
    program = program_of(lambda x: (jnp.sin(x) + 1) @ x, x)
    assert estimate(program, fed) == Workspace(x.nbytes)


def test_a_cpu_that_is_the_device_is_asked():
    program = program_of(update, TABLE, ROWS, AT, donate_argnums=0)
    probes = [Probe(s.body, frozenset(s.dying)) for s in program.segments]
    found, source = workspaces(program, probes, autotm.target(), always=True)
    assert str(source).startswith("XLA, ")
    assert found[0].nbytes >= TABLE.nbytes
    assert found[0].timeline is None


def test_some_have_to_compile_even_on_a_cpu():
    x = jnp.ones((32, 32))
    program = program_of(lambda x: jnp.sin(x @ x) @ x, x)
    first, second = (s.body for s in program.segments)
    probes = [Probe(first, frozenset()), Probe(second, frozenset(), must_compile=True)]
    found, source = ask(program, probes, autotm.target())
    assert (
        str(source) == "XLA, 1 kinds of segment, 1 compiled now, the others estimated"
    )
    assert found[0] == estimate(program, first)
    assert isinstance(found[1], Workspace)


def test_why_something_does_not_compile():
    nowhere = Primitive("nowhere")
    nowhere.def_abstract_eval(lambda x: x)
    program = program_of(lambda x: nowhere.bind(x @ x), jnp.ones((4, 4)))
    probe = Probe(program.segments[-1].body, frozenset())
    target = autotm.target()
    (found,), source = ask(program, [probe], target, always=True)
    assert isinstance(found, str)
    assert found.startswith("it does not compile (NotImplementedError: ")
    assert "nowhere" in found
    assert str(source) == "XLA, 1 kinds of segment, 1 compiled now, 1 estimated"
    (guess,), _ = workspaces(program, [probe], target, always=True)
    assert guess == estimate(program, probe.fragment)

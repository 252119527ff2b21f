from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import autotm_jax as autotm
from autotm_jax.compile import (
    Buffer,
    Lifetimes,
    assign,
    compiler_options,
    temp_bytes,
)
from autotm_jax.compile.lifetimes import read_lifetimes

from .compiling import needs_cuda_plugin


ASSIGNMENT = """BufferAssignment:
allocation 0: size 64, parameter 0, shape |f32[16]| at ShapeIndex {}:
 value: <0 x @0> (size=64,offset=0): f32[16]{0}
allocation 1: size 64, color 5, page 0, preallocated-temp:
 value: <1 on_host @0> (size=64,offset=0): f32[16]{0:S(5)}
allocation 2: size 192, page 0, preallocated-temp:
 value: <2 product @0> (size=64,offset=128): f32[16]{0}
 value: <3 both{1} @0> (size=64,offset=128): f32[16]{0}
 value: <4 loop{0} (phi) @5> (size=128,offset=0): f32[32]{0}
 value: <5 later @0> (size=64,offset=128): f32[16]{0}
 value: <6 unknown @0> (size=64,offset=0): f32[16]{0}
 value: <7 both{} @0> (size=16,offset=192): (f32[16], f32[16])
"""
RANGES = """HloLiveRange (max 6):
  InstructionSequence:
    0:x
    1:product
    2:both
    3:loop
    4:later
    5:on_host
  BufferLiveRange:
    x{}:0-6
    product{}:1-2
    both{}:2-2
    both{1}:2-3
    loop{0}:3-5
    later{}:4-4
    on_host{}:5-6
  Live ranges at 3 (peak):
    loop{0}: 128 bytes (cumulative: 128 bytes)
"""


def test_reading_what_xla_writes():
    kernels = ("x", "product", "both", "loop", "later", "on_host")
    # What overwrites an operand is one buffer with it; what comes later is not.
    assert read_lifetimes(ASSIGNMENT, RANGES) == Lifetimes(
        kernels,
        (
            Buffer(128, 64, 1, 4, ("product", "both{1}"), born=0, handed=1, dead=4),
            Buffer(128, 64, 4, 5, ("later",), born=5, handed=6, dead=6),
            Buffer(0, 128, 3, 6, ("loop{0}",), born=3, handed=7, dead=7),
        ),
        # Results begin before operands end, but for one whose place they take. Tuples
        # do not count, nor the host.
        (0, 0, 1, 3, 5, 7, 8, 8),
    )


def test_of_two_results_the_one_that_ends_first_begins_first():
    assignment = """BufferAssignment:
allocation 2: size 256, page 0, preallocated-temp:
 value: <1 x @0> (size=64,offset=0): f32[16]{0}
 value: <2 y @0> (size=64,offset=64): f32[16]{0}
 value: <3 both{0} @0> (size=64,offset=128): f32[16]{0}
 value: <4 both{1} @0> (size=64,offset=64): f32[16]{0}
"""
    ranges = """HloLiveRange (max 4):
  InstructionSequence:
    0:x
    1:y
    2:both
    3:one
    4:other
  BufferLiveRange:
    x{}:0-2
    y{}:1-2
    both{0}:2-4
    both{1}:2-3
"""
    found = read_lifetimes(assignment, ranges)
    assert found is not None
    lives = {b.values: (b.born, b.handed, b.dead) for b in found.buffers}
    # The ticks: x, y; then both{1} in the place of y, both{0}, and the end of x.
    assert lives == {
        ("x",): (0, 5, 5),
        ("y", "both{1}"): (1, 2, 6),
        ("both{0}",): (4, 7, 7),
    }
    assert found.ticks == (0, 1, 2, 6, 7, 8)


def test_what_a_loop_hands_on_begins_before_what_it_is_given_ends():
    phi = ASSIGNMENT.replace("both{1} @", "both{1} (phi) @")
    found = read_lifetimes(phi, RANGES)
    assert found is not None
    assert found.buffers[0].handed == 2


def test_reading_what_it_does_not_write():
    assert read_lifetimes(ASSIGNMENT, "") is None
    assert (
        read_lifetimes(ASSIGNMENT, RANGES.replace("BufferLiveRange", "Lives")) is None
    )
    unknown = read_lifetimes(ASSIGNMENT.replace("preallocated", "other"), RANGES)
    assert unknown is not None and unknown.buffers == ()


@needs_cuda_plugin
def test_the_buffers_of_an_executable():
    def step(x: Any) -> Any:
        y = jax.lax.optimization_barrier(jnp.tanh(x @ x))
        z = jax.lax.optimization_barrier(jnp.sin(y) * y)
        return (z @ z)[0, 0]

    sharding = autotm.target("h100-sxm").sharding
    x = jax.ShapeDtypeStruct((512, 512), jnp.float32, sharding=sharding)
    lowered, options = jax.jit(step).lower(x), compiler_options("cuda")
    found = assign(lowered, options).lifetimes
    assert found is not None
    top = max(b.offset + b.nbytes for b in found.buffers)
    assert top == temp_bytes(lowered.compile(options))
    # Buffers that are there at the same time are in different places.
    busy = np.zeros((len(found.kernels) + 1, top), dtype=bool)
    for buffer in found.buffers:
        end = buffer.offset + buffer.nbytes
        place = busy[buffer.first : buffer.end, buffer.offset : end]
        assert not place.any()
        place[:] = True
    makers = {v.partition("{")[0] for b in found.buffers for v in b.values}
    assert makers <= {*found.kernels}

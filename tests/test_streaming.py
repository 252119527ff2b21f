import jax
import pytest

from autotm_jax.machine import describe
from autotm_jax.profile.configurations import ON_DEVICE, Configuration
from autotm_jax.profile.profiler import Measurement, Profile
from autotm_jax.profile.streaming import streaming
from autotm_jax.profile.timing import Timing
from autotm_jax.trace import Program, build_program

from .steps import chain_arguments, chain_step


H100 = describe("h100-sxm")


def program() -> Program:
    """A few layers, forth and back."""
    args = chain_arguments(batch=256)
    traced = jax.jit(chain_step).trace(*args)
    return build_program(traced.jaxpr, [False] * len(jax.tree.leaves(args)))


def test_without_a_measurement_streaming_costs_what_the_copies_do():
    one = program()
    found = streaming(one, H100)
    several = [s for every in found.values() for s in every if len(s.host) == 2]
    assert several
    for k, every in found.items():
        body = one.segments[k].body
        for streamed in every:
            assert streamed.host
            assert streamed.host <= {*body.reads, *body.writes}
            assert not streamed.host & one.resident
            sizes = {v: one.values[v].nbytes for v in streamed.host}
            wanted = sum(
                nbytes / (H100.h2d_bandwidth if v in body.reads else H100.d2h_bandwidth)
                + H100.transfer_latency
                for v, nbytes in sizes.items()
            )
            assert streamed.seconds == pytest.approx(wanted)


def test_what_was_measured_is_used():
    one = program()
    k, every = next((k, e) for k, e in streaming(one, H100).items() if len(e) > 1)
    body = one.segments[k].body
    value = next(iter(every[0].host))
    there = (
        Configuration(reads=(body.reads.index(value),))
        if value in body.reads
        else Configuration(writes=(body.writes.index(value),))
    )

    def measured(seconds: float) -> Measurement:
        return Measurement(timing(seconds), None)

    both = {(body.signature, ON_DEVICE): measured(2e-3)}
    both[body.signature, there] = measured(2.5e-3)
    found = Profile("here", 1e-6, both, 2, 0)
    changed = streaming(one, H100, found)[k]
    seconds = {s.host: s.seconds for s in changed}
    assert seconds[frozenset({value})] == pytest.approx(0.5e-3)
    # A configuration that was not measured costs what its copies do.
    other = next(s for s in every if s.host != frozenset({value}))
    assert seconds[other.host] == pytest.approx(other.seconds)


def timing(seconds: float) -> Timing:
    """A measurement of so many seconds."""
    fields = dict.fromkeys(Timing.__dataclass_fields__, 1)
    return Timing(**{**fields, "seconds": seconds})  # pyright: ignore[reportArgumentType]

"""Two memories, and where their figures come from."""

import dataclasses

import pytest

from autotm_jax.simulate import OPTANE, STREAMING_STORES, Memories

from .two_memories import ROUND


RATES = {field.name for field in dataclasses.fields(Memories)} - {"sources"}


@pytest.mark.parametrize("memories", [OPTANE, STREAMING_STORES])
def test_each_figure_has_a_source(memories: Memories):
    assert set(memories.sources) == RATES
    assert memories.slow_read < memories.fast_read
    assert memories.slow_write < memories.fast_write


def test_streaming_stores_are_faster_and_all_else_is_the_same():
    changed = [r for r in RATES if getattr(STREAMING_STORES, r) != getattr(OPTANE, r)]
    assert changed == ["slow_write"]
    assert STREAMING_STORES.slow_write > OPTANE.slow_write
    assert "streaming" in STREAMING_STORES.sources["slow_write"]
    assert "ordinary" in OPTANE.sources["slow_write"]


def test_sources_are_no_part_of_what_they_are():
    told = dataclasses.replace(ROUND, sources={"out": "a measurement"})
    assert hash(told) == hash(ROUND)
    assert "measurement" not in repr(told)

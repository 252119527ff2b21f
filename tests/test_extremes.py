"""Everything in one of two memories."""

import dataclasses

from autotm_jax.simulate import all_fast, all_slow

from .two_memories import ROUND, chain


def test_what_is_not_decided_about_is_fast_in_both():
    found, kernels = chain([100, 200])
    found = dataclasses.replace(found, small=((50, 0, 3),))
    other = dataclasses.replace(kernels[0].passes[0], other_reads=400)
    kernels[0] = dataclasses.replace(kernels[0], passes=(other,))
    fast, slow = (every(found, kernels, ROUND) for every in (all_fast, all_slow))
    assert (fast.name, slow.name) == ("all fast", "all slow")
    assert fast.seconds == (300 + 400) / 100 + 300 / 50
    assert slow.seconds == 300 / 20 + 400 / 100 + 300 / 10
    # Both tensors are there at segment 1.
    assert (fast.fast_bytes, slow.fast_bytes) == (350, 50)
    assert (fast.fast_read, slow.fast_read) == (1.0, 0.0)


def test_no_limit_is_asked_for():
    found, kernels = chain([100, 200])
    tight = dataclasses.replace(found, device_limit=1)
    assert all_fast(tight, kernels, ROUND) == all_fast(found, kernels, ROUND)

import numpy as np

from autotm_jax.solve import Fetch, Link, Store, Tensor
from autotm_jax.solve.treatment import at_leisure

from .problems import KIB


def test_copies_at_leisure_hide_behind_compute():
    link = Link(d2h=8 * KIB, h2d=8 * KIB, duplex=16 * KIB, latency=0.0)
    clock = np.arange(21.0)
    # Three seconds each way.
    store, fetch = at_leisure(Tensor(7, 24 * KIB, (2, 18)), (2, 18), clock, link)
    assert store == Store(7, 2, 6)
    assert fetch == Fetch(7, 14, 18)
    # In a loop, all iterations' copies run beside all of its segments together.
    store, fetch = at_leisure(
        Tensor(7, 8 * KIB, (2, 18), times=3), (2, 18), clock, link
    )
    assert (store, fetch) == (Store(7, 2, 6), Fetch(7, 14, 18))
    # A gap that is too short for both ways is divided between them.
    store, fetch = at_leisure(Tensor(7, 24 * KIB, (2, 6)), (2, 6), clock, link)
    assert store == Store(7, 2, 5)
    assert fetch == Fetch(7, 5, 6)

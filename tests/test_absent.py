"""Arguments in the host memory of a device that is not here."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from autotm_jax.compile import absent, mark_on_host


def test_what_the_step_does_not_put_there_is_not_there():
    lowered = jax.jit(lambda x: x + 1).lower(jnp.ones(3))
    mark_on_host(lowered, 0)
    with pytest.raises(RuntimeError) as caught:
        mark_on_host(lowered, 1)
    assert str(caught.value) == (
        "0 arguments of the lowered step are on the host, where 1 were planned to be"
    )


def test_a_module_without_a_step():
    module = SimpleNamespace(body=SimpleNamespace(operations=()))
    with pytest.raises(RuntimeError) as caught:
        absent._main(module)
    assert str(caught.value) == "the lowered step has no function called main"

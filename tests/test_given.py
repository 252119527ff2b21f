"""Shardings that the user has given, put into effect without `jax.jit`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.layout import Format, Layout
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from autotm_jax.given import GivenShardings

from .meshes import mesh


P = PartitionSpec


def rows() -> NamedSharding:
    return NamedSharding(mesh(data=4), P("data"))


def given(**options: Any) -> GivenShardings:
    return GivenShardings(options)


def test_whether_anything_is_given():
    assert not given(in_shardings=None, donate_argnums=0)
    assert given(in_shardings=rows())
    assert given(out_shardings=(None, rows()))


@pytest.mark.parametrize(
    ("place", "is_place"),
    [
        (lambda: rows(), True),
        (lambda: P("data"), True),
        (lambda: SingleDeviceSharding(jax.devices()[0]), True),
        (lambda: rows().with_memory_kind("device"), True),
        (lambda: rows().with_memory_kind("pinned_host"), False),
        (lambda: Format(Layout((0, 1)), rows()), False),
    ],
)
def test_layouts_and_other_memories_are_up_to_jax(place: Any, is_place: bool):
    assert given(in_shardings=(None, place())).are_places == is_place
    assert given(out_shardings={"a": [place()]}).are_places == is_place


def test_arguments_are_put_where_they_are_said_to_be():
    everywhere = NamedSharding(rows().mesh, P())
    said = given(in_shardings=({"w": rows(), "b": None}, everywhere))
    args = {"w": np.ones((4, 2)), "b": np.ones(2)}, jnp.ones(3)
    assert not said.hold(args)
    placed = said.arguments(args)
    assert placed[0]["w"].sharding == rows() and placed[1].sharding == everywhere
    assert placed[0]["b"] is args[0]["b"]
    np.testing.assert_array_equal(placed[0]["w"], args[0]["w"])
    assert said.hold(placed)
    again = said.arguments(placed)
    assert again[0]["w"] is placed[0]["w"]
    # Leaves by number: "b", then "w".
    hosted = said.arguments(args, on_host={1})
    assert hosted[0]["w"].sharding == rows().with_memory_kind("pinned_host")
    assert said.hold(hosted)


def test_the_same_place_in_other_words():
    said = given(in_shardings=rows())
    longer = NamedSharding(rows().mesh, P("data", None))
    assert said.hold((jax.device_put(np.ones((4, 2)), longer),))
    pair = mesh(data=2)
    other = jax.device_put(np.ones((4, 2)), NamedSharding(pair, P("data")))
    assert not said.hold((other,))


def test_abstract_arguments_are_as_if_they_were_there():
    said = given(in_shardings=rows())
    for leaf in (np.ones(4, np.float32), jnp.ones(4), jax.ShapeDtypeStruct((4,), "f4")):
        (found,) = said.described((leaf,))
        assert jax.typeof(found) == jax.typeof(said.arguments((jnp.ones(4),))[0])
        assert found.sharding == rows()
    everywhere = NamedSharding(rows().mesh, P())
    (weak,) = given(in_shardings=everywhere).described((1.0,))
    assert weak.weak_type and weak.shape == ()


def test_what_its_owner_has_put_elsewhere_is_refused():
    said = given(in_shardings=rows())
    elsewhere = jax.device_put(np.ones(4), NamedSharding(rows().mesh, P()))
    assert said.described((elsewhere,)) == (elsewhere,)
    with pytest.raises(ValueError, match="^An argument of shape") as caught:
        said.arguments((elsewhere,))
    assert str(caught.value) == (
        f"An argument of shape (4,) is at {elsewhere.sharding}, and in_shardings says "
        f"{rows()}. Bring it there with jax.device_put, or leave in_shardings out."
    )


def test_specs_are_those_of_the_mesh_that_is_set():
    said = given(in_shardings=P("data"), out_shardings=P("data"))
    assert said.are_places
    for over in (mesh(data=4), mesh(data=2)):
        with jax.set_mesh(over):
            (placed,) = said.arguments((np.ones(4),))
            assert placed.sharding == NamedSharding(over, P("data"))
            result = jax.jit(said.held(lambda x: x * jnp.ones(4)))(1.0)
            assert result.sharding.is_equivalent_to(placed.sharding, 1)


def test_what_is_none_in_a_tree():
    said = given(in_shardings=[{"w": rows(), "o": None}, None])
    args = {"w": np.ones(4), "o": None}, [None, jnp.ones(3)]
    placed = said.arguments(args)
    assert placed[0]["w"].sharding == rows() and placed[0]["o"] is None
    assert placed[1][1] is args[1][1]
    step = given(out_shardings=rows()).held(lambda x: (x, None))
    assert step(jnp.ones(4))[1] is None


def test_what_jax_refuses_is_left_to_jax():
    for said in (given(in_shardings=(rows(),)), given(in_shardings=(P("no"), None))):
        args = jnp.ones(4), jnp.ones(4)
        assert said.described(args) == args


def test_results_are_held_where_they_are_said_to_be():
    def step(x: Any) -> Any:
        return {"a": x + 1, "b": x * 2}

    assert given(in_shardings=rows()).held(step) is step
    held = given(out_shardings={"a": rows(), "b": None}).held(step)
    assert held.__name__ == "step"
    found = [e.primitive.name for e in jax.make_jaxpr(held)(jnp.ones(4)).eqns]
    assert found.count("sharding_constraint") == 1
    x = jax.device_put(np.ones(4), NamedSharding(rows().mesh, P()))
    assert jax.jit(held)(x)["a"].sharding.is_equivalent_to(rows(), 1)

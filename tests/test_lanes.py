from fractions import Fraction

import pytest

from autotm_jax.simulate import Engines, Lane


F = Fraction
COMPUTE, D2H, H2D = Lane


def test_the_pace_depends_on_what_runs_beside():
    engines = Engines(F(10), F(20), F(15), 0, F(1, 2), F(1, 3))
    assert engines.pace(COMPUTE, [COMPUTE]) == 1
    assert engines.pace(COMPUTE, [COMPUTE, D2H]) == F(3, 2)
    assert engines.pace(COMPUTE, [COMPUTE, D2H, H2D]) == 2
    assert engines.pace(D2H, [D2H]) == F(1, 10)
    assert engines.pace(D2H, [D2H, H2D]) == F(1, 5)
    assert engines.pace(H2D, [D2H, H2D]) == F(1, 10)
    assert engines.pace(H2D, [COMPUTE, H2D]) == F(4, 3) / 20
    assert engines.pace(H2D, [COMPUTE, D2H, H2D]) == F(4, 3) / 10
    # A link that is wider than both directions makes neither of them faster.
    assert Engines(F(10), F(20)).pace(D2H, [D2H, H2D]) == F(1, 10)


def test_engines_that_make_no_sense():
    with pytest.raises(ValueError) as caught:
        Engines(0.0, 1.0)
    assert str(caught.value) == (
        "Copies pass at 0.0 bytes per second (d2h): give a number greater than zero."
    )
    with pytest.raises(ValueError) as caught:
        Engines(1.0, 1.0, latency=-1.0)
    assert str(caught.value) == "The latency is -1.0: give zero or more."

from autotm_jax.compile import Buffer, Lifetimes
from autotm_jax.profile.observed import observed_timeline, plain_results
from autotm_jax.timeline import Timeline


def line(name: str, code: str, scope: str = "", shape: str = "f32[8]{0}") -> str:
    """An instruction of scheduled HLO."""
    found = f', metadata={{op_name="jit(harness)/{scope}/mul"}}' if scope else ""
    return f"  %{name} = {shape} {code}{found}"


BOTH = "(f32[8]{0}, f32[8]{0})"
TEXT = "\n".join(
    [
        line("first", "fusion(%seed), kind=kLoop", "autotm_operand_0"),
        line("second", "fusion(%seed.1), kind=kLoop", "autotm_operand_1"),
        line("own", "fusion(%first), kind=kLoop", "autotm_fragment"),
        line("pair", "fusion(%own, %second), kind=kLoop", "autotm_fragment", BOTH),
        line("last", "fusion(%second), kind=kLoop", "autotm_fragment"),
        line("part", "get-tuple-element(%pair), index=1"),
        line("all", "tuple(%first, /*index=1*/%last)", shape=BOTH),
        line("member", "get-tuple-element(%all), index=1"),
        line("view", "bitcast(%last)", shape="f32[2,4]{1,0}"),
        line("read.0", "fusion(%part), kind=kLoop", "autotm_result_0"),
        line("read.1", "fusion(%member), kind=kLoop", "autotm_result_1"),
        line("read.2", "fusion(%last), kind=kLoop", "autotm_result_2"),
        line("read.3", "fusion(%view), kind=kLoop", "autotm_result_3"),
    ]
)
KERNELS = ("first", "second", "own", "pair", "last", "read.0", "read.1")
TICKS = (0, 1, 2, 3, 5, 7, 8, 10)


def test_what_a_kernel_alone_wrote():
    # Not one of two, not a view, not by way of a tuple.
    assert plain_results(TEXT) == (2,)
    assert plain_results("") == ()


def test_whose_buffers_are_whose():
    buffers = (
        Buffer(0, 32, 0, 7, ("first",), 0, 8, 8),
        Buffer(32, 32, 1, 7, ("second", "last"), 1, 6, 9),
        Buffer(64, 32, 2, 4, ("own",), 2, 4, 4),
        Buffer(96, 32, 3, 6, ("pair{1}",), 3, 7, 7),
    )
    lifetimes = Lifetimes(KERNELS, buffers, TICKS)
    found = observed_timeline(TEXT, lifetimes, surviving={0})
    assert found is not None
    # The fragment is kernels 2, 3 and 4. The last overwrites the second operand. The
    # first is read by kernel 2 alone.
    assert found.ticks == (1, 1, 2, 1)
    assert found.own == ((32, 0, 2, 2),)
    assert found.made == ((0, 1, 4),)
    assert found.dying == ()
    assert [(operand, handed) for operand, _, handed in found.replaced] == [(1, 3)]
    assert found.read == ((0, 1),)
    assert found.rivals == ()


def test_two_results_of_a_kernel_are_rivals():
    buffers = (
        Buffer(0, 32, 0, 7, ("first",), 0, 8, 8),
        Buffer(32, 32, 1, 6, ("second", "pair{0}"), 1, 4, 7),
        Buffer(96, 32, 3, 6, ("pair{1}",), 6, 7, 7),
    )
    view = line("part.0", "get-tuple-element(%pair), index=0")
    text = f"{view}\n{TEXT}".replace("fusion(%last)", "fusion(%part.0)")
    found = observed_timeline(text, Lifetimes(KERNELS, buffers, TICKS), surviving={0})
    assert found is not None
    assert [(operand, result) for operand, result, _ in found.replaced] == [(1, 2)]
    assert found.rivals == ((2, 0),)


def test_an_operand_that_is_not_seen_to_be_read_is_there_throughout():
    buffers = (
        Buffer(0, 32, 0, 7, ("first",), 0, 8, 8),
        Buffer(32, 32, 2, 4, ("own",), 2, 4, 4),
    )
    text = TEXT.replace("fusion(%first)", "fusion(%elsewhere)")
    lifetimes = Lifetimes(KERNELS, buffers, TICKS)
    found = observed_timeline(text, lifetimes, surviving={0})
    assert found is not None
    assert found.read == ((0, found.moments),)


def test_a_fragment_of_nothing():
    text = TEXT.replace("autotm_fragment", "elsewhere")
    lifetimes = Lifetimes(KERNELS, (), TICKS)
    assert observed_timeline(text, lifetimes, set()) == Timeline()

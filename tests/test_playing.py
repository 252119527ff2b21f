import dataclasses
import random
from collections.abc import Callable
from fractions import Fraction

import pytest

from autotm_jax.simulate import Engines, Lane, Simulation, engines_of, simulate
from autotm_jax.solve import (
    PROGRAMS,
    Carried,
    Configuration,
    Crossing,
    Fetch,
    Formulation,
    Link,
    Problem,
    Recipe,
    Recompute,
    Schedule,
    SolverOptions,
    Store,
    Stream,
    Tensor,
    offload_everything,
    replay,
)

from .events import naively
from .problems import (
    limit_between,
    loop_problem,
    problem,
    random_problem,
    state_problem,
    tiny_problem,
)


EXACT = SolverOptions(time_limit=60.0, gap=1e-5)
BYTES = 1000  # of every tensor that is made by hand: a millisecond out, half of it back
LINK = Link(d2h=1e6, h2d=2e6, duplex=3e6, latency=0.0)


def planned(
    known: Problem, formulation: Formulation, seed: int
) -> tuple[Schedule, float]:
    """The fastest plan under a limit that may bind, and its seconds."""
    program = PROGRAMS[formulation](known)
    least = program.least_memory(EXACT).objective
    most = replay(known, Schedule()).device_peak
    part = random.Random(seed).choice([0.0, 0.25, 0.5])
    found = program.fastest(least + part * (most - least) + 1, EXACT)
    assert found.schedule is not None
    return found.schedule, found.objective


def without_latency(known: Problem) -> Problem:
    return dataclasses.replace(known, link=dataclasses.replace(known.link, latency=0.0))


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_where_everything_waits_it_is_the_model(seed: int):
    known = tiny_problem(seed)
    schedule, _ = planned(known, Formulation.SYNCHRONOUS, seed)
    simulation = simulate(known, schedule)
    assert simulation.seconds == pytest.approx(simulation.modelled, rel=1e-12)
    # However many engines there are: no copy runs beside anything.
    one = simulate(known, schedule, engines_of(known.link, one_engine=True))
    assert one.seconds == pytest.approx(simulation.seconds, rel=1e-12)
    loud = dataclasses.replace(
        engines_of(known.link), compute_interference=1.0, copy_interference=2.0
    )
    assert simulate(known, schedule, loud).seconds == pytest.approx(one.seconds)


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_fork_and_join_take_as_long_as_the_longer_of_the_two(seed: int):
    # AutoTM's y_k = max(rho_k, M_k): one engine, and copies beside one segment each.
    known = without_latency(tiny_problem(seed))
    schedule, objective = planned(known, Formulation.ASYNCHRONOUS, seed)
    link, tensors = known.link, {t.value: t for t in known.tensors}
    beside, alone = [0.0] * known.segments, 0.0
    for items, rate in ((schedule.stores, link.d2h), (schedule.fetches, link.h2d)):
        for item in items:
            first, end = item.window
            assert end <= first + 1
            if first < end:
                beside[first] += tensors[item.value].nbytes / rate
            else:
                alone += tensors[item.value].nbytes / rate
    compute = replay(known, schedule).compute
    seconds = sum(map(max, compute, beside)) + alone
    simulation = simulate(known, schedule, engines_of(link, one_engine=True))
    assert simulation.seconds == pytest.approx(seconds, rel=1e-12)
    assert simulation.seconds == pytest.approx(objective, rel=1e-4)


@pytest.mark.parametrize("kind", [random_problem, state_problem, loop_problem])
@pytest.mark.parametrize("seed", range(0, 18, 2))
def test_a_joint_plan_takes_about_as_long_as_modelled(
    kind: Callable[[int], Problem], seed: int
):
    known = without_latency(kind(seed))
    schedule, _ = planned(known, Formulation.JOINT, seed)
    simulation = simulate(known, schedule)
    assert 0.9 * simulation.modelled <= simulation.seconds
    assert simulation.seconds <= 1.02 * simulation.modelled
    assert simulation.seconds >= simulation.replay.compute.sum() * (1 - 1e-12)
    check(simulation, known)
    slower = dataclasses.replace(engines_of(known.link), compute_interference=0.5)
    assert simulate(known, schedule, slower).seconds >= simulation.seconds * (1 - 1e-12)


def check(simulation: Simulation, known: Problem) -> None:
    """That the spans keep what a schedule means, and are those by definition."""
    spans, parts = simulation.run.spans, simulation.parts
    segments = {p: s for p, s in zip(parts, spans, strict=True) if type(p) is int}
    assert sorted(segments) == list(range(known.segments))
    slack, begun = 1e-12, set[Fetch]()
    for span, part in zip(spans, parts, strict=True):
        if part is None or isinstance(part, int):
            continue
        first, end = part.window
        if isinstance(part, Fetch) and parts.count(part) > 1 and part not in begun:
            # For the first iteration, before the loop; then for the next ones.
            begun.add(part)
            first = end = part.use
        if 0 < first:
            assert segments[first - 1].end <= span.begin + slack
        if end < known.segments:
            assert span.end <= segments[end].begin + slack
    exact = [dataclasses.replace(t, work=Fraction(t.work)) for t in simulation.tasks]
    link = known.link
    rates = (Fraction(rate) for rate in (link.d2h, link.h2d, link.duplex))
    by_definition = naively(exact, Engines(*rates))
    for span, (begin, end) in zip(spans, by_definition, strict=True):
        assert span.begin == pytest.approx(float(begin), rel=1e-9, abs=1e-15)
        assert span.end == pytest.approx(float(end), rel=1e-9, abs=1e-15)


def spans_of(simulation: Simulation) -> list[tuple[object, float, float]]:
    """In milliseconds, rounded."""
    pairs = zip(simulation.parts, simulation.run.spans, strict=True)
    return [(p, round(1e3 * s.begin, 6), round(1e3 * s.end, 6)) for p, s in pairs]


def test_copies_run_beside_segments_and_are_waited_for():
    # Out for 1 ms beside segments 1 and 2, of half a millisecond each and so just in
    # time; back for 0.5 ms beside segment 3, which takes 0.1 ms.
    known = problem(
        [Tensor(7, BYTES, (0, 4))],
        5,
        compute=[1e-3, 0.5e-3, 0.5e-3, 0.1e-3, 1e-3],
        link=LINK,
    )
    store, fetch = Store(7, 0, 3), Fetch(7, 3, 4)
    simulation = simulate(known, Schedule((store,), (fetch,)))
    assert spans_of(simulation) == [
        (0, 0.0, 1.0),
        (store, 1.0, 2.0),
        (1, 1.0, 1.5),
        (2, 1.5, 2.0),
        (fetch, 2.0, 2.5),
        (3, 2.0, 2.1),
        (4, 2.5, 3.5),
    ]
    assert simulation.run.stalled == pytest.approx(0.4e-3)
    assert simulation.modelled == pytest.approx(3.5e-3)
    outcome = simulation.outcome("by hand")
    assert outcome.name == "by hand" and outcome.note == ""
    assert (outcome.out, outcome.into) == (BYTES, BYTES)
    assert outcome.seconds == simulation.seconds
    assert outcome.fast_bytes == BYTES


def test_what_has_no_window_is_waited_for_and_stores_come_first():
    known = problem([Tensor(0, BYTES, (0, 3)), Tensor(1, BYTES, (0, 2))], 4, link=LINK)
    stores = Store(0, 0, 1), Store(1, 0, 1)
    fetches = Fetch(0, 3, 3), Fetch(1, 2, 2)
    simulation = simulate(known, Schedule(stores, fetches))
    assert spans_of(simulation) == [
        (0, 0.0, 1.0),
        (stores[0], 1.0, 2.0),
        (stores[1], 2.0, 3.0),
        (1, 3.0, 4.0),
        (fetches[1], 4.0, 4.5),
        (2, 4.5, 5.5),
        (fetches[0], 5.5, 6.0),
        (3, 6.0, 7.0),
    ]


def test_what_comes_takes_the_place_of_what_leaves():
    # The fetch may start with segment 2, but the store that is due there is late.
    tensors = [Tensor(0, 3 * BYTES, (0, 4)), Tensor(1, BYTES, (0, 4))]
    known = problem(tensors, 5, compute=[1e-3] * 5, link=LINK)
    stores = Store(0, 0, 2), Store(1, 0, 1)
    fetch = Fetch(1, 2, 4)
    simulation = simulate(known, Schedule(stores, (fetch,)))
    begins = {part: begin for part, begin, _ in spans_of(simulation)}
    # 1 ms of compute, then value 1 at once, then value 0 for 3 ms.
    assert begins[stores[0]] == 2.0
    assert begins[fetch] == 5.0 == begins[2]


def test_recomputation_and_streams_are_compute():
    recipe = Recipe({3: 0.25e-3}, 0, ())
    configuration = Configuration(frozenset({1}), 0.75e-3, 0)
    known = problem(
        [Tensor(0, BYTES, (0, 3), recipe=recipe), Tensor(1, 2 * BYTES, (1, 3))],
        4,
        link=LINK,
        configurations={1: (configuration,), 3: (configuration,)},
    )
    schedule = Schedule(
        recomputes=(Recompute(0, 3),), streams=(Stream(1, 1), Stream(1, 3))
    )
    simulation = simulate(known, schedule)
    assert simulation.seconds == pytest.approx(4e-3 + 0.25e-3 + 2 * 0.75e-3)
    assert (simulation.out, simulation.into) == (2 * BYTES, 2 * BYTES)


def test_a_loop_copies_in_every_iteration():
    # Four iterations of segments 0 and 1, then of 2 and 3, which fetches ahead: for the
    # first iteration everything waits, half a millisecond.
    crossing = Crossing((0, 2), (2, 4), 4)
    tensor = Tensor(0, BYTES, (0, 3), times=4, crossing=crossing)
    known = problem([tensor], 4, compute=[4e-3] * 4, link=LINK)
    store, fetch = Store(0, 0, 2), Fetch(0, 2, 3, 4)
    simulation = simulate(known, Schedule((store,), (fetch,)))
    assert simulation.replay.faults == ()
    assert spans_of(simulation) == [
        (0, 0.0, 4.0),
        (store, 4.0, 8.0),
        (1, 4.0, 8.0),
        (fetch, 8.0, 8.5),
        (fetch, 8.5, 10.5),
        (2, 8.5, 12.5),
        (3, 12.5, 16.5),
    ]
    assert simulation.seconds == pytest.approx(simulation.modelled)
    # What stays is written to a stack and read from it.
    slow = dataclasses.replace(crossing, seconds=2e-3)
    kept = dataclasses.replace(
        known, tensors=(dataclasses.replace(tensor, crossing=slow),)
    )
    stacked = simulate(kept, Schedule())
    assert stacked.parts == (0, 1, None, 2, 3)
    assert stacked.seconds == pytest.approx(18e-3) == stacked.modelled


def test_state_is_stored_until_the_step_ends():
    tensor = Tensor(0, BYTES, (0,), carried=Carried((2,), 3))
    known = problem([tensor], 3, link=LINK)
    schedule = Schedule((Store(0, 2, 3),), (Fetch(0, 0, 0),))
    simulation = simulate(known, schedule)
    assert simulation.replay.faults == ()
    assert simulation.seconds == pytest.approx(0.5e-3 + 3e-3 + 1e-3)
    assert simulation.run.stalled == pytest.approx(1.5e-3)


def test_streams_of_state_go_out_where_it_is_made():
    tensor = Tensor(0, BYTES, (0, 1), carried=Carried((2, 3), 4))
    known = problem([tensor], 4, link=LINK)
    streams = tuple(Stream(0, at) for at in (0, 1, 2, 3))
    simulation = simulate(known, Schedule(streams=streams))
    assert (simulation.out, simulation.into) == (BYTES, 3 * BYTES)
    kept = dataclasses.replace(tensor, carried=Carried((), 4))
    returned = dataclasses.replace(known, tensors=(kept,))
    simulation = simulate(returned, Schedule(streams=streams[:2]))
    assert (simulation.out, simulation.into) == (0, 2 * BYTES)


def test_latency_passes_beside_compute_and_is_modelled_in_full():
    late = dataclasses.replace(LINK, latency=0.2e-3)
    # Each way has a millisecond beside the copy, which takes 0.5 and 0.25.
    known = problem([Tensor(0, BYTES // 2, (0, 3))], 4, link=late)
    beside = simulate(known, Schedule((Store(0, 0, 2),), (Fetch(0, 2, 3),)))
    assert beside.seconds == pytest.approx(4e-3)
    assert beside.modelled == pytest.approx(4e-3 + 2 * 0.2e-3)
    # What everything waits for hides nothing.
    alone = simulate(known, Schedule((Store(0, 0, 1),), (Fetch(0, 3, 3),)))
    assert alone.seconds == pytest.approx(4e-3 + 2 * 0.2e-3 + 0.75e-3)
    assert alone.modelled == pytest.approx(alone.seconds)


@pytest.mark.parametrize("kind", [random_problem, state_problem, loop_problem])
@pytest.mark.parametrize("seed", range(1, 18, 2))
def test_latency_adds_no_more_than_modelled(kind: Callable[[int], Problem], seed: int):
    known = kind(seed)
    found, _ = planned(known, Formulation.JOINT, seed)
    for schedule in (offload_everything(known), found):
        none = simulate(without_latency(known), schedule)
        for latency in (1e-5, 0.3e-3):
            link = dataclasses.replace(known.link, latency=latency)
            late = simulate(dataclasses.replace(known, link=link), schedule)
            copies = sum(t.copies for t in late.tasks if t.lane is not Lane.COMPUTE)
            modelled = late.modelled - none.modelled
            assert modelled == pytest.approx(copies * latency)
            added = late.seconds - none.seconds
            assert -1e-12 <= added <= modelled + 1e-12


def test_a_plan_that_breaks_rules_says_so():
    known = problem([Tensor(0, BYTES, (0, 3))], 4, link=LINK)
    simulation = simulate(known, Schedule((Store(9, 0, 1),), streams=(Stream(9, 1),)))
    assert simulation.seconds == pytest.approx(4e-3) and simulation.out == 0
    note = simulation.outcome("wrong").note
    assert "There is a store of value 9, which is no tensor." in note


@pytest.mark.parametrize("seed", range(5))
def test_one_engine_is_not_faster_where_directions_do_not_share(seed: int):
    known = without_latency(random_problem(seed))
    limit = limit_between(known, 0.2)
    found = PROGRAMS[Formulation.JOINT](known).fastest(limit, EXACT).schedule
    assert found is not None
    link = dataclasses.replace(known.link, duplex=known.link.d2h + known.link.h2d)
    two = simulate(known, found, engines_of(link)).seconds
    one = simulate(known, found, engines_of(link, one_engine=True)).seconds
    assert one >= two * (1 - 1e-12)

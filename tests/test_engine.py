import itertools
import random
from fractions import Fraction

import pytest

from autotm_jax.simulate import Engines, Lane, Run, Span, Task, run_tasks

from .events import naively


F = Fraction
PLAIN = Engines(F(10), F(20))


def random_tasks(draw: random.Random, count: int) -> list[Task]:
    """Small numbers on all lanes, so that many things happen at once."""
    tasks = []
    for index in range(count):
        lane = draw.choice(list(Lane))
        scale = 1 if lane is Lane.COMPUTE else 10
        work = F(scale * draw.choice([0, 1, 1, 2, 3, 5]), draw.choice([1, 2, 3]))
        after = draw.sample(range(index), min(index, draw.choice([0, 0, 1, 2])))
        tasks.append(Task(lane, work, tuple(after), draw.choice([1, 1, 2])))
    return tasks


def random_engines(draw: random.Random) -> Engines:
    d2h, h2d = F(draw.choice([5, 10])), F(draw.choice([4, 10, 20]))
    return Engines(
        d2h,
        h2d,
        draw.choice([d2h + h2d, (d2h + h2d) / 2, max(d2h, h2d), F(100)]),
        draw.choice([0, F(1, 4)]),
        draw.choice([0, F(1, 2), F(1)]),
        draw.choice([0, F(1, 3)]),
        draw.random() < 0.25,
    )


def spans_of(run: Run) -> list[tuple[float, float]]:
    return [(span.begin, span.end) for span in run.spans]


@pytest.mark.parametrize("seed", range(300))
def test_it_is_the_replay_by_definition(seed: int):
    draw = random.Random(seed)
    tasks = random_tasks(draw, draw.randint(1, 12))
    engines = random_engines(draw)
    run = run_tasks(tasks, engines)
    assert spans_of(run) == naively(tasks, engines)
    assert run.makespan == max(span.end for span in run.spans)
    # In floating point it is the same but for rounding.
    rounded = [Task(t.lane, float(t.work), t.after, t.copies) for t in tasks]
    assert float(run.makespan) == pytest.approx(run_tasks(rounded, engines).makespan)


@pytest.mark.parametrize("seed", range(100))
def test_without_sharing_a_task_begins_as_early_as_it_can(seed: int):
    draw = random.Random(seed)
    tasks = random_tasks(draw, 12)
    engines = Engines(F(5), F(20), F(25), F(1, 4))
    ends: list[Fraction] = []
    free = dict.fromkeys(Lane, F(0))
    for task, span in zip(tasks, run_tasks(tasks, engines).spans, strict=True):
        begin = max([free[task.lane], *(ends[i] for i in task.after)])
        rate = {Lane.COMPUTE: 1, Lane.D2H: engines.d2h, Lane.H2D: engines.h2d}
        seconds = task.work / rate[task.lane]
        seconds += engines.latency * task.copies * (task.lane is not Lane.COMPUTE)
        ends.append(begin + seconds)
        free[task.lane] = ends[-1]
        assert (span.begin, span.end) == (begin, ends[-1])


@pytest.mark.parametrize("seed", range(100))
def test_everybody_does_its_work_at_the_pace_of_what_runs_beside_it(seed: int):
    # The spans alone say who was running when, and that says who did how much.
    draw = random.Random(seed)
    tasks, engines = random_tasks(draw, 12), random_engines(draw)
    run = run_tasks(tasks, engines)
    moving = []
    for task, span in zip(tasks, run.spans, strict=True):
        delay = task.copies * engines.latency * (task.lane is not Lane.COMPUTE)
        moving.append((task, span.begin + delay, span.end))
    times = sorted({time for _, *pair in moving for time in pair})
    done = [F(0) for _ in tasks]
    for a, b in itertools.pairwise(times):
        on = [i for i, (_, begin, end) in enumerate(moving) if begin <= a and b <= end]
        lanes = [tasks[i].lane for i in on]
        assert len(set(lanes)) == len(lanes)
        for i in on:
            done[i] += (b - a) / engines.pace(tasks[i].lane, lanes)
    assert done == [task.work for task in tasks]


def test_the_directions_share_the_link_in_proportion():
    # 30 bytes each: at 5 and 10 per second, until the faster one ends after 3 seconds;
    # 15 are left of the slower one, at its own rate.
    tasks = [Task(Lane.D2H, F(30)), Task(Lane.H2D, F(30))]
    run = run_tasks(tasks, Engines(F(10), F(20), F(15)))
    assert run.spans == (Span(0, 0, F(9, 2)), Span(1, 0, 3))
    assert run.stalls == ((0, F(9, 2)),)
    # The latency of one slows nobody down.
    waits = run_tasks(tasks, Engines(F(10), F(20), F(15), latency=F(1)))
    assert waits.makespan == F(11, 2)
    one = run_tasks(tasks, Engines(F(10), F(20), F(15), one_engine=True))
    assert spans_of(one) == [(0, 3), (3, F(9, 2))]


def test_copies_and_compute_disturb_each_other():
    tasks = [Task(Lane.COMPUTE, F(3)), Task(Lane.D2H, F(20))]
    # A copy of 2 seconds: compute does 4/3 of its 3 seconds by then.
    compute = run_tasks(tasks, Engines(F(10), F(10), compute_interference=F(1, 2)))
    assert spans_of(compute) == [(0, 2 + F(5, 3)), (0, 2)]
    copies = run_tasks(tasks, Engines(F(10), F(10), copy_interference=F(1, 2)))
    assert spans_of(copies) == [(0, 3), (0, 3)]


@pytest.mark.parametrize("seed", range(100))
def test_what_can_make_it_slower_and_what_cannot(seed: int):
    # Without interference or sharing, tasks only wait for each other, so that nothing
    # gets slower if one gets faster. With them no such thing is said.
    draw = random.Random(seed)
    tasks = random_tasks(draw, 12)
    plain = run_tasks(tasks, PLAIN)
    for faster in (Engines(F(15), F(20)), Engines(F(10), F(21))):
        assert run_tasks(tasks, faster).makespan <= plain.makespan
    late = Engines(F(10), F(20), latency=F(1, 9))
    assert run_tasks(tasks, late).makespan >= plain.makespan
    # Whatever else is slowed down, nothing is faster than with nothing in the way.
    draws = (F(0), F(1, 3), F(2))
    for compute, copies in itertools.product(draws, repeat=2):
        slower = Engines(F(10), F(20), F(25), 0, compute, copies)
        run = run_tasks(tasks, slower)
        assert run.makespan >= plain.makespan
        for one, other in zip(run.spans, plain.spans, strict=True):
            assert one.begin >= other.begin and one.end >= other.end


@pytest.mark.parametrize("seed", range(50))
def test_stalls_are_where_compute_is_not(seed: int):
    draw = random.Random(seed)
    tasks, engines = random_tasks(draw, 12), random_engines(draw)
    run = run_tasks(tasks, engines)
    computing = [s for s in run.spans if tasks[s.task].lane is Lane.COMPUTE]
    busy = sum((span.end - span.begin for span in computing), F(0))
    assert run.stalled == run.makespan - busy
    for begin, end in run.stalls:
        assert begin < end
        assert not any(s.begin < end and begin < s.end for s in computing)


def test_nothing_to_do():
    assert run_tasks([], PLAIN) == Run((), 0, ())


def test_waiting_for_each_other_is_an_error():
    tasks = [
        Task(Lane.COMPUTE, 2.0),
        Task(Lane.COMPUTE, 1.0, (2,)),
        Task(Lane.D2H, 1.0, (0, 1)),
    ]
    with pytest.raises(ValueError) as caught:
        run_tasks(tasks, PLAIN)
    assert str(caught.value) == (
        "Nothing goes on after 2.0 seconds: compute is at task 1, which waits for 2; "
        "D2H is at task 2, which waits for 1."
    )


@pytest.mark.parametrize(
    "task, message",
    [
        (
            Task(Lane.D2H, -1.0),
            "Task 0 is -1.0 of work in 1 copies, and nothing takes less than nothing.",
        ),
        (
            Task(Lane.D2H, 1.0, (3,)),
            "Task 0 waits for task 3, and there are 1 tasks.",
        ),
    ],
)
def test_tasks_that_make_no_sense(task: Task, message: str):
    with pytest.raises(ValueError) as caught:
        run_tasks([task], PLAIN)
    assert str(caught.value) == message

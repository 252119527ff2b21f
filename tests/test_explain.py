"""What a plan says about itself, against the checker."""

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pytest

import autotm_jax as autotm
from autotm_jax import Plan, Realised, Status
from autotm_jax.budget import format_bytes
from autotm_jax.report.peak import largest
from autotm_jax.report.wording import said
from autotm_jax.solve import (
    Fetch,
    JointProgram,
    Recipe,
    Recompute,
    Replay,
    Schedule,
    Store,
    Tensor,
    Way,
    decisions,
    packed_bytes,
    replay,
)
from autotm_jax.trace import Fragment, Program, Value

from .problems import LINK, problem
from .programs import program_of
from .steps import TINY, chain_arguments, chain_step, get, moving_step


MIB = 2**20
MS = 1e-3
AVAL = jax.core.ShapedArray((512, 512), np.dtype("float32"))
FAST = dataclasses.replace(LINK, d2h=1e9, h2d=0.5e9, duplex=2e9)

# Four layers, made one after the other and read in reverse, and a value that is read
# again too soon to be away.
LAYERS = [
    Tensor(k, MIB, (k, 11 - k), recipe=Recipe({11 - k: 0.5 * MS}, 0, ()))
    for k in range(4)
]
LINES = [*["model.py:7 (layer)"] * 4, "model.py:9 (head)"]
BRIEF = Tensor(4, MIB // 2, (5, 6))
FIRST_TWO = Schedule(recomputes=(Recompute(0, 11), Recompute(1, 10)))


def planned(
    tensors: Sequence[Tensor], lines: Sequence[str], schedule: Schedule, **options: Any
) -> Plan:
    """A plan for hand-made tensors, each made by a line of its own program."""
    known = problem(tensors, 12, **options)
    state = replay(known, schedule)
    assert not state.faults
    values = tuple(
        Value(i, AVAL, tensor.nbytes, None, line)
        for i, (tensor, line) in enumerate(zip(tensors, lines, strict=True))
    )
    nothing = Fragment((), (), (), "")
    again = {tensor.value: nothing for tensor in tensors}
    program = Program(values, (), (), (), (), (), (), again, {})
    return Plan(
        3 * MIB,
        Status.OPTIMAL,
        schedule,
        seconds=state.makespan,
        gap=0.01,
        program=program,
        problem=known,
        replay=state,
    )


def layered(schedule: Schedule, **options: Any) -> Plan:
    return planned([*LAYERS, BRIEF], LINES, schedule, **options)


def lines_of(plan: Plan) -> list[str]:
    """The lines of an explanation, without their indents."""
    return [line.strip() for line in plan.explain().splitlines()]


def replayed(plan: Plan, schedule: Schedule) -> Replay:
    assert plan.problem is not None
    return replay(plan.problem, schedule)


def test_what_takes_memory_at_the_peak_adds_up():
    workload = get("gpt-tiny")
    plan = autotm.jit(
        workload.step, budget=0.6, target="h100-sxm", donate_argnums=0
    ).plan(*workload.args)
    assert plan.replay is not None and plan.problem is not None
    assert plan.program is not None
    state = plan.replay
    worst = int(state.device.argmax())
    alive = sum(plan.program.values[v].nbytes for v in state.alive(worst))
    small, carried = int(plan.problem.resident[worst]), state.carried
    workspace = int(state.device[worst]) - alive - small - carried
    said = {
        "of state that stays there": carried,
        "of workspace of ": workspace,
        "of values too small to plan": small,
    }
    text = plan.explain()
    assert carried > 0
    for what, nbytes in said.items():
        assert (f"and {format_bytes(nbytes)} {what}" in text) == (nbytes > 0)
        assert (what in text) == (nbytes > 0)


def test_word_for_word():
    # A limit that two of the four values keep.
    plan = layered(FIRST_TWO, device_limit=2.75 * MIB)
    assert plan.explain() == (
        "Why this plan\n"
        "  The budget is 3.0 MiB. Arguments and results take 0 B, temporaries may take "
        "2.8 MiB.\n"
        "  With nothing moved or computed again they would take 4.5 MiB, and the step "
        "12.00 ms.\n"
        "  As planned they take 2.5 MiB, and the step 13.00 ms: 1.00 ms more to "
        "compute again,\n"
        "  0 ms more to wait for copies. All times are modelled.\n"
        "\n"
        "  The tightest point is segment 5 of 12, with 2.5 MiB. The largest values "
        "there:\n"
        "     2 x      1.0 MiB  f32[512,512] from model.py:7 (layer), stays\n"
        "     1 x    512.0 KiB  f32[512,512] from model.py:9 (head), stays\n"
        "\n"
        "  140.8 KiB more device memory would save 68.7 µs, 140.8 KiB less would cost "
        "68.7 µs\n"
        "  (estimates of the relaxation, which may divide a value; modelled).\n"
        "\n"
        "  What was decided, by layer or by the segment that makes a value, and what "
        "it would cost\n"
        "  if one value went another way and all else stayed as planned:\n"
        "    4 x     1.0 MiB  f32[512,512] from model.py:7 (layer)\n"
        "        layers 0-1 (2): computed again, 0.50 ms (512.00 ms per GiB)\n"
        "          if it stayed: -0.50 ms, but 768.0 KiB over the limit at segment 5\n"
        "          if it moved: +36.21 to +38.71 ms, but 768.0 KiB over the limit at "
        "segment 5\n"
        "        layers 2-3 (2): stays; if computed again: +0.50 ms "
        "(512.00 ms per GiB)\n"
        "  and 1 value needed again too soon to be away in between"
    )


def test_the_figures_of_another_way_are_those_of_the_checker():
    plan = layered(FIRST_TWO, device_limit=2.75 * MIB)
    before = replayed(plan, FIRST_TWO).makespan
    text = lines_of(plan)
    stayed = replayed(plan, Schedule(recomputes=FIRST_TWO.recomputes[1:]))
    over = stayed.device.max() - 2.75 * MIB
    assert (
        f"if it stayed: {said(stayed.makespan - before, True)}, "
        f"but {format_bytes(over)} over the limit at segment {stayed.device.argmax()}"
    ) in text
    again = Schedule(recomputes=(*FIRST_TWO.recomputes, Recompute(2, 9)))
    longer = said(replayed(plan, again).makespan - before, True)
    assert any(f"stays; if computed again: {longer} (" in t for t in text)


def test_more_and_less_memory_are_worth_what_the_relaxation_says():
    plan = layered(FIRST_TWO, device_limit=2.75 * MIB)
    assert plan.problem is not None
    joint, step = JointProgram(plan.problem), int(0.05 * 2.75 * MIB)
    less, now, more = (
        joint.relaxation(2.75 * MIB + change) for change in (-step, 0, step)
    )
    assert less is not None
    assert now is not None
    assert more is not None
    assert less > now > more
    size = format_bytes(step)
    assert (
        f"{size} more device memory would save {said(now - more)}, "
        f"{size} less would cost {said(less - now)}"
    ) in lines_of(plan)


def test_less_memory_may_be_too_little():
    every = Schedule(recomputes=tuple(Recompute(k, 11 - k) for k in range(4)))
    plan = layered(every, device_limit=1.5 * MIB)
    assert any(t.endswith("less would cost 37.5 µs") for t in lines_of(plan))
    plan = layered(every, device_limit=1.02 * MIB)
    assert any(t.endswith("less would be too little") for t in lines_of(plan))


def test_layers_that_were_decided_alike_are_one_line():
    every_other = Schedule(recomputes=(Recompute(0, 11), Recompute(2, 9)))
    text = lines_of(layered(every_other, device_limit=2.75 * MIB))
    assert any(t.startswith("layers 0, 2 (2): computed again") for t in text)
    assert any(t.startswith("layers 1, 3 (2): stays") for t in text)
    # Two lines that take turns are two classes of the same layers.
    tensors = [
        *(dataclasses.replace(t, touches=(2 * t.value, 11)) for t in LAYERS[:2]),
        *(dataclasses.replace(t, touches=(2 * t.value - 3, 11)) for t in LAYERS[2:]),
    ]
    tensors = [dataclasses.replace(t, recipe=None) for t in tensors]
    named = ["model.py:1", "model.py:1", "model.py:2", "model.py:2"]
    text = lines_of(planned(tensors, named, Schedule()))
    assert len([t for t in text if t.startswith("layers 0-1 (2): stays")]) == 2


def test_without_layers_values_are_told_by_their_segments():
    named = ["model.py:1", "model.py:2", "model.py:1", "model.py:2", "model.py:3"]
    text = lines_of(planned([*LAYERS, BRIEF], ["a", "b", "c", "d", "e"], Schedule()))
    assert len([t for t in text if re.match(r"segment \d \(1\): stays", t)]) == 4
    sizes = [dataclasses.replace(t, nbytes=MIB // 8) for t in LAYERS]
    large = Tensor(4, 8 * MIB, (1, 5))
    text = lines_of(planned([*sizes, large], named, Schedule()))
    assert any(t.startswith("segments 0-2 (2): stays") for t in text)
    assert any(t.startswith("segments 1-3 (2): stays") for t in text)


def test_what_moves():
    # Away over nine segments, which hide both copies.
    tensor = Tensor(0, MIB, (0, 11))
    other = Tensor(1, MIB, (5, 6))
    moved = Schedule((Store(0, 0, 3),), (Fetch(0, 8, 11),))
    plan = planned([tensor, other], ["a", "b"], moved, device_limit=MIB, link=FAST)
    state = replayed(plan, moved)
    text = lines_of(plan)
    waits = said(state.makespan - state.compute.sum())
    assert waits == "20.0 µs"
    assert f"{waits} more to wait for copies. All times are modelled." in text
    assert text[text.index("1 x     1.0 MiB  f32[512,512] from a") + 1 :][:3] == [
        "segment 0 (1): moves",
        "if it stayed: -20.0 µs, but 1.0 MiB over the limit at segment 5",
        "not computed again: what it is made of is gone by then",
    ]


def test_the_host_may_be_full():
    tensor = Tensor(0, MIB, (0, 11))
    full = planned([tensor], ["a"], Schedule(), host_limit=MIB // 4, link=FAST)
    assert any(
        "stays; if it moved: +20.0 µs, but 768.0 KiB over the host limit" in t
        for t in lines_of(full)
    )
    none = planned([tensor], ["a"], Schedule(), host_limit=0)
    assert "Nothing may move: the host budget is 0." in lines_of(none)
    assert "if it moved" not in none.explain()


def test_a_better_way_is_not_hidden():
    # Nothing has to be computed again here.
    plan = layered(FIRST_TWO, device_limit=9 * MIB)
    text = lines_of(plan)
    assert "if it stayed: -0.50 ms *" in text
    assert (
        "* One alone should fit and be faster: this plan is not the fastest."
    ) in text
    assert text[-1] == "Its status: solved to within the MIP gap."
    small = dataclasses.replace(plan, gap=0.05)
    assert lines_of(small)[-1] == "It was left at a gap of 5.00%, 0.65 ms."
    least = dataclasses.replace(plan, budget=None)
    assert lines_of(least)[-1] == 'It is to take little memory: budget="min".'


def test_a_better_way_that_does_not_pack_is_none():
    # 10 MiB of live bytes at most, but no gap of 2 MiB is free from segment 2 to 8.
    at = [(3, 4, 6), (4, 1, 4), (3, 5, 7), (2, 5, 6), (2, 2, 8)]
    tensors = [Tensor(i, n * MIB, (a, b)) for i, (n, a, b) in enumerate(at)]
    tensors[4] = dataclasses.replace(tensors[4], recipe=Recipe({8: MS}, 0, ()))
    again = Schedule(recomputes=(Recompute(4, 8),))
    plan = planned(tensors, ["a", "b", "c", "d", "e"], again, device_limit=10 * MIB)
    assert not replayed(plan, Schedule()).faults
    assert plan.problem is not None
    assert packed_bytes(plan.problem, replayed(plan, Schedule())) == 11 * MIB
    text = lines_of(plan)
    assert "if it stayed: -1.00 ms, but packs 1.0 MiB over the limit" in text
    assert "*" not in plan.explain()


def test_why_something_is_not_computed_again():
    def step(x: Any) -> Any:
        hold = jax.lax.optimization_barrier
        y = hold(x @ x)
        return y, jax.pure_callback(np.sin, y, y)

    program = program_of(step, np.ones((8, 8), np.float32))
    segments = len(program.segments)
    kept = [v for s in program.segments for v in s.body.writes]
    tensors = [Tensor(v, 256, (0, segments + 9)) for v in sorted({*kept})]
    known = problem(tensors, segments + 10)
    plan = Plan(2**20, Status.OPTIMAL, program=program, problem=known)
    plan = dataclasses.replace(plan, replay=replay(known, Schedule()))
    text = plan.explain()
    assert "not computed again: there is no recipe for optimization_barrier" in text


@functools.cache
def made(name: str, budget: Any) -> Plan:
    return autotm.jit(get(name).step, budget=budget, donate_argnums=0).plan(
        *get(name).args
    )


@pytest.mark.parametrize("name", TINY)
def test_a_few_screens_of_true_figures(name: str):
    plan = made(name, "min")
    text = plan.explain()
    assert text.startswith('Why this plan\n  The budget is "min". ')
    lines = text.splitlines()
    assert len(lines) < 120
    # The last thing on a line may be a path, whose length is the user's.
    assert all(len(line.split(" from ")[0]) <= 105 for line in lines)
    assert plan.problem is not None
    assert plan.replay is not None
    cut = replayed(plan, Schedule())
    state = plan.replay
    again = state.compute.sum() - cut.makespan
    one_line = " ".join(text.split())
    peak = format_bytes(state.device_peak)
    assert (
        f"they would take {format_bytes(cut.device_peak)}, and the step "
        f"{said(cut.makespan)}. As planned they take {peak}, "
        f"and the step {said(state.makespan)}: {said(again)} more to compute again, "
        f"{said(state.makespan - state.compute.sum())} more to wait for copies."
    ) in one_line
    assert (
        f"segment {state.device.argmax()} of {plan.problem.segments}, with {peak}."
    ) in text
    found = decisions(plan.problem, plan.schedule)
    bound = sum(not d.has_gap for d in found)
    assert f"and {bound} values needed again too soon" in text
    counts = [int(n) for n in re.findall(r"\((\d+)\): ", text)]
    named = re.findall(
        r"^    +(\d+) x .* from ", text.split("What was decided")[1], re.M
    )
    assert sum(counts) == sum(int(n) for n in named)
    rest = re.findall(r"(\d+) (?:stays?|moves?|computed again) \(", text)
    assert sum(counts) + sum(int(n) for n in rest) + bound == len(found)


def test_a_step_with_nothing_to_move_or_compute_again():
    plan = autotm.jit(moving_step, budget="min", host_budget=0).plan(*chain_arguments())
    text = plan.explain()
    assert plan.schedule == Schedule()
    assert "Nothing may move: the host budget is 0." in text
    assert "As planned they do: the step is cut, and that is all." in text
    assert (
        "stays; not computed again: there is no recipe for optimization_barrier" in text
    )
    assert "more device memory" not in text


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (
            Plan(None, Status.UNSUPPORTED, note="it returns no arrays"),
            "  The step could not be planned: it returns no arrays.\n"
            "  It runs as jax.jit would, without a budget.",
        ),
        (
            Plan(2**30, Status.UNTOUCHED, device_bytes=2**20),
            "  The step is left as it was traced: nothing is moved or computed again.\n"
            "  Plain jax.jit takes 1.0 MiB and keeps the budget of 1.00 GiB.",
        ),
        (
            Plan(2**30, Status.UNTOUCHED, realised=Realised(2**20, 0, None, 1)),
            "  The step is left as it was traced: nothing is moved or computed again.\n"
            "  Plain jax.jit takes 1.0 MiB and keeps the budget of 1.00 GiB.",
        ),
        (
            Plan(None, Status.UNTOUCHED, device_bytes=2**20),
            "  The step is left as it was traced: nothing is moved or computed again.\n"
            "  Plain jax.jit takes 1.0 MiB and needs no more than the plans found for "
            "it.",
        ),
        (
            Plan(None, Status.UNTOUCHED, note="the memory of cpu is not known"),
            "  The step is left as it was traced: nothing is moved or computed again.\n"
            "  That is because the memory of cpu is not known.",
        ),
    ],
)
def test_a_step_that_is_left_alone(plan: Plan, text: str):
    assert plan.explain() == f"Why this plan\n{text}"


def test_a_real_step_that_fits():
    plan = autotm.jit(chain_step, budget="1TiB").plan(*chain_arguments())
    assert "keeps the budget of 1,024.00 GiB." in plan.explain()


def test_the_largest_values_are_counted():
    plan = layered(Schedule())
    assert plan.program is not None
    assert largest(plan.program, range(5)) == [
        "   4 x      1.0 MiB  f32[512,512] from model.py:7 (layer)",
        "   1 x    512.0 KiB  f32[512,512] from model.py:9 (head)",
    ]
    tensors = [Tensor(i, MIB * (13 - i), (0, 1)) for i in range(13)]
    many = planned(tensors, "abcdefghijklm", Schedule())
    assert many.program is not None
    found = largest(many.program, range(13), ways={0: Way.MOVES})
    assert found[0] == "   1 x     13.0 MiB  f32[512,512] from a, moves"
    assert found[1] == "   1 x     12.0 MiB  f32[512,512] from b"
    assert found[10:] == ["   3 smaller, 6.0 MiB"]


def test_autotms_programs_stream_and_compute_nothing_again():
    w = get("mlp-tiny")
    step = autotm.jit(w.step, budget="min", formulation="static")
    plan = step.plan(*w.args)
    assert plan.schedule.streams
    text = plan.explain()
    assert f": {said(0.0)} more to compute again," in text
    assert "Values that segments read or leave on the host, and other variants" in text
    assert "the static program computes nothing again" in text
    assert "what it is made of is gone by then" not in text

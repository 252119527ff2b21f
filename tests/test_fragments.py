from autotm_jax.trace import planned_fragment, single_equations
from benchmarks import workloads

from .programs import program_of


# The residual network has segments that two recomputations are joined with.
WORKLOAD = workloads.get("resnet-tiny")
PROGRAM = program_of(WORKLOAD.step, *WORKLOAD.args)


def test_nothing_planned_is_the_segment_itself():
    for segment in PROGRAM.segments:
        assert planned_fragment(PROGRAM, segment.index) is segment.body


def test_one_recomputation_is_joined_as_the_program_says():
    assert PROGRAM.joined
    for (value, k), joined in PROGRAM.joined.items():
        assert planned_fragment(PROGRAM, k, again=[value]) is joined


def test_several_are_joined_together():
    by_segment: dict[int, list[int]] = {}
    for value, k in PROGRAM.joined:
        by_segment.setdefault(k, []).append(value)
    k, values = max(by_segment.items(), key=lambda item: len(item[1]))
    assert len(values) > 1
    found = planned_fragment(PROGRAM, k, again=values)
    parts = [PROGRAM.joined[v, k] for v in values]
    assert {*found.equations} == {i for part in parts for i in part.equations}
    assert {*found.writes} == {v for part in parts for v in part.writes}
    assert {*found.reads} == {v for part in parts for v in part.reads} - {*values}
    assert found.signature not in {part.signature for part in parts}


def test_what_is_dropped_is_not_written():
    segment = max(PROGRAM.segments, key=lambda s: len(s.body.writes))
    value, *rest = segment.body.writes
    assert rest
    found = planned_fragment(PROGRAM, segment.index, dropped=[value])
    assert found.writes == tuple(rest)
    assert found.reads == segment.body.reads
    assert found.equations == segment.body.equations
    assert found.signature != segment.body.signature


def test_each_equation_alone():
    found = single_equations(PROGRAM)
    assert [f.equations for f in found] == [(e.index,) for e in PROGRAM.equations]

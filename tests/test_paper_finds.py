"""What becomes of tensors under a plan: their roles, their ways and their prices."""

from pathlib import Path

import pytest

from autotm_jax.simulate import all_fast, all_slow
from autotm_jax.solve import Fetch, Schedule, Store, Stream
from autotm_jax.trace import backward_segments
from benchmarks.paper.__main__ import run
from benchmarks.paper.fates import Role, Way, fates, gigabytes
from benchmarks.paper.groups import DEPTH, Group
from benchmarks.paper.posing import Posed, posed
from benchmarks.paper.uses import uses
from benchmarks.workloads import vgg


@pytest.fixture(scope="module")
def case() -> Posed:
    return posed(vgg.workload(vgg.Config(batch=64), "vgg"))


def test_roles(case: Posed):
    found = fates(case, Schedule())
    border = backward_segments(case.program)[0]
    assert 0 < border < case.problem.segments
    for tensor, fate in zip(case.problem.tensors, found, strict=True):
        forward = [k for k in tensor.touches if k < border]
        assert fate.role.is_kept == (0 < len(forward) < len(tensor.touches))
        assert (fate.role in (Role.GRADIENT, Role.WEIGHT)) == (not forward)
        is_mask = case.program.values[tensor.value].aval.dtype == bool
        assert not is_mask or fate.role is Role.MASK
        assert 0 <= fate.depth <= 1 and 0 <= fate.waits < 1
        assert fate.way is Way.STAYS and not fate.is_away and not fate.slow
        assert fate.here == (tensor.touches[0], tensor.touches[-1] + 1)
    assert gigabytes(found) == sum(t.nbytes for t in case.problem.tensors) / 1e9
    kept = [fate for fate in found if fate.role.is_kept]
    # What is made first is read last.
    assert max(kept, key=lambda fate: fate.waits).depth == 0


def test_ways(case: Posed):
    border = backward_segments(case.program)[0]
    tensors = case.problem.tensors
    found = fates(case, Schedule())
    first, second, third = [i for i, fate in enumerate(found) if fate.role.is_kept][:3]
    after = max(k for k in tensors[second].touches if k < border)
    use = next(k for k in tensors[second].touches if k >= border)
    born, copied = tensors[first], tensors[second]
    plan = Schedule(
        stores=(Store(copied.value, after, after + 1),),
        fetches=(Fetch(copied.value, use, use),),
        streams=tuple(Stream(born.value, k) for k in born.touches),
    )
    found = fates(case, plan)
    assert found[first].way is Way.BORN and not found[first].is_fetched
    assert found[first].here == (born.touches[0], born.touches[0])
    assert found[first].slow == {*born.touches}
    assert found[second].way is Way.COPIED and found[second].is_fetched
    assert found[second].leaves == after == found[second].early[-1]
    assert found[second].here == (copied.touches[0], after + 1)
    assert found[third].way is Way.STAYS


def test_prices_are_of_kernels_and_copies(case: Posed):
    fast = all_fast(case.problem, case.kernels, case.memories).seconds
    for tensor, fate in zip(case.problem.tensors, fates(case, Schedule()), strict=True):
        index = case.problem.tensors.index(tensor)
        slow = sum(k.time(case.memories, {index}) for k in case.kernels)
        lost = 1e12 * (slow - fast) / fate.nbytes
        assert fate.born + fate.read == pytest.approx(lost, rel=1e-6, abs=1e-6)
        link = case.problem.link
        copies = [1e12 * link.alone(fate.nbytes, n) for n in (link.d2h, link.h2d)]
        assert [fate.copied, fate.fetched] == pytest.approx(
            [n / fate.nbytes for n in copies]
        )
        assert 0 <= fate.price <= min(lost + 1e-6, sum(copies) / fate.nbytes)


def test_uses(case: Posed):
    every = Schedule(
        streams=tuple(
            Stream(t.value, k) for t in case.problem.tensors for k in t.touches
        )
    )
    near, away = uses(case, Schedule()), uses(case, every)
    assert not any(use.is_slow for use in near)
    assert all(use.is_slow for use in away)
    moved = sum(kernel.nbytes() for kernel in case.kernels)
    assert sum(use.nbytes for use in near) == moved
    # Together they lose no more than all of them do at once.
    lost = sum(use.lost for use in near)
    fast, slow = (
        f(case.problem, case.kernels, case.memories).seconds
        for f in (all_fast, all_slow)
    )
    assert 0 < lost <= slow - fast + 1e-9
    memories = case.memories
    for use in near:
        more = 1 / memories.slow_read - 1 / memories.fast_read
        if use.is_write:
            more = 1 / memories.slow_write - 1 / memories.fast_write
        assert use.lost <= use.nbytes * more * (1 + 1e-9)
        if not use.is_bound:
            assert use.lost == pytest.approx(use.nbytes * more)


def test_tensors_are_divided_into_spans(case: Posed):
    found = fates(case, Schedule())
    assert DEPTH.spans == ("0 to 20", "20 to 40", "40 to 60", "60 to 80", "80 up")
    parts = DEPTH.divided(found)
    assert sorted(f.touches for part in parts for f in part) == sorted(
        f.touches for f in found
    )
    group = Group("size", lambda fate: fate.nbytes, (0, found[0].nbytes))
    small, large = group.divided(found[:1])
    assert small == [] and large == found[:1]


def test_the_quick_form_says_what_moves(tmp_path: Path):
    report = run(["finds"], True, tmp_path)["finds"]
    classes, used, prices, away, born, where, stores = report.tables
    for table in (classes, stores):
        columns = [table.column(way.value) for way in Way]
        for parts in zip(*columns, strict=True):
            assert sum(parts) == pytest.approx(100)  # pyright: ignore
    by_class = {row[:2]: row for row in classes.rows}
    inception = by_class["inception-v4", Role.GRADIENT.value]
    assert inception[classes.columns.index(Way.STAYS.value)] == pytest.approx(100)
    lost = {row[:3]: row[4] for row in used.rows}
    for name in ("vgg-19", "inception-v4"):
        written = [lost[name, "written", k] for k in ("arithmetic", "memory")]
        read = [lost[name, "read", k] for k in ("arithmetic", "memory")]
        assert read[0] < read[1] < written[0] < written[1]  # pyright: ignore
    price = {row[:2]: row[-1] for row in prices.rows}
    stays, copied, made = (price["inception-v4", way.value] for way in Way)
    assert made < copied < stays  # pyright: ignore
    # What is cheap leaves, whatever else it is.
    parts = [r[3] for r in away.rows if r[0] == "price, ms per GB"]
    parts = [part for part in parts if part is not None]
    assert parts == sorted(parts, reverse=True)  # pyright: ignore
    assert born.rows[0][2] > born.rows[-1][2]  # pyright: ignore
    for row in where.rows:
        assert row[1] >= row[3]  # pyright: ignore  # no more waits in DRAM than it has
        assert row[6] + row[7] == pytest.approx(100)  # pyright: ignore
    assert (tmp_path / "finds.png").exists()

"""Plans that fit by their live bytes, and then by their allocation."""

import dataclasses

import pytest

from autotm_jax.solve import packed_bytes, polish, repack, replay

from .packing import not_packing, packs, plans
from .problems import random_problem


def test_what_packs_badly_is_changed_until_it_fits():
    bad = [found for seed in range(80) if (found := not_packing(seed)) is not None]
    assert len(bad) >= 5
    found = [(problem, repack(problem, plan, 10.0)) for problem, plan in bad]
    fixed = [packs(problem, plan) for problem, plan in found if plan is not None]
    assert fixed and all(fixed)


@pytest.mark.parametrize("seed", range(10))
def test_what_packs_is_left_alone(seed: int):
    free = random_problem(seed)
    schedule = polish(free, plans(seed)[1])
    taken = packed_bytes(free, replay(free, schedule))
    problem = dataclasses.replace(free, device_limit=float(taken))
    assert repack(problem, schedule, 10.0) == schedule

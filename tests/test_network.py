import random

import numpy as np

from autotm_jax.solve import Configuration, Tensor, replay
from autotm_jax.solve.network import Network

from .problems import problem, random_problem


def test_a_path_never_takes_less_of_the_host_than_the_checker_counts():
    draw, numbers = random.Random(0), np.random.default_rng(0)
    sound = 0
    for _ in range(120):
        touches = sorted(draw.sample(range(14), draw.randint(2, 4)))
        streamed = Configuration(frozenset({0}), 1e-3, 1000)
        known = {k: (streamed,) for k in touches if draw.random() < 0.3}
        one = problem([Tensor(7, 1000, tuple(touches))], 14, configurations=known)
        network = Network(one)
        lane = np.cumsum(network.changes("host").toarray(), axis=0)
        for _ in range(5):
            taken = np.zeros(len(network.edges))
            taken[network.main_path(0, numbers.random(len(network.edges)))] = 1
            state = replay(one, network.decode(taken))
            if not state.faults:
                sound += 1
                assert (lane @ taken >= state.host - 1e-6).all()
    assert sound >= 300


def test_a_lane_is_the_sum_of_its_changes():
    for seed in range(20):
        network = Network(random_problem(seed))
        for lane in ("device", "host", "out", "in", "again"):
            sums = np.cumsum(network.changes(lane).toarray(), axis=0)
            assert np.allclose(network.values(lane).toarray(), sums)

import pytest

from autotm_jax.solve import Fetch, Store, Stream, Tensor
from autotm_jax.solve.tensorgraph import TensorGraphs

from .problems import KIB, problem


@pytest.mark.parametrize("touches", [(0, 4), (0, 1, 5), (1, 2, 3, 9), (0, 3, 5, 7, 11)])
def test_the_graph_has_as_many_vertices_and_edges_as_autotms(touches: tuple[int, ...]):
    graphs = TensorGraphs(problem([Tensor(0, KIB, touches)], 12))
    gadgets = len(touches)
    assert graphs.nodes + 2 == 3 * gadgets + 1  # SOURCE and SINK are no nodes here
    assert len(graphs.edges) == 6 * gadgets - 3


def test_a_tensor_that_may_not_move_has_one_path():
    graphs = TensorGraphs(problem([Tensor(0, KIB, (0, 2, 4), movable=False)], 6))
    assert len(graphs.edges) == 4
    assert not graphs.may_stream
    assert all(not edge.actions for edge in graphs.edges)


def test_the_moves_of_a_tensor_that_waits():
    graphs = TensorGraphs(problem([Tensor(7, KIB, (1, 5))], 8))
    actions = {a for edge in graphs.edges for a in edge.actions}
    assert actions == {Store(7, 1, 2), Fetch(7, 5, 5), Stream(7, 1), Stream(7, 5)}
    assert graphs.may_stream == {(0, 1), (0, 5)}


def test_asynchronous_moves_run_beside_one_segment_near_a_touch():
    graphs = TensorGraphs(problem([Tensor(7, KIB, (1, 30))], 40), reach=3)
    actions = [a for edge in graphs.edges for a in edge.actions]
    beside = [
        a for a in actions if not isinstance(a, Stream) and a.window[0] != a.window[1]
    ]
    at = {first for first, _ in (a.window for a in beside)}
    assert at == {2, 3, 4, 27, 28, 29}
    assert all(end == first + 1 for first, end in (a.window for a in beside))
    assert all(a.after == 1 for a in beside if isinstance(a, Store))
    assert all(a.use == 30 for a in beside if isinstance(a, Fetch))


def test_the_rates_of_a_copy_are_those_of_the_link():
    one = problem([Tensor(0, 50 * KIB, (0, 4))], 6, compute=[2e-3] * 6)
    graphs = TensorGraphs(one, reach=15)
    changes = graphs.changes("out").toarray()
    for column, edge in enumerate(graphs.edges):
        stores = [a for a in edge.actions if isinstance(a, Store)]
        if stores and stores[0].window[1] > stores[0].window[0]:
            first, end = stores[0].window
            rate = 50 * KIB / 2e-3
            assert changes[first, column] == pytest.approx(rate)
            assert changes[end, column] == pytest.approx(-rate)
            assert graphs.delays[column] == pytest.approx(one.link.latency)
        elif stores:
            assert not changes[:, column].any()
            waits = one.link.latency + 50 * KIB / one.link.d2h
            assert graphs.delays[column] == pytest.approx(waits)

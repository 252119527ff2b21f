"""Plans by hand for what crosses from one loop to another."""

from collections.abc import Callable, Iterator

from autotm_jax.solve import (
    Fetch,
    Problem,
    Recompute,
    Schedule,
    Store,
    Tensor,
    replay,
)


Way = Callable[[Tensor], tuple[Store, list[Fetch]]]


def crossing(problem: Problem) -> Iterator[Tensor]:
    """The tensors that one loop makes and another one reads."""
    crossing = (t for t in problem.tensors if t.crossing is not None)
    # Some are only to be read there to compute another one again.
    return (t for t in crossing if _uses(t)[1])


def _uses(tensor: Tensor) -> tuple[list[int], list[int]]:
    # Touches in the loop that makes it, and in the one that reads it.
    assert tensor.crossing is not None
    end, begin = tensor.crossing.made[1], tensor.crossing.read[0]
    made = [k for k in tensor.touches if k < end]
    return made, [k for k in tensor.touches if k >= begin]


def at_once(tensor: Tensor) -> tuple[Store, list[Fetch]]:
    """Everything waits, and for each use there is a fetch, if there can be one."""
    made, read = _uses(tensor)
    store = Store(tensor.value, made[-1], made[-1] + 1)
    return store, [Fetch(tensor.value, k, k) for k in read if tensor.is_open(k)]


def in_the_iteration(tensor: Tensor) -> tuple[Store, list[Fetch]]:
    """Copied beside all of the iteration that there is."""
    assert tensor.crossing is not None
    made, read = _uses(tensor)
    store = Store(tensor.value, made[-1], tensor.crossing.made[1])
    return store, [Fetch(tensor.value, tensor.crossing.read[0], read[0])]


def early(tensor: Tensor) -> tuple[Store, list[Fetch]]:
    """Stored while the first loop still reads it, where it does, then fetched late."""
    assert tensor.crossing is not None
    made, read = _uses(tensor)
    first, end = made[0] + 1, tensor.crossing.made[1]
    start = first if tensor.is_open(first) and first < end else -1
    after = made[0] if start > 0 else made[-1]
    start = -1 if start == after + 1 else start
    begin = max(tensor.crossing.read[0], read[0] - 1)
    begin = begin if tensor.is_open(begin) else read[0]
    return Store(tensor.value, after, end, start), [Fetch(tensor.value, begin, read[0])]


def ahead(tensor: Tensor) -> tuple[Store, list[Fetch]]:
    """Fetched beside the whole iteration before the one that reads it."""
    assert tensor.crossing is not None
    (store, _), (_, read) = in_the_iteration(tensor), _uses(tensor)
    return store, [
        Fetch(tensor.value, first, min(k for k in read if first <= k < end), end)
        for first, end in tensor.crossing.readers
        if any(first <= k < end for k in read)
    ]


def late_ahead(tensor: Tensor) -> tuple[Store, list[Fetch]]:
    """The same, beside the last segment only, and again for every later use."""
    assert tensor.crossing is not None
    (store, _), (_, read) = in_the_iteration(tensor), _uses(tensor)
    _, end = tensor.crossing.read
    start = max(k for k in range(end) if tensor.is_open(k))
    again = [Fetch(tensor.value, k, k) for k in read[1:] if tensor.is_open(k)]
    return store, [Fetch(tensor.value, start, read[0], end), *again]


def by_the_next(tensor: Tensor) -> tuple[Store, list[Fetch]]:
    """Stored by the next iteration, where the other loop runs them in reverse."""
    assert tensor.crossing is not None
    (store, back), (made, _) = ahead(tensor), _uses(tensor)
    if not tensor.crossing.is_mirrored:
        return store, back
    first, end = tensor.crossing.made
    return Store(tensor.value, made[-1], end, first), back


WAYS = (at_once, in_the_iteration, early, ahead, late_ahead, by_the_next)


def moving(problem: Problem, way: Way) -> Schedule:
    """Everything that crosses, and may, goes to the host and back in one way."""
    stores, fetches = [], []
    for tensor in crossing(problem):
        if tensor.movable:
            store, back = way(tensor)
            stores.append(store)
            fetches += back
    return Schedule(tuple(sorted(stores)), tuple(sorted(fetches)))


def recomputing(problem: Problem) -> Schedule:
    """Everything that crosses is computed again, where no rule is broken by it."""
    schedule = Schedule()
    for tensor in reversed(list(crossing(problem))):
        _, read = _uses(tensor)
        if tensor.recipe is None or read[0] not in tensor.recipe.seconds:
            continue
        again = tuple(sorted((*schedule.recomputes, Recompute(tensor.value, read[0]))))
        trial = Schedule(recomputes=again)
        if not replay(problem, trial).faults:
            schedule = trial
    return schedule

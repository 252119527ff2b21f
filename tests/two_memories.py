"""Small problems with kernels over two memories, for the tests of simulations."""

import random

from autotm_jax.simulate import Kernel, Memories, Pass
from autotm_jax.solve import Problem, Tensor

from .problems import problem


ROUND = Memories(
    fast_read=100.0,
    fast_write=50.0,
    slow_read=20.0,
    slow_write=10.0,
    out=10.0,
    into=25.0,
)
"""Bytes per second that are easy to calculate with."""


def chain(sizes: list[int], seconds: float = 0.0) -> tuple[Problem, list[Kernel]]:
    """Each segment reads the tensor that the one before made, and makes one."""
    last = len(sizes)
    tensors = [Tensor(i, n, (i, min(i + 1, last))) for i, n in enumerate(sizes)]
    kernels = [
        Kernel(
            (
                Pass(
                    seconds,
                    {k - 1: sizes[k - 1]} if k else {},
                    {k: sizes[k]} if k < last else {},
                ),
            )
        )
        for k in range(last + 1)
    ]
    return problem(tensors, last + 1), kernels


def step(seed: int) -> tuple[Problem, list[Kernel]]:
    """A random step: each kernel reads what is wanted there and makes what is made."""
    draw = random.Random(seed)
    count = draw.randint(3, 9)
    tensors: list[Tensor] = []
    for value in range(draw.randint(2, 12)):
        first = draw.randrange(count - 1)
        later = range(first + 1, count)
        reads = draw.sample(later, draw.randint(1, min(3, len(later))))
        touches = (first, *sorted(reads))
        tensors.append(Tensor(value, draw.randint(1, 40) * 16, touches))
    kernels = []
    for k in range(count):
        reads = {
            i: t.nbytes
            for i, t in enumerate(tensors)
            if k in t.touches and k > t.touches[0]
        }
        writes = {i: t.nbytes for i, t in enumerate(tensors) if k == t.touches[0]}
        first = Pass(draw.uniform(0.0, 30.0), reads, writes, 16 * draw.randint(0, 2))
        again = Pass(0.0, dict(list(reads.items())[:1]), {})
        kernels.append(Kernel((first, again) if draw.random() < 0.5 else (first,), 0.1))
    return problem(tensors, count), kernels

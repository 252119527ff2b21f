from pathlib import Path

import autotm_jax as autotm
from autotm_jax.plain import Plain


def test_compiled_once_and_kept(own_cache: Path):
    compiled: list[bool] = []

    def compile(to_run: bool) -> int:
        compiled.append(to_run)
        return 123

    target = autotm.target()
    first = Plain(compile, target, "jaxpr", [True])
    assert first.known is None
    assert (first.nbytes, first.nbytes, len(compiled)) == (123, 123, 1)
    # Another process.
    second = Plain(compile, target, "jaxpr", [True])
    assert (second.known, second.nbytes, len(compiled)) == (123, 123, 1)


def test_kept_by_what_tells_steps_apart(own_cache: Path):
    target = autotm.target()
    assert Plain(lambda _: 1, target, "jaxpr", [True]).nbytes == 1
    assert Plain(lambda _: 2, target, "jaxpr", [False]).nbytes == 2
    assert Plain(lambda _: 3, target, "another", [True]).nbytes == 3
    h100 = autotm.target("h100-sxm")
    assert Plain(lambda _: 4, h100, "jaxpr", [True]).nbytes == 4


def test_compiled_to_run_only_where_that_is_likely(own_cache: Path):
    compiled: list[bool] = []

    def compile(to_run: bool) -> int:
        compiled.append(to_run)
        return 123

    likely = Plain(compile, autotm.target(), "jaxpr")
    assert (likely.to_run(), likely.nbytes, compiled) == (123, 123, [True])
    other = Plain(compile, autotm.target(), "another")
    assert (other.nbytes, other.to_run(), compiled) == (123, 123, [True, False])

import sys
from types import SimpleNamespace
from typing import Any

import jax
import pytest

import autotm_jax as autotm
from autotm_jax.compile import examine
from autotm_jax.solve import Fetch, Recompute, Schedule, Store

from .compiling import needs_cuda_plugin
from .steps import chain_arguments, chain_step, moving_step


HOST = "bf16[8]{0:S(5)}"
DEVICE = "bf16[8]{0}"
STACK = "bf16[4,8]{1,0:S(5)}"
SCHEDULE = Schedule((Store(1, 0, 2),), (Fetch(1, 3, 5),))


def copy(to: str, of: str) -> str:
    """A copy as it stands in scheduled HLO."""
    return f"  %c = ({to}, {of}, u32[]) copy-start({of} %x)\n"


def executable(text: str) -> Any:
    """Looks like an executable with this HLO."""
    stats = SimpleNamespace(argument_size_in_bytes=100, host_temp_size_in_bytes=16)
    return SimpleNamespace(memory_analysis=lambda: stats, as_text=lambda: text)


def test_what_was_planned_is_there():
    text = copy(HOST, DEVICE) + copy(DEVICE, HOST)
    evidence = examine(executable(text), SCHEDULE, "cuda")
    assert evidence.faults == ()
    assert evidence.copies == 2
    assert (evidence.device_bytes, evidence.host_bytes) == (100, 16)


def test_copies_that_are_missing():
    evidence = examine(executable(copy(HOST, DEVICE)), SCHEDULE, "cuda")
    assert evidence.faults == (
        "XLA kept 1 of the 2 planned copies between device and host memory",
    )


def test_copies_within_one_memory_do_not_count():
    text = copy(HOST, HOST) + copy(DEVICE, DEVICE)
    evidence = examine(executable(text), SCHEDULE, "cuda")
    assert evidence.copies == 0
    assert len(evidence.faults) == 1


@pytest.mark.parametrize(
    ("operation", "operands", "result", "count"),
    [
        ("fusion", f"{STACK}, s32[]", DEVICE, 1),
        ("dynamic-slice", f"{STACK}, s32[]", DEVICE, 1),
        ("dynamic-update-slice", f"{STACK}, {DEVICE}, s32[]", STACK, 1),
        ("fusion", f"bf16[4,8]{{1,0}}, {DEVICE}, s32[]", "bf16[4,8]{1,0}", 0),
    ],
)
def test_slices_of_host_stacks_are_copies(
    operation: str, operands: str, result: str, count: int
):
    text = f"  %s = (({operands}), {result}, u32[]) {operation}-start(%x, %i)\n"
    assert examine(executable(text), SCHEDULE, "cuda").copies == count
    both = examine(executable(text + copy(HOST, DEVICE)), SCHEDULE, "cuda")
    assert both.copies == count + 1


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (
            "  %fusion.3.remat = f32[] fusion()\n  %add.remat2 = f32[] add()\n",
            "XLA's own rematerialisation added 2 instructions",
        ),
        (
            '  ROOT %r = call(), frontend_attributes={_xla_compute_type="host"}\n',
            "XLA moved computation to the host, which is very slow",
        ),
        (
            '  %a = f32[] async-start(), execution_thread="host"\n',
            "XLA moved computation to the host, which is very slow",
        ),
    ],
)
def test_what_was_not_planned(line: str, fault: str):
    text = copy(HOST, DEVICE) + copy(DEVICE, HOST) + line
    assert examine(executable(text), SCHEDULE, "cuda").faults == (fault,)


def test_elsewhere_only_memory_is_read():
    evidence = examine(executable(""), SCHEDULE, "cpu")
    assert evidence.copies is None
    assert evidence.faults == ()
    assert examine(executable(""), Schedule(), "cuda").copies is None


def test_a_plan_that_only_computes_again_is_examined():
    schedule = Schedule(recomputes=(Recompute(1, 5),))
    evidence = examine(executable("%x.remat = f32[] add()"), schedule, "cuda")
    assert evidence.copies == 0
    assert len(evidence.faults) == 1


@needs_cuda_plugin
def test_an_executable_without_the_planned_copies():
    target = autotm.target("h100-sxm")
    args = target.place(chain_arguments(layers=2))
    plain = jax.jit(chain_step).lower(*args).compile()
    assert examine(plain, SCHEDULE, "cuda").faults == (
        "XLA kept 0 of the 2 planned copies between device and host memory",
    )


@needs_cuda_plugin
def test_a_step_whose_plan_is_not_realised_is_not_returned(
    monkeypatch: pytest.MonkeyPatch,
):
    module = sys.modules["autotm_jax.planned"]
    args = chain_arguments(layers=4, width=256, batch=4096)
    step = autotm.jit(moving_step, budget="min", target="h100-sxm")

    def unrealised(program: Any, schedule: Schedule) -> Any:
        return real(program, Schedule())

    real = module.emit
    monkeypatch.setattr(module, "emit", unrealised)
    schedule = step.plan(*args).schedule
    wanted = len(schedule.stores) + len(schedule.fetches)
    assert wanted
    text = f"XLA did not realise the plan: XLA kept 0 of the {wanted} planned copies"
    with pytest.raises(autotm.PlanNotRealised, match=text):
        step.lower(*args)

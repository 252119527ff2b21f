"""The options that planned steps are compiled with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import compat


# On a GPU, XLA's rematerialisation counts pinned host buffers as device memory and
# would recompute what it need not: the plan has already said what is computed again. On
# a CPU, XLA would drop the barriers before it fuses and schedules: the cuts with them;
# and a small loop would become a single kernel, in which no barrier can be compiled:
# that ends the process.
_DISABLED_PASSES = {
    "cuda": "rematerialization",
    "cpu": "cse_barrier_expander,small-while-loop-hoisting",
}

# Reads slices of stacks on the host at wrong offsets, where that is not mended
# (openxla/xla#46231). Without it the copies run beside compute all the same.
_WRONG_SLICES = "dynamic-slice-annotator"


# Copies count as asynchronous compute, of which XLA:GPU's scheduler has two at a time
# if it is not told otherwise. A third copy then makes it wait for the first one, whose
# time beside compute is over, however much was planned.
_COPIES_AT_A_TIME = {"xla_gpu_experimental_parallel_async_compute_limit": "1024"}

# XLA begins a copy 5 ms before its end, as it estimates the kernels beside it. Of a
# matmul that is divided along what it contracts it estimates 11 ms where it takes 0.2
# ms: a copy with one beside it began right before that, however early it was planned.
# By a table in which matmuls take next to nothing it begins where it was planned to.
# (Of Hopper and newer. On older cards XLA goes by other rules.)
_MATMULS = Path(__file__).with_name("matmuls.txtpb")
_BEGIN_IN_TIME = {"xla_gpu_experimental_matmul_perf_table_path": str(_MATMULS)}

# Where XLA cannot have Triton write them, all matmuls are cuBLAS's.
WITHOUT_TRITON = {"xla_gpu_enable_triton_gemm": False}

# XLA (that of JAX 0.12 does so) looks for the fastest code of each fusion. That is half
# of the time that it takes, and changes no buffer.
_NOT_TO_RUN = {"xla_gpu_experimental_enable_fusion_autotuner": False}


def compiler_options(
    platform: str, moves: bool = True, uses_triton: bool = True
) -> dict[str, str | bool]:
    """XLA's options for a planned step.

    **Arguments:**

    - `platform`: `Machine.platform` of the target.
    - `moves`: whether it may copy between the memories. What is known not to, is
        scheduled by XLA's own estimates.
    - `uses_triton`: whether XLA may have Triton write matmuls.

    **Returns:**

    As `jax.jit` takes them as `compiler_options`; empty for a platform that is not
    known.
    """
    disabled = _DISABLED_PASSES.get(platform)
    if disabled is None:
        return {}
    if platform != "cuda":
        return {"xla_disable_hlo_passes": disabled}
    if compat.READS_WRONG_SLICES:
        disabled = f"{disabled},{_WRONG_SLICES}"
    more = {**_COPIES_AT_A_TIME, **(_BEGIN_IN_TIME if moves else {})}
    without = {} if uses_triton else WITHOUT_TRITON
    return {"xla_disable_hlo_passes": disabled, **more, **without}


def compile_not_to_run(lowered: Any, options: Mapping[str, Any] | None = None) -> Any:
    """Compiles for a GPU what is not to run: only its memory is wanted.

    **Arguments:**

    - `lowered`: a `jax.stages.Lowered`.
    - `options`: XLA's, besides those that it has been given by its `jax.jit`.

    **Returns:**

    The `jax.stages.Compiled`. Its buffers are those of one that is to run.
    """
    given = dict(options or {})
    try:
        return lowered.compile({**given, **_NOT_TO_RUN})
    except Exception as error:
        # Another version of XLA may not know them. It does without.
        if "No such compile option" not in str(error):
            raise
        return lowered.compile(given)

"""The process that touches the device: one task, said line by line.

`python -m benchmarks.gpu.worker TASK`, with a task as JSON: `driver.py` starts it. Each
line that it prints is a JSON object with one name: what was found, to be merged into
the results (`results.py`). Whatever else prints does so to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import jax

import autotm_jax as autotm

from . import speeds
from .cases import CASES, SMALL
from .doing import DO, Say, Work
from .reasons import reason_of
from .tasks import Task


def target_of(task: Task) -> autotm.Target:
    """What a task compiles for: a described card, or what is here, as measured.

    **Raises:**

    - `TargetError`: if JAX has no device of the platform.
    """
    if task.target is not None:
        return autotm.target(task.target)
    device = jax.local_devices()[0]
    if task.platform == "gpu" and device.platform not in ("gpu", "cuda"):
        raise autotm.TargetError(
            f"There is a GPU, but JAX runs on {device.device_kind!r}. Install its "
            "plugin (pip install 'jax[cuda13]'), or compile for a GPU that is not "
            "here with --target h100-sxm."
        )
    if task.machine is None:
        return autotm.Target(speeds.machine())
    return autotm.Target(speeds.from_json(task.machine))


def do(task: Task, say: Say) -> None:
    """Does a task.

    **Arguments:**

    - `task`: what to do.
    - `say`: is told what was found.
    """
    end = time.monotonic() + task.seconds
    case = (SMALL if task.small else CASES)[task.case]
    DO[task.kind](Work(task, case, target_of(task), say, end))


def main() -> None:
    """Does the task of the command line."""
    # Whatever prints by itself should not come between lines of what was found.
    found = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=found, flush=True)

    try:
        do(Task(**json.loads(sys.argv[1])), say)
    except Exception as error:  # noqa: BLE001 - said, as all the rest
        say({"failed": reason_of(error)})
        raise


if __name__ == "__main__":
    main()

"""The card that is here, and what processes that use it are told.

Nothing about the card is changed: neither clocks nor modes. What a process may take of
its memory is less than what is free of it, and never managed (unified) memory.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from .prepared import USABLE


_QUERY = ("--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits")
_MIB = 2**20

_ROOM = 2**30
"""Bytes that are left alone of what is free: the driver takes some for each process."""

_LEAST_FREE = 0.5

# Both make JAX's allocator another one; the last is an older name of a setting below,
# and JAX takes only one of them.
_NOT_INHERITED = (
    "TF_FORCE_UNIFIED_MEMORY",
    "XLA_PYTHON_CLIENT_ALLOCATOR",
    "XLA_PYTHON_CLIENT_MEM_FRACTION",
)


class CardError(RuntimeError):
    """A card that cannot be measured on, or none at all."""


@dataclasses.dataclass(frozen=True)
class Card:
    """A GPU, as its driver reports it.

    - `name`: what it is called.
    - `total`, `free`: bytes of its memory.
    """

    name: str
    total: int
    free: int

    @property
    def fraction(self) -> float:
        """The part of its memory that a process may take.

        **Raises:**

        - `CardError`: if others have taken half of it.
        """
        if self.free < _LEAST_FREE * self.total:
            raise CardError(
                f"Of the {self.total // _MIB:,} MiB of the {self.name}, only "
                f"{self.free // _MIB:,} MiB are free: times and the largest batches "
                "would be those of a card that is shared. End what else uses it "
                "(nvidia-smi lists that), or name another card in "
                "CUDA_VISIBLE_DEVICES."
            )
        return min(USABLE, int(100 * (self.free - _ROOM) / self.total) / 100)


def present_card() -> Card | None:
    """The first GPU that CUDA would use; `None` if there is none.

    **Raises:**

    - `CardError`: if its driver does not answer.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given in ("", "-1"):
        return None
    command = shutil.which("nvidia-smi")
    if command is None:
        asked = [sys.executable, "-m", "benchmarks.gpu.asking"]
    else:
        visible = (given or "").partition(",")[0]
        asked = [command, *([f"--id={visible}"] if visible else []), *_QUERY]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired as error:
        raise CardError(
            "The driver of the GPU did not answer within 60 s. See whether nvidia-smi "
            "does, or compile for a card that is not here with --target h100-sxm."
        ) from error
    lines = said.stdout.strip().splitlines()
    if said.returncode or not lines:
        return None  # no driver, or no card
    return parse_card(lines[0])


def parse_card(line: str) -> Card:
    """Reads a line of what the driver says of a card's name and memory.

    **Raises:**

    - `CardError`: if the line is none.
    """
    name, *sizes = (cell.strip() for cell in line.rsplit(",", 2))
    try:
        total, free = (int(cell) * _MIB for cell in sizes)
    except ValueError as error:
        raise CardError(
            f"The driver says {line!r}, where a name and two sizes in MiB were "
            "expected. Compile for a card that is not here with --target h100-sxm, or "
            "measure one whose memory is reported."
        ) from error
    return Card(name, total, free)


def environment(
    platform: str | None,
    card: Card | None,
    cache: Path,
    inherited: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """The environment of a process that does a task.

    **Arguments:**

    - `platform`: `"gpu"` or `"cpu"` to measure on; `None` to compile only.
    - `card`: the one to be measured.
    - `cache`: where compiled programs are kept between processes.
    - `inherited`: the environment of this one.
    """
    env = {k: v for k, v in inherited.items() if k not in _NOT_INHERITED}
    env.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    env["AUTOTM_JAX_PROGRESS"] = "0"
    if platform != "gpu":
        env["JAX_PLATFORMS"] = "cpu"
        return env
    assert card is not None
    env.pop("JAX_PLATFORMS", None)
    # In one piece: what is left between pieces would be missing near the limit.
    env["XLA_PYTHON_CLIENT_PREALLOCATE"] = "true"
    env["XLA_CLIENT_MEM_FRACTION"] = f"{card.fraction:.2f}"
    env["JAX_COMPILATION_CACHE_DIR"] = str(cache / "jax")
    return env

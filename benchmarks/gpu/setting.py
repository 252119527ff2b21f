"""What has to be the same for figures to be compared."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import re
import subprocess
from pathlib import Path
from typing import Literal


Form = Literal["measured", "compiled"]

_ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What has to be the same for rows to stand in one table.

    - `form`: whether steps were run, or only compiled.
    - `card`: what they ran on, or were compiled for.
    - `jax`, `jaxlib`, `commit`: versions; the commit ends in `+` if files differed.
    - `small`: whether the workloads are the small ones.
    """

    form: Form
    card: str
    jax: str
    jaxlib: str
    commit: str
    small: bool = False

    @property
    def stem(self) -> str:
        """What files of such results are called, before the date."""
        card = re.sub("[^a-z0-9]+", "-", self.card.lower()).strip("-")
        rest = [self.form] * (self.form == "compiled") + ["small"] * self.small
        return "-".join([card, *rest])


def setting_here(form: Form, card: str, small: bool) -> Setting:
    """The setting of a run of this checkout."""
    versions = (importlib.metadata.version(name) for name in ("jax", "jaxlib"))
    return Setting(form, card, *versions, commit=_commit(), small=small)


def _commit() -> str:
    def git(*words: str) -> str:
        asked = ["git", "-C", str(_ROOT), *words]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=30)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "--short", "HEAD")
        changed = git("status", "--porcelain", "--", "autotm_jax", "benchmarks")
    except (OSError, subprocess.TimeoutExpired):
        commit, changed = "", ""
    # What has been written here is no change of what was run.
    lines = [line for line in changed.splitlines() if "benchmarks/results/" not in line]
    return (commit or "unknown") + "+" * bool(lines)

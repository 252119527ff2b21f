"""Made-up rows and results of `benchmarks.gpu`."""

from pathlib import Path
from typing import Any

from benchmarks.gpu.results import Results
from benchmarks.gpu.row import Row
from benchmarks.gpu.setting import Form, Setting
from benchmarks.gpu.ways import PLAIN, Way


MIB = 2**20


def setting(form: Form = "measured", commit: str = "abc1234") -> Setting:
    """The setting of made-up results."""
    return Setting(form, "H100", "0.12.0", "0.12.0", commit)


def row(case: str, way: Way, seconds: float | None = None, **known: Any) -> Row:
    """A row at batch 16, with three samples of so many seconds."""
    samples = () if seconds is None else (seconds,) * 3
    return Row(case, known.pop("batch", 16), way.name, samples=samples, **known)


def results(
    *rows: Row, form: Form = "measured", path: Path = Path("results.json")
) -> Results:
    """Results of these rows, compared to plain `jax.jit` where that is one of them."""
    found = Results(path, setting(form), {"date": "2026-01-02", "command": "run"})
    plain = {(r.case, r.batch): r.seconds for r in rows if r.way == PLAIN.name}
    for one in rows:
        found.batches.setdefault(one.case, one.batch)
        known = {"plain_seconds": plain.get((one.case, one.batch))}
        found.take_row(Row(**{**vars(one), **known}))
    return found

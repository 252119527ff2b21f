"""`python -m benchmarks.paper`: the experiments of the AutoTM paper.

All of them, or those that are named. Each prints its tables in Markdown next to what
the paper says, and writes `NAME.json` and `NAME.png` into a folder. Nothing is run or
measured but the solver: everything is simulated on the described machines. But for
`compiled`, which asks XLA: processes of its own begin with that beside the others.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from . import compiled, cost, finds, gpu, inception, kernels, large, ratios, solving
from .registry import BEGINNINGS, EXPERIMENTS
from .report import COLOURS, Report
from .study import Study


# Each registers the experiment of its name. They run in this order.
_MODULES = (kernels, ratios, large, cost, inception, finds, solving, gpu, compiled)
NAMES = tuple(module.__name__.rpartition(".")[2] for module in _MODULES)
assert set(NAMES) == set(EXPERIMENTS)


def run(names: Sequence[str], quick: bool, out: Path) -> dict[str, Report]:
    """Runs experiments, one after the other.

    **Arguments:**

    - `names`: of `NAMES`; all of them if there is none.
    - `quick`: whether their small form is wanted.
    - `out`: the folder to write into.

    **Returns:**

    The reports by name, without those that take what is not installed.
    """
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()

    def say(text: str) -> None:
        taken = time.perf_counter() - start
        # At once, as others say something meanwhile.
        sys.stderr.write(f"[{taken:5.0f} s] {text}\n")

    study = Study(quick, say)
    reports: dict[str, Report] = {}
    wanted = [name for name in NAMES if name in (names or NAMES)]
    try:
        for name in wanted:
            if name in BEGINNINGS:
                BEGINNINGS[name](study)
        for name in wanted:
            say(f"{name} begins")
            report = EXPERIMENTS[name](study)
            if report is None:
                continue
            reports[name] = report
            print(report.markdown(name), end="\n\n", flush=True)
            _write(name, report, out)
    finally:
        study.close()
    say(f"written to {out}")
    return reports


def _write(name: str, report: Report, out: Path) -> None:
    (out / f"{name}.json").write_text(json.dumps(report.as_json(name), indent=1) + "\n")
    if report.draw is None:
        return
    try:
        import matplotlib
        from cycler import cycler
        from matplotlib.figure import Figure
    except ImportError:
        print(f"No {name}.png: matplotlib is not installed.", file=sys.stderr)
        return
    with matplotlib.rc_context({"axes.prop_cycle": cycler(color=COLOURS)}):
        figure = Figure(figsize=(7, 4), layout="constrained")
        report.draw(figure)
        figure.savefig(out / f"{name}.png", dpi=150)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper",
        description="The experiments of the AutoTM paper, simulated.",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}"
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer networks and cases: in a minute"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("build/paper"), help="where files are written"
    )
    given = parser.parse_args(arguments)
    unknown = [name for name in given.names if name not in NAMES]
    if unknown:
        parser.error(f"no experiment {unknown[0]!r}: there are {', '.join(NAMES)}")
    run(given.names, given.quick, given.out)


if __name__ == "__main__":
    main()

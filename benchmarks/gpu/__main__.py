"""`python -m benchmarks.gpu`: every way to run a step, on the GPU that is here.

Where there is no GPU, or with `--target`, everything is compiled for a described card
instead: the same rows, with bytes of executables and modelled times, and no measured
ones. Both write `CARD-DATE.json` after each row, and `CARD-DATE.md` with the tables,
into `benchmarks/results`; what is in the file already is not done again.

    python -m benchmarks.gpu                       # nine minutes, the important first
    python -m benchmarks.gpu --full                # all of it, for hours
    python -m benchmarks.gpu --target h100-sxm     # without a GPU
    python -m benchmarks.gpu --small               # small workloads: is it all there?
    python -m benchmarks.gpu --show FILE           # the tables of a file
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import autotm_jax as autotm

from .card import Card, CardError, environment, present_card
from .cases import CASES, SMALL
from .driver import Box, work_off
from .results import (
    Results,
    ResultsError,
    open_results,
    read_results,
    write,
)
from .setting import setting_here
from .tables import markdown
from .tasks import tasks


MINUTES = 9.0
TARGET = "h100-sxm"
FOLDER = Path(__file__).parents[1] / "results"
CACHE = Path("build/gpu")


def run(
    options: argparse.Namespace, command: str = "python -m benchmarks.gpu"
) -> Results:
    """Does what the options say.

    **Arguments:**

    - `options`: of the command line.
    - `command`: the whole of it.

    **Returns:**

    What is known then.

    **Raises:**

    - `CardError`, `ResultsError`, `autotm_jax.TargetError`: if it cannot begin.
    """
    platform, card = _platform(options)
    target = None if platform else options.target or TARGET
    if target is not None:
        autotm.target(target)  # that there is such a one is known at once
        setting = setting_here("compiled", target, options.small)
    else:
        name = card.name if card else "CPU"
        setting = setting_here("measured", name, options.small)
    results = open_results(setting, options.results, options.out)
    results.command = command
    if options.retry:
        results.forget_failures()
    start = time.monotonic()

    def say(text: str) -> None:
        print(
            f"[{time.monotonic() - start:5.0f} s] {text}", file=sys.stderr, flush=True
        )

    say(f"results go to {results.path}")
    cases = SMALL if options.small else CASES
    chosen = {name: case for name, case in cases.items() if name in options.cases}
    of_run = {"small": options.small, "target": target, "platform": platform}
    wanted = [
        dataclasses.replace(task, **of_run)
        for task in tasks(chosen, platform is not None, options.full, options.small)
    ]
    seconds = float("inf") if options.full else 60 * options.minutes
    env = environment(platform, card, options.cache.absolute())
    if options.small:
        env.setdefault("AUTOTM_JAX_SOLVER_TIME_LIMIT", "2")
    work_off(wanted, results, env, Box(seconds), say)
    write(results.path.with_suffix(".md"), markdown(results))
    return results


def _platform(options: argparse.Namespace) -> tuple[str | None, Card | None]:
    """What is measured on, if anything is, and the card."""
    if options.target is not None:
        return None, None
    if options.platform == "cpu":
        return "cpu", None
    card = present_card()
    if card is None and options.platform == "gpu":
        raise CardError(
            "There is no GPU here that CUDA's driver knows. Run where there is one, or "
            f"compile for one that is not here with --target {TARGET}."
        )
    return (None if card is None else "gpu"), card


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description="Every way to run a training step, measured on the GPU that is "
        "here, or compiled for one that is not.",
    )
    known = [name for name in autotm.known_machines() if name != "cpu"]
    where = made.add_mutually_exclusive_group()
    where.add_argument(
        "--target",
        metavar="CARD",
        help=f"compile for this card and run nothing: {', '.join(known)}; without a "
        f"GPU, {TARGET} is the default",
    )
    where.add_argument(
        "--platform",
        choices=["gpu", "cpu"],
        help="measure on JAX's first device of it; on a CPU, only to try it out",
    )
    made.add_argument("--full", action="store_true", help="everything, with no limit")
    made.add_argument("--small", action="store_true", help="small workloads, few ways")
    made.add_argument(
        "--minutes",
        type=_minutes,
        default=MINUTES,
        help=f"for all of it ({MINUTES:g}); what would not end in time is listed",
    )
    made.add_argument(
        "--cases",
        nargs="+",
        choices=list(CASES),
        default=list(CASES),
        metavar="NAME",
        help=f"of {', '.join(CASES)}",
    )
    made.add_argument("--retry", action="store_true", help="do again what has failed")
    made.add_argument("--out", type=Path, metavar="FILE", help="the JSON file")
    made.add_argument(
        "--results", type=Path, default=FOLDER, help="the folder of files without --out"
    )
    made.add_argument(
        "--cache", type=Path, default=CACHE, help="the folder of compiled programs"
    )
    made.add_argument("--show", type=Path, metavar="FILE", help="print a file's tables")
    return made


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not minutes > 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time. Give minutes, more than 0, as in --minutes 9."
        )
    return minutes


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parser().parse_args(given)
    command = shlex.join(["python", "-m", "benchmarks.gpu", *given])
    try:
        if options.show is not None:
            results = read_results(options.show)
        else:
            results = run(options, command)
    except (CardError, ResultsError, autotm.TargetError) as error:
        print(f"benchmarks.gpu: {error}", file=sys.stderr)
        return 2
    print(markdown(results), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The command `autotm`: plans and reports of steps, this machine, the cache."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import jax

from ..errors import AutoTMError, InfeasibleBudget
from .here import describe as describe
from .here import show_cache, show_machine
from .named import Named as Named
from .named import UsageError as UsageError
from .named import find_step as find_step
from .steps import show_plan, show_profile, show_report, show_sweep


_EXIT = """\
exit status: 0 if done, 1 for an error that is told, 2 for a command line that is not
understood, 3 if no plan meets the budget, 130 if interrupted.
"""

_EXAMPLES = """\
examples:
  autotm plan my_module:workload --budget 6GiB --target h100-sxm
  autotm sweep my_module:workload --budgets 20GiB,10GiB,min --plot pareto.png
  autotm report my_module:workload --budget 6GiB --output report.html

my_module:workload is a function without arguments that returns a step and a tuple of
its arguments, of which arrays may be jax.ShapeDtypeStructs. Something with .step, .args
and .donate_argnums does, too.

"""

_STEP = (
    "something with .step and .args, a pair of a function and its arguments, or a "
    "function without arguments that returns one of these"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    **Arguments:**

    - `arguments`: those of the command line, by default the process's.

    **Returns:**

    The exit status: 0; 1 for an error that is told; 3 if no plan meets the budget; 130
    if interrupted. `argparse` exits with 2 itself.
    """
    options = _parser().parse_args(arguments)
    if getattr(options, "target", None) and "JAX_PLATFORMS" not in os.environ:
        # Nothing runs: JAX need not look for the devices that are here.
        jax.config.update("jax_platforms", "cpu")
    try:
        options.run(options)
    except (UsageError, AutoTMError) as error:
        print(f"autotm: {error}", file=sys.stderr)
        return 3 if isinstance(error, InfeasibleBudget) else 1
    except KeyboardInterrupt:
        print(
            "autotm: interrupted. What was measured is kept; the same command goes on "
            "from there.",
            file=sys.stderr,
        )
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="autotm",
        description=__doc__,
        epilog=_EXAMPLES + _EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    plan = commands.add_parser("plan", help="plan a step for a budget")
    _of_step(plan)
    _of_budget(plan)
    plan.add_argument(
        "--compile", action="store_true", help="and check what XLA makes of it"
    )
    plan.add_argument("--explain", action="store_true", help="say why it is as it is")
    plan.add_argument("--save", metavar="FILE", help="keep the plan, to be applied")
    plan.add_argument("--plot", metavar="FILE", help="draw memory and time over it")
    plan.add_argument("--trace", metavar="FILE", help="write a trace for Perfetto")
    plan.set_defaults(run=show_plan)
    several = commands.add_parser("sweep", help="time against memory")
    _of_step(several)
    several.add_argument(
        "--budgets", type=_list, required=True, metavar="BYTES,...", help=_BUDGET
    )
    several.add_argument("--plot", metavar="FILE", help="draw time against memory")
    several.set_defaults(run=show_sweep)
    report = commands.add_parser("report", help="write a page about a plan")
    _of_step(report)
    _of_budget(report)
    report.add_argument("--output", metavar="FILE", default="report.html")
    report.set_defaults(run=show_report)
    ahead = commands.add_parser("profile", help="time a step's segments ahead of time")
    ahead.add_argument("step", metavar="MODULE:NAME", help=_STEP)
    ahead.add_argument(
        "--all",
        action="store_true",
        help="every admissible placement of operands and results, up to a cap",
    )
    ahead.add_argument(
        "--equations", action="store_true", help="each kind of equation alone, as well"
    )
    ahead.set_defaults(run=show_profile)
    here = commands.add_parser("machine", help="measure the default device")
    here.set_defaults(run=show_machine)
    kept = commands.add_parser("cache", help="what is kept between processes")
    kept.add_argument("what", choices=("info", "clear"))
    kept.set_defaults(run=show_cache)
    for command in (plan, several, report, ahead, here, kept):
        command.add_argument(
            "--json", metavar="FILE", help="write the figures; - prints only them"
        )
    return parser


_BUDGET = 'bytes, a size as "6GiB", a fraction as 0.5 of what jax.jit takes, or "min"'


def _of_step(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("step", metavar="MODULE:NAME", help=_STEP)
    parser.add_argument(
        "--target", metavar="MACHINE", help="a described machine: h100-sxm, say"
    )
    parser.add_argument(
        "--host-budget", type=_budget, metavar="BYTES", help="pinned host memory"
    )
    parser.add_argument(
        "--keep-state", action="store_true", help="the state stays on the device"
    )


def _of_budget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--budget", type=_budget, metavar="BYTES", help=_BUDGET)


def _budget(text: str) -> int | float | str:
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _list(text: str) -> list[int | float | str]:
    return [_budget(part.strip()) for part in text.split(",")]

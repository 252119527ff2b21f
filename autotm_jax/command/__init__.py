"""The command `autotm`: plans and reports of steps, this machine, the cache."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence

import jax

from ..errors import AutoTMError, InfeasibleBudget
from .here import describe as describe
from .here import show_cache, show_machine
from .named import Named as Named
from .named import UsageError as UsageError
from .named import find_step as find_step
from .output import check_files, warned
from .steps import show_plan, show_profile, show_report, show_sweep


_EXIT = """\
exit status: 0 if done, 1 for an error that is told, 2 for a command line that is not
understood, 3 if no plan meets the budget, 130 if interrupted.
"""

_EXIT_OF_SWEEP = """\
exit status: 0 if done, also if some of the budgets cannot be met, 1 for an error that
is told, 2 for a command line that is not understood, 130 if interrupted.
"""

_EXIT_OF_REST = """\
exit status: 0 if done, 1 for an error that is told, 2 for a command line that is not
understood, 130 if interrupted.
"""

_EXAMPLES = """\
examples:
  autotm plan my_module:workload --budget 6GiB --target h100-sxm
  autotm sweep my_module:workload --budgets 20GiB,10GiB,min --plot pareto.png
  autotm report my_module:workload --budget 6GiB --output report.html

my_module:workload is a function without arguments that returns a step and a tuple of
its arguments, of which arrays may be jax.ShapeDtypeStructs. Something with .step, .args
and .donate_argnums does, too. autotm COMMAND --help has more examples.

"""

_EXAMPLES_OF = {
    "plan": """\
examples:
  autotm plan my_module:workload --budget 6GiB --target h100-sxm
  autotm plan my_module:workload --budget 0.5 --explain
  autotm plan my_module:workload --budget 6GiB --save plan.json --plot memory.png
  autotm plan my_module:workload --budget min --target h100-sxm --compile --json -

""",
    "sweep": """\
examples:
  autotm sweep my_module:workload --budgets 20GiB,10GiB,min --target h100-sxm
  autotm sweep my_module:workload --budgets 0.8,0.5,0.3 --plot pareto.png

""",
    "report": """\
examples:
  autotm report my_module:workload --budget 6GiB --output plan.html
  autotm report my_module:workload --budget min --target h100-sxm --keep-state

""",
    "profile": """\
examples:
  autotm profile my_module:workload
  autotm profile my_module:workload --all --json timings.json

What was timed is kept in the cache, where plans find it.

""",
    "machine": """\
examples:
  autotm machine
  autotm machine --json -

""",
    "cache": """\
examples:
  autotm cache info
  autotm cache clear
  AUTOTM_JAX_CACHE=/scratch/autotm autotm cache info --json -

""",
}

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
        with warnings.catch_warnings():
            warnings.showwarning = warned
            check_files(options)
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

    def command(name: str, what: str, exits: str = _EXIT) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=what,
            description=f"{what[0].upper()}{what[1:]}.",
            epilog=_EXAMPLES_OF[name] + exits,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    plan = command("plan", "plan a step for a budget")
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
    several = command("sweep", "plan a step for several budgets", _EXIT_OF_SWEEP)
    _of_step(several)
    several.add_argument(
        "--budgets", type=_list, required=True, metavar="BYTES,...", help=_BUDGET
    )
    several.add_argument("--plot", metavar="FILE", help="draw time against memory")
    several.set_defaults(run=show_sweep)
    report = command("report", "write a page about a plan")
    _of_step(report)
    _of_budget(report)
    report.add_argument("--output", metavar="FILE", default="report.html")
    report.set_defaults(run=show_report)
    ahead = command("profile", "time a step's segments ahead of time", _EXIT_OF_REST)
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
    here = command("machine", "measure the device that is here", _EXIT_OF_REST)
    here.set_defaults(run=show_machine)
    kept = command("cache", "show or remove what is kept", _EXIT_OF_REST)
    kept.add_argument("what", choices=("info", "clear"))
    kept.set_defaults(run=show_cache)
    for each in (plan, several, report, ahead, here, kept):
        each.add_argument(
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

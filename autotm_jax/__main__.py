"""The command `autotm`: what this machine is, timing ahead of time, the cache."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from .budget import format_bytes
from .calibration import calibrate, program_of
from .machine import PINNED_CAP, Machine, pinned_bytes
from .profile import cache, machine, measure_transfers, profile
from .trace import single_equations


class UsageError(Exception):
    """A sentence for the user of the command."""


@dataclasses.dataclass(frozen=True)
class Named:
    """A step that was named on the command line, with its arguments."""

    step: Any
    args: tuple[Any, ...]
    donate_argnums: tuple[int, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    **Arguments:**

    - `arguments`: those of the command line, by default the process's.

    **Returns:**

    The exit status: 0, 1 for an error that is told, 130 if interrupted.
    """
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except UsageError as error:
        print(f"autotm: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "autotm: interrupted. What was measured is kept; the same command goes on "
            "from there.",
            file=sys.stderr,
        )
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="autotm", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    here = commands.add_parser("machine", help="measure the default device")
    here.add_argument("--json", type=Path, help="where to write the figures")
    here.set_defaults(run=_machine)
    ahead = commands.add_parser("profile", help="time a step's segments ahead of time")
    ahead.add_argument(
        "step",
        metavar="MODULE:NAME",
        help="something with .step and .args, a pair of a function and its arguments, "
        "or a function without arguments that returns one of these",
    )
    ahead.add_argument(
        "--all",
        action="store_true",
        help="every admissible placement of operands and results, up to a cap",
    )
    ahead.add_argument(
        "--equations", action="store_true", help="each kind of equation alone, as well"
    )
    ahead.add_argument("--json", type=Path, help="where to write the timings")
    ahead.set_defaults(run=_profile)
    kept = commands.add_parser("cache", help="what is kept between processes")
    kept.add_argument("what", choices=("info", "clear"))
    kept.set_defaults(run=_cache)
    return parser


def _machine(options: argparse.Namespace) -> None:
    found = machine()
    device = jax.local_devices()[0]
    print(describe(found))
    kinds = ", ".join(m.kind for m in device.addressable_memories())
    print(f"memory kinds: {kinds}")
    if device.platform != "cpu":
        said = format_bytes(pinned_bytes())
        print(f"pinned host memory that JAX lends: {said} ({PINNED_CAP})")
    print(measure_transfers() if found.has_host_memory else "no host memory to move to")
    if options.json:
        options.json.write_text(json.dumps(dataclasses.asdict(found), indent=1) + "\n")


def describe(found: Machine) -> str:
    """A machine's figures, one per line, each with where it comes from.

    **Arguments:**

    - `found`: the machine.

    **Returns:**

    Text.
    """
    rows = [f"{found.name} ({found.platform}, {found.source})"]
    figures = {
        "device_bytes": format_bytes(found.device_bytes),
        "host_bytes": format_bytes(found.host_bytes),
        "device_bandwidth": f"{found.device_bandwidth / 1e9:,.1f} GB/s",
        "d2h_bandwidth": f"{found.d2h_bandwidth / 1e9:,.1f} GB/s",
        "h2d_bandwidth": f"{found.h2d_bandwidth / 1e9:,.1f} GB/s",
        "duplex_bandwidth": f"{found.duplex_bandwidth / 1e9:,.1f} GB/s",
        "transfer_latency": f"{found.transfer_latency * 1e6:,.1f} us",
        "launch_overhead": f"{found.launch_overhead * 1e6:,.1f} us",
        "flops": ", ".join(f"{k} {v / 1e12:,.2f}" for k, v in found.flops.items())
        + " TFLOP/s",
        "device_price": f"{found.device_price:,.2f} $/GiB",
        "host_price": f"{found.host_price:,.2f} $/GiB",
    }
    for name, text in figures.items():
        rows.append(f"  {name:<17} {text}  [{found.sources.get(name, found.source)}]")
    return "\n".join(rows)


def _profile(options: argparse.Namespace) -> None:
    named = find_step(options.step)
    program = program_of(named.step, named.args, named.donate_argnums)
    bodies = [s.body for s in program.segments]
    if options.equations:
        bodies += single_equations(program)
    found = profile(program, bodies, all_configurations=options.all)
    print(found)
    _, whole = calibrate(named.step, named.args, named.donate_argnums)
    print(whole)
    if options.json:
        rows = [
            {"kind": kind, "placement": str(placed), **dataclasses.asdict(measurement)}
            for (kind, placed), measurement in found.measurements.items()
        ]
        results = {
            "device": found.device,
            "calibration": str(whole),
            "timings": rows,
            "beyond the cap": found.pruned,
        }
        options.json.write_text(json.dumps(results, indent=1) + "\n")


def find_step(name: str) -> Named:
    """The step that `MODULE:NAME` stands for.

    **Arguments:**

    - `name`: of something with `.step` and `.args` (and `.donate_argnums`, if it has
        any), of a pair of a function and its arguments, or of a function without
        arguments that returns one of these.

    **Returns:**

    A `Named`.

    **Raises:**

    - `UsageError`: if it is none of these.
    """
    module, colon, attribute = name.partition(":")
    if not colon or not attribute:
        raise UsageError(f"{name!r} names no step. Give MODULE:NAME.")
    if os.getcwd() not in sys.path:  # as `python -m` does
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{name!r} was not found ({error}).") from error
    if callable(found) and not hasattr(found, "step"):
        try:
            inspect.signature(found).bind()
        except TypeError as error:
            raise UsageError(
                f"{name!r} could not be called without arguments ({error})."
            ) from error
        found = found()
    if hasattr(found, "step") and hasattr(found, "args"):
        donated = tuple(getattr(found, "donate_argnums", ()))
        return Named(found.step, tuple(found.args), donated)
    if isinstance(found, tuple) and len(found) == 2 and callable(found[0]):
        return Named(found[0], tuple(found[1]), ())
    raise UsageError(
        f"{name!r} is a {type(found).__name__}. Name something with .step and .args, "
        "a pair of a function and its arguments, or a function that returns one."
    )


def _cache(options: argparse.Namespace) -> None:
    if options.what == "info":
        print(cache.info())
        return
    directory = cache.cache_directory()
    print(f"{cache.clear()} entries removed from {directory}")


if __name__ == "__main__":
    sys.exit(main())

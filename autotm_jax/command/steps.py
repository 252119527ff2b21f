"""`autotm plan`, `sweep`, `report` and `profile`: what is done with a named step."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from ..calibration import calibrate, program_of
from ..jit import jit
from ..plan import Plan
from ..profile import profile
from ..sweep import Sweep, sweep
from ..trace import single_equations
from .named import Named, find_step
from .output import busy, say, write_json


def show_plan(options: argparse.Namespace) -> None:
    """Prints the plan of a step, and what else was asked for."""
    with busy("importing"):
        named = find_step(options.step)
    step = jit(named.step, budget=options.budget, **_options(named, options))
    with busy("planning"):
        plan = step.plan(*named.args)
    if options.compile:
        with busy("compiling"):
            plan = step.verify(*named.args)
    if options.save:
        plan.save(options.save)
    with busy("drawing"):
        if options.plot:
            plan.plot(options.plot)
        if options.trace:
            plan.save_trace(options.trace)
    with busy("explaining"):
        said = plan.explain() if options.explain else str(plan)
    say(said, options.json)
    if options.json:
        write_json(figures(plan), options.json)


def show_report(options: argparse.Namespace) -> None:
    """Writes the page about a plan."""
    with busy("importing"):
        named = find_step(options.step)
    step = jit(named.step, budget=options.budget, **_options(named, options))
    with busy("planning"):
        plan = step.plan(*named.args)
    with busy("writing"):
        plan.report(options.output)
    say(f"The report is in {options.output}.", options.json)
    if options.json:
        write_json(figures(plan), options.json)


def show_sweep(options: argparse.Namespace) -> None:
    """Prints time against memory."""
    with busy("importing"):
        named = find_step(options.step)
    budgets = options.budgets
    with busy("planning", len(budgets) + 1) as begin:
        known = _options(named, options)
        found = sweep(named.step, named.args, budgets, progress=begin, **known)
    if options.plot:
        found.plot(options.plot)
    say(str(found), options.json)
    if options.json:
        write_json(_swept(found), options.json)


def show_profile(options: argparse.Namespace) -> None:
    """Times the segments of a step, and prints how long they take."""
    with busy("importing"):
        named = find_step(options.step)
    with busy("tracing"):
        program = program_of(named.step, named.args, named.donate_argnums)
    bodies = [s.body for s in program.segments]
    if options.equations:
        bodies += single_equations(program)
    found = profile(program, bodies, all_configurations=options.all)
    with busy("timing the step"):
        _, whole = calibrate(named.step, named.args, named.donate_argnums)
    say(f"{found}\n{whole}", options.json)
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
        write_json(results, options.json)


def figures(plan: Plan) -> dict[str, Any]:
    """What a plan says, for JSON: bytes and seconds, predicted unless said otherwise.

    **Arguments:**

    - `plan`: the plan.

    **Returns:**

    A dictionary of plain values.
    """
    realised = plan.realised
    return {
        "budget_bytes": plan.budget,
        "status": plan.status.value,
        "note": plan.note,
        "machine": None if plan.machine is None else plan.machine.name,
        "device_bytes": plan.device_bytes,
        "host_bytes": plan.host_bytes,
        "seconds": plan.seconds,
        "simulated_seconds": plan.simulated_seconds,
        "seconds_without_a_limit": plan.unconstrained_seconds,
        "moved_bytes": plan.moved_bytes,
        "recomputed_bytes": plan.recomputed_bytes,
        "copies": plan.copies,
        "state_leaves_on_host": len(plan.on_host),
        "gap": plan.gap,
        "solve_seconds": plan.solve_seconds,
        "compiled": None if realised is None else dataclasses.asdict(realised),
    }


def _swept(found: Sweep) -> dict[str, Any]:
    def rows(points: Any) -> list[dict[str, Any]]:
        return [
            {
                "name": p.name,
                "device_bytes": p.device_bytes,
                "seconds": p.seconds,
                "reason": p.reason,
            }
            for p in points
        ]

    return {"budgets": rows(found.points), "baselines": rows(found.baselines)}


def _options(named: Named, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "target": options.target,
        "host_budget": options.host_budget,
        "move_state": not options.keep_state,
        "donate_argnums": named.donate_argnums,
    }

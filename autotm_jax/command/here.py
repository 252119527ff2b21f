"""`autotm machine` and `autotm cache`: what is here."""

from __future__ import annotations

import argparse
import dataclasses

import jax

from ..budget import format_bytes
from ..machine import PINNED_CAP, Machine, pinned_bytes
from ..profile import cache, machine, measure_transfers
from .output import busy, say, write_json


def show_machine(options: argparse.Namespace) -> None:
    """Prints the default device, every figure with its source."""
    with busy("measuring"):
        found = machine()
        copies = measure_transfers() if found.has_host_memory else None
    device = jax.local_devices()[0]
    kinds = ", ".join(m.kind for m in device.addressable_memories())
    lines = [describe(found), f"memory kinds: {kinds}"]
    if device.platform != "cpu":
        said = format_bytes(pinned_bytes())
        lines.append(f"pinned host memory that JAX lends: {said} ({PINNED_CAP})")
    lines.append(str(copies or "no host memory to move to"))
    say("\n".join(lines), options.json)
    if options.json:
        write_json(dataclasses.asdict(found), options.json)


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


def show_cache(options: argparse.Namespace) -> None:
    """Prints what the cache holds, or empties it."""
    directory = str(cache.cache_directory())
    if options.what == "clear":
        count = cache.clear()
        say(f"{count} entries removed from {directory}", options.json)
        found = {"directory": directory, "removed": count}
    else:
        say(str(cache.info()), options.json)
        found = {**dataclasses.asdict(cache.info()), "directory": directory}
    if options.json:
        write_json(found, options.json)

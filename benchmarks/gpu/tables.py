"""What was found, as tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from autotm_jax.command.here import describe

from ..paper.report import Cell, Table
from . import claims, speeds
from .cases import CASES
from .results import Results
from .row import Row


MIB = 2**20


def markdown(results: Results) -> str:
    """All of it: what ran where, the claims, and every row."""
    parts = [_head(results), claims.table(results).markdown()]
    for (case, batch), rows in _grouped(results).items():
        unit = CASES[case].unit
        parts.append(steps(f"{case}, {batch} {unit}", rows, results).markdown())
        parts.append(predictions(f"{case}, {batch} {unit}", rows, results).markdown())
        parts += [f"- {row.way}: {said}" for row in rows for said in _said(row)]
    if results.largest:
        parts.append(_largest(results).markdown())
    parts += _machine(results)
    if results.failed:
        lines = [f"- {task}: {reason}" for task, reason in results.failed.items()]
        parts.append("\n".join(["**What failed as a whole**", "", *lines]))
    if results.left:
        lines = [f"- {task}" for task in results.left]
        parts.append("\n".join(["**What was not done**", "", *lines]))
    return _joined(parts)


def steps(title: str, rows: Sequence[Row], results: Results) -> Table:
    """Memory and time of a workload, a line for each way to run it.

    **Arguments:**

    - `title`: what it is of.
    - `rows`: of one workload at one batch.
    - `results`: of which they are.
    """
    return Table(
        f"{title}: {_how(results)}",
        (
            "way",
            "budget MiB",
            "device MiB",
            "host MiB",
            "measured ms",
            "spread %",
            "over plain %",
            "modelled ms",
            "modelled over plain %",
            "status",
        ),
        tuple(
            (
                row.way,
                _mebibytes(row.budget_bytes),
                _mebibytes(row.device_bytes),
                _mebibytes(row.host_bytes),
                _scaled(row.seconds, 1e3),
                _scaled(row.spread, 100),
                _over(row.of_plain),
                _scaled(row.modelled_seconds, 1e3),
                _over(_modelled_of_plain(row, rows)),
                _status(row),
            )
            for row in rows
        ),
    )


def predictions(title: str, rows: Sequence[Row], results: Results) -> Table:
    """How far predictions are off, and what a profile says, of the same rows."""
    return Table(
        f"{title}: predicted and found, {_how(results)}",
        (
            "way",
            "predicted MiB",
            "compiled MiB",
            "peak in use MiB",
            "off %",
            "modelled ms",
            "simulated ms",
            "measured ms",
            "model off %",
            "simulator off %",
            "kernels ms",
            "copies ms",
            "stalled ms",
            "idle ms",
            "loss off",
            "plan s",
            "compile s",
        ),
        tuple(
            (
                row.way,
                _mebibytes(row.predicted_bytes),
                _mebibytes(row.device_bytes),
                _mebibytes(row.peak_bytes_in_use),
                _scaled(row.bytes_error, 100),
                _scaled(row.modelled_seconds, 1e3),
                _scaled(row.simulated_seconds, 1e3),
                _scaled(row.seconds, 1e3),
                _scaled(row.model_error, 100),
                _scaled(row.simulator_error, 100),
                _scaled(row.kernel_seconds, 1e3),
                _scaled(row.copy_seconds, 1e3),
                _scaled(row.stall_seconds, 1e3),
                _scaled(row.idle_seconds, 1e3),
                row.loss_difference,
                row.plan_seconds,
                row.compile_seconds,
            )
            for row in rows
        ),
    )


def _head(results: Results) -> str:
    setting = results.setting
    if setting.form == "measured":
        what = f"Measured on {setting.card}"
    else:
        what = (
            f"Compiled for {setting.card}, which is not here: nothing was run. Bytes "
            "are those of executables, times are modelled, and cells of measured "
            "figures are empty"
        )
    small = " The workloads are small ones: only to be tried." * setting.small
    return (
        f"{what}. {results.date}, JAX {setting.jax}, jaxlib {setting.jaxlib}, commit "
        f"{setting.commit}: `{results.command}`.{small}"
    )


def _how(results: Results) -> str:
    card = results.setting.card
    if results.setting.form == "measured":
        return f"measured on {card}"
    return f"compiled for {card}, times modelled"


def _grouped(results: Results) -> dict[tuple[str, int], list[Row]]:
    out: dict[tuple[str, int], list[Row]] = {}
    for row in results.rows.values():
        out.setdefault((row.case, row.batch), []).append(row)
    order = list(CASES)
    return dict(sorted(out.items(), key=lambda one: (order.index(one[0][0]), one[0])))


def _modelled_of_plain(row: Row, rows: Sequence[Row]) -> float | None:
    plain = row.unconstrained_seconds
    if plain is None:
        plain = next((r.modelled_seconds for r in rows if r.way == "jax.jit"), None)
    if row.modelled_seconds is None or not plain:
        return None
    return row.modelled_seconds / plain


def _status(row: Row) -> str:
    if row.error:
        return "no plan" if row.error.startswith("InfeasibleBudget") else "failed"
    return row.status or "as it is"


def _said(row: Row) -> list[str]:
    return [*([row.error] if row.error else []), *row.notes]


def _largest(results: Results) -> Table:
    return Table(
        f"Largest batches that fit, {_how(results)}",
        ("workload", "way", "batch", "limit MiB", "tried, with MiB"),
        tuple(
            (
                entry["case"],
                entry["way"],
                entry["batch"],
                _mebibytes(entry["limit"]),
                ", ".join(
                    f"{batch}: {'too large' if n is None else f'{n // MIB:,}'}"
                    for batch, n in entry["tried"].items()
                ),
            )
            for entry in results.largest
        ),
    )


def _machine(results: Results) -> list[str]:
    if results.machine is None:
        return []
    said = describe(speeds.from_json(results.machine))
    parts = [f"```text\n{said}\n```"]
    if results.products:
        parts.append(
            Table(
                "Products of square matrices, measured",
                ("dtype", "precision", "side", "TFLOP/s", "error"),
                tuple(
                    (
                        entry["dtype"],
                        entry["precision"],
                        entry["side"],
                        _scaled(entry.get("flops"), 1e-12),
                        entry.get("error", "-"),
                    )
                    for entry in results.products
                ),
            ).markdown()
        )
    if results.copies:
        parts.append(
            Table(
                "Copies between device and host, measured",
                ("direction", "KiB", "us", "spread %", "GB/s"),
                tuple(
                    (
                        entry["direction"],
                        entry["bytes"] // 1024,
                        entry["seconds"] * 1e6,
                        100 * entry["spread"],
                        entry["bandwidth"] / 1e9,
                    )
                    for entry in results.copies
                ),
            ).markdown()
        )
    return parts


def _joined(parts: Sequence[str]) -> str:
    """Parts below each other; what follows an item of a list, if it is one, as well."""
    out = ""
    for part, before in zip(parts, ["", *parts], strict=False):
        both = part.startswith("- ") and before.startswith("- ")
        out += ("" if not out else "\n" if both else "\n\n") + part
    return out + "\n"


def _mebibytes(nbytes: int | None) -> Cell:
    return None if nbytes is None else round(nbytes / MIB)


def _scaled(value: float | None, by: float) -> Cell:
    return None if value is None else value * by


def _over(ratio: float | None) -> Cell:
    return None if ratio is None else 100 * (ratio - 1)

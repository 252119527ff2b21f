"""Arguments in the host memory of a device that is not here.

JAX knows no memory kinds of such a device: it traces and lowers every argument as one
in device memory. Emitted for it, a step puts those on the host that are meant to be
there already; told where they are, XLA has nothing to copy.
"""

from __future__ import annotations

from typing import Any

from jaxlib.mlir import ir


_PLACED = "annotate_device_placement"
_KIND = "mhlo.memory_kind"
_HOST = "pinned_host"


def mark_on_host(lowered: Any, count: int) -> None:
    """Says of arguments that the step puts on the host that they are there.

    **Arguments:**

    - `lowered`: a `jax.stages.Lowered`, before it is compiled; it is changed.
    - `count`: how many arguments that should be.

    **Raises:**

    - `RuntimeError`: if there are others.
    """
    module = lowered.compiler_ir("stablehlo")
    with module.context:
        main = _main(module)
        operations = main.regions[0].blocks[0].operations
        put = [o.operands[0] for o in operations if _puts_on_host(o)]
        given = [v for v in put if isinstance(v.owner, ir.Block)]
        numbers = {ir.BlockArgument(v).arg_number for v in given}
        if len(numbers) != count:
            raise RuntimeError(
                f"{len(numbers)} arguments of the lowered step are on the host, where "
                f"{count} were planned to be"
            )
        attributes = list(main.attributes["arg_attrs"])
        for number in numbers:
            known = {a.name: a.attr for a in attributes[number]}
            known[_KIND] = ir.StringAttr.get(_HOST)
            attributes[number] = ir.DictAttr.get(known)
        main.attributes["arg_attrs"] = ir.ArrayAttr.get(attributes)


def _main(module: Any) -> Any:
    for operation in module.body.operations:
        if "sym_name" in operation.attributes:
            if operation.attributes["sym_name"].value == "main":
                return operation
    raise RuntimeError("the lowered step has no function called main")


def _puts_on_host(operation: Any) -> bool:
    return (
        operation.operation.name == "stablehlo.custom_call"
        and operation.attributes["call_target_name"].value == _PLACED
        and _HOST in str(operation.attributes["mhlo.frontend_attributes"])
    )

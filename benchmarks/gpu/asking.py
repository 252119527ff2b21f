"""What CUDA's driver says of the first card, where there is no `nvidia-smi`.

`python -m benchmarks.gpu.asking` prints its name and the MiB of its memory, in all and
free, as `nvidia-smi` would. It is a process of its own, as asking takes a little of the
card for as long as that lives.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any


_MIB = 2**20


def ask(cuda: Any) -> str:
    """Asks the driver.

    **Arguments:**

    - `cuda`: its library.

    **Returns:**

    A line.

    **Raises:**

    - `RuntimeError`: if there is no card, or a call fails.
    """

    def call(name: str, *arguments: Any) -> None:
        code = getattr(cuda, name)(*arguments)
        if code:
            raise RuntimeError(f"{name} of CUDA's driver returned {code}.")

    device, context = ctypes.c_int(), ctypes.c_void_p()
    name = ctypes.create_string_buffer(256)
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDeviceGetName", name, len(name), device)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call("cuCtxSetCurrent", context)
    call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    return f"{name.value.decode()}, {total.value // _MIB}, {free.value // _MIB}"


if __name__ == "__main__":
    try:
        print(ask(ctypes.CDLL("libcuda.so.1")))
    except (OSError, RuntimeError) as error:  # no driver, or no card
        sys.exit(str(error))

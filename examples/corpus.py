"""A byte-level corpus that every Python brings along: its standard library's sources.

!!! Example

    ```python
    from examples import corpus

    text = corpus.load()
    batches = corpus.batches(text, batch=16, length=1025, seed=0)
    tokens = next(batches)  # int32[16, 1025], of a vocabulary of corpus.VOCABULARY
    ```
"""

import pathlib
import sysconfig
from collections.abc import Iterator

import numpy as np


VOCABULARY = 256
"""How many tokens there are: one for each byte."""


def load() -> np.ndarray:
    """Reads the standard library's top-level modules, in the order of their names.

    **Returns:**

    A few million bytes as one array of `uint8`. They differ from one version of Python
    to the next.
    """
    root = pathlib.Path(sysconfig.get_path("stdlib"))
    sources = [path.read_bytes() for path in sorted(root.glob("*.py"))]
    return np.frombuffer(b"".join(sources), np.uint8)


def batches(
    corpus: np.ndarray, batch: int, length: int, seed: int
) -> Iterator[np.ndarray]:
    """Cuts random windows out of a corpus, for ever.

    **Arguments:**

    - `corpus`: an array of bytes, as from [`load`][].
    - `batch`: how many windows to cut at a time.
    - `length`: of each window. A model that predicts the next token from `n` others
        needs `n + 1`.
    - `seed`: the same seed cuts the same windows.

    **Returns:**

    An iterator over arrays of `int32` and shape `(batch, length)`.
    """
    windows = np.lib.stride_tricks.sliding_window_view(corpus, length)
    generator = np.random.default_rng(seed)
    while True:
        starts = generator.integers(len(windows), size=batch)
        yield windows[starts].astype(np.int32)

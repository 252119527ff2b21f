"""`python -m autotm_jax`: the command `autotm`."""

import sys

from .command import main


if __name__ == "__main__":
    sys.exit(main())

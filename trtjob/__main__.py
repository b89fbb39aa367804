"""The command `trtjob`, which `python -m trtjob` is too."""

import gc
import sys

from trtjob.garbage import lasting

_NEW_OBJECTS = 20_000  # before garbage is looked for, instead of Python's 700: commands import more while they run


def main() -> int:
    """Run the command line of this process. Returns the exit code."""
    with lasting():
        from trtjob.cli.app import main

    gc.set_threshold(_NEW_OBJECTS)
    return main()


if __name__ == "__main__":
    sys.exit(main())

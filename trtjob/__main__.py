"""The command `trtjob`, which `python -m trtjob` is too."""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from trtjob.child_environment import NO_PLUGINS
from trtjob.garbage import lasting
from trtjob.standard_files import have_standard_files

_NEW_OBJECTS = 20_000  # before garbage is looked for, instead of Python's 700: commands import more while they run


def main() -> int:
    """Run the command line of this process. Returns the exit code."""
    have_standard_files()
    os.environ |= NO_PLUGINS
    with lasting(), _ended_by_interrupt():
        from trtjob.cli.app import main

    gc.set_threshold(_NEW_OBJECTS)
    return main()


@contextmanager
def _ended_by_interrupt() -> Iterator[None]:
    """Let Ctrl-C end this process at once and without a word: nothing has begun. Unless it is ignored here."""
    if (before := signal.getsignal(signal.SIGINT)) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    sys.exit(main())

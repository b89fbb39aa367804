"""Standard input, output and error, any of which a program may be started without."""

import os
import sys


def have_standard_files() -> None:
    """Have each that is closed lead to /dev/null.

    The next file that is opened would be it otherwise, a lock or a socket of ours, and take what libraries say.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            os.dup2(opened, number)  # inherited by children
            if opened != number:
                os.close(opened)
            else:
                os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", errors="replace", closefd=False))  # noqa: SIM115

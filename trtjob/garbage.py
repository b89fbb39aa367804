"""Python's search for garbage, where it finds none: what a process imports stays until it ends.

To look through it again and again takes a quarter of what a short command takes.
"""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting() -> Iterator[None]:
    """Never look for garbage among what is made in this block, nor among what is left when the process ends."""
    with unsought():
        try:
            yield
        finally:
            gc.freeze()
            atexit.register(gc.freeze)


@contextmanager
def unsought() -> Iterator[None]:
    """Look for no garbage in this block, where a library is imported that makes much and drops nothing."""
    was_sought = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_sought:
            gc.enable()

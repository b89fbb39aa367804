"""What C libraries print on standard error: taken from there, since only we know which image or model it is about.

libtiff tells of damage in no other way: OpenCV returns the rows that could be read, and black ones for the rest.
"""

import fcntl
import os
import re
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

# A file may have a line for each of a hundred million rows. The last ones are kept: remarks on the header come first.
_MOST_BYTES = 65_536
_READ_BYTES = 65_536
_PIPE_BYTES = 1 << 20  # of a library that holds Python's lock while it prints, which keeps the thread from reading


class _Pipe:
    """A pipe that takes any number of bytes and keeps the last of them."""

    def __init__(self) -> None:
        self._out, self.into = os.pipe()
        with suppress(OSError):  # where that is more than the system allows
            fcntl.fcntl(self.into, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        os.set_blocking(self._out, False)
        self._kept = bytearray()
        self._lock = threading.Lock()  # of all that is read: so `take` knows that nothing is on its way
        threading.Thread(target=self._drain, daemon=True, name="library-output").start()

    def _drain(self) -> None:
        """Keep room in the pipe: a library that waits for it would wait for ever."""
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        while True:
            poll.poll()
            self._read()

    def _read(self) -> None:
        with self._lock:
            while True:
                try:
                    data = os.read(self._out, _READ_BYTES)
                except BlockingIOError:
                    return
                self._kept += data
                del self._kept[:-_MOST_BYTES]

    def take(self) -> str:
        """Return what was written since the last time."""
        self._read()
        with self._lock:
            text = self._kept.decode("utf-8", "replace")
            self._kept.clear()
        return text


_in_use = threading.RLock()  # standard error is the process's, not a thread's
_LONGEST_REMARK = 400
_PREFIX = re.compile(r"^\[.*?\] (?:global \S+ )?")  # OpenCV's: level, thread, time, file and line


@cache
def _pipe() -> _Pipe:
    return _Pipe()


@contextmanager
def library_output() -> Iterator[list[str]]:
    """Yield a list that holds, after the block, the lines that were written to file descriptor 2 in it.

    One thread at a time. What other threads write there meanwhile is among the lines.
    """
    lines: list[str] = []
    with _in_use:
        pipe = _pipe()
        shown = os.dup(2)
        os.dup2(pipe.into, 2)
        try:
            yield lines
        finally:
            os.dup2(shown, 2)
            os.close(shown)
            lines += filter(None, map(str.strip, pipe.take().split("\n")))


def as_remark(lines: list[str]) -> str:
    """Return lines as a log has them: one, of bounded length."""
    text = "; ".join(_PREFIX.sub("", line) for line in lines)
    return text if len(text) <= _LONGEST_REMARK else f"{text[:_LONGEST_REMARK]} ..."

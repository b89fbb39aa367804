"""A fork of this process in place of a new Python, for a module whose imports are this one's too."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

_ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3, "MALLOC_ARENA_MAX": -8}  # malloc.h
_ARGUMENTS = slice(45, 47)  # in /proc/self/stat, behind the program's name: where they begin and end, proc(5)


class OwnFork:
    """A child that runs the `main` of a module; as much of `subprocess.Popen` as is asked of it."""

    def __init__(self, module: str, stdin: int, variables: Mapping[str, str]) -> None:
        """Fork, while there is one thread. The child has no files but this stdin and our standard error.

        module: it is imported; variables: what the environment of a new process would say to the allocator. Raises
        OSError.
        """
        self._code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _be(module, stdin, variables)

    def poll(self) -> int | None:
        """Return its exit code as Python has it, None while it lives."""
        if self._code is None:
            gone, status = os.waitpid(self.pid, os.WNOHANG)
            if gone:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def wait(self, timeout_s: float) -> int:
        """Return its exit code once it has ended. Raises subprocess.TimeoutExpired."""
        deadline = time.monotonic() + timeout_s
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("", timeout_s)
            time.sleep(0.001)
        return code

    def kill(self) -> None:
        """End it, if it lives."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def _be(module: str, stdin: int, variables: Mapping[str, str]) -> NoReturn:
    """Be the child to its end, which does nothing of what our own end has to do."""
    code = 1
    try:
        os.setpgid(0, 0)
        os.dup2(stdin, 0)
        os.dup2(2, 1)
        os.closerange(3, 1 + max(int(open_file.name) for open_file in Path("/proc/self/fd").iterdir()))
        _be_called(module)
        _allocate_as(variables)
        code = sys.modules[module].main()
    except BaseException:  # noqa: BLE001 - as Python does it
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _be_called(module: str) -> None:
    """Have `ps` show the module instead of the arguments of the process that this is a fork of."""
    with suppress(OSError):
        begin, end = map(int, Path("/proc/self/stat").read_text().rpartition(")")[2].split()[_ARGUMENTS])
        size = end - begin
        ctypes.memmove(begin, module.encode()[: size - 1].ljust(size, b"\0"), size)


def _allocate_as(variables: Mapping[str, str]) -> None:
    """Set what the C library reads of these when a program begins."""
    with suppress(AttributeError):  # glibc's alone
        mallopt = ctypes.CDLL(None).mallopt
        for name, parameter in _ALLOCATOR.items():
            if name in variables:
                mallopt(parameter, int(variables[name]))

"""Image processes are started and ended. Light itself: it runs before all else."""

import os
import tempfile
from contextlib import ExitStack
from importlib import import_module
from threading import Lock
from typing import NamedTuple

from trtjob.child_environment import KEEPS_MEMORY
from trtjob.garbage import unsought
from trtjob.worker.pipeline.fork_server import Forked, ForkServer

_ENVIRONMENT = {  # each image process has one thread of its own
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    **KEEPS_MEMORY,
}


class Started(NamedTuple):
    """An image process, and our ends of its pipes: what it is told, and what it answers."""

    process: Forked
    commands: int
    answers: int


class PrestartedProcesses:
    """Image processes that begin while the engine is still being loaded."""

    def __init__(self, count: int) -> None:
        """Start so many, or none where they cannot be: who needs them says so. Raises OSError for want of memory."""
        self.fd = shared_memory()
        self.started: list[Started] = []
        try:
            for _ in range(count):
                self.started.append(start_process(self.fd))
        except OSError:
            while self.started:
                end_process(self.started.pop())  # they have what others need, to say anything at all


def shared_memory() -> int:
    """Return a file of no size yet, in memory where there is such a thing; a child can inherit it."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("trtjob-ring")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def start_process(fd: int) -> Started:
    """Start an image process, which waits for its config. fd: the memory of its ring. Raises OSError."""
    with ExitStack() as ours, ExitStack() as theirs:
        commands, to_it = os.pipe()
        theirs.callback(os.close, commands)
        ours.callback(os.close, to_it)
        answers, from_it = os.pipe()
        ours.callback(os.close, answers)
        theirs.callback(os.close, from_it)
        process = _fork_server().fork((commands, from_it, fd))
        ours.pop_all()
    return Started(process, to_it, answers)


def end_process(started: Started) -> str:
    """End an image process. Returns how it ended."""
    os.close(started.commands)
    os.close(started.answers)
    return started.process.end()


_MODULE = "trtjob.worker.pipeline.image_process"
_server: ForkServer | None = None
_lock = Lock()


def fork_ahead() -> None:
    """Import what image processes need, and have their fork server be a fork of this process, which has one thread and
    knows nothing yet. Raises OSError.
    """
    global _server
    before = dict(os.environ)
    os.environ.update(_ENVIRONMENT)
    with unsought():
        import_module(_MODULE)  # NumPy starts no threads so, which no fork would have
    os.environ.clear()
    os.environ.update(before)
    _server = ForkServer(_MODULE, _ENVIRONMENT, is_own_fork=True)


def _fork_server() -> ForkServer:
    """Return this process's fork server, a new one where it is gone or would not be the same any more."""
    global _server
    with _lock:
        if _server is None or not _server.serves:
            if _server is not None:
                _server.retire()
                _server = None
            _server = ForkServer(_MODULE, _ENVIRONMENT)
        return _server

"""Image processes are started, most of which is Python's imports, and ended. Light itself: it runs before all else."""

import os
import signal
import subprocess
import tempfile
from typing import NamedTuple

from trtjob.child_environment import environment, python

_END_S = 2.0
# Each image process has one thread of its own. And it keeps the memory of one photograph for the next: given back to
# the kernel each time, as glibc would, it costs as many page faults as it has pages, and half as long as decoding.
_KEPT_BYTES = 64 << 20
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),  # the most that glibc takes
    "MALLOC_TRIM_THRESHOLD_": str(_KEPT_BYTES),
}


class Started(NamedTuple):
    """An image process, whose standard input takes commands, and the end of the pipe where its answers come out."""

    process: subprocess.Popen[bytes]
    answers: int


class PrestartedProcesses:
    """Image processes that begin, most of which is Python's imports, while the engine is still being loaded."""

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
    # Not its standard output, where anything might print something.
    answers, theirs = os.pipe()
    try:
        process = subprocess.Popen(
            python("-m", "trtjob.worker.pipeline.image_process", str(theirs)),
            stdin=subprocess.PIPE,
            stdout=2,
            bufsize=0,
            pass_fds=(fd, theirs),
            process_group=0,  # Ctrl-C is for who started the engine process
            env=environment(_ENVIRONMENT, buckets=True),
        )
    except BaseException:
        os.close(answers)
        raise
    finally:
        os.close(theirs)
    return Started(process, answers)


def end_process(started: Started) -> str:
    """End an image process. Returns how it ended."""
    process = started.process
    process.kill()
    assert process.stdin is not None
    process.stdin.close()
    os.close(started.answers)
    try:
        code = process.wait(_END_S)
    except subprocess.TimeoutExpired:  # it waits for a file in the kernel; its death will find it there
        return "it did not end"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"

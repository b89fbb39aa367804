"""Image processes are started, most of which is Python's imports, and ended. Light itself: it runs before all else."""

import os
import signal
import subprocess
import sys
import tempfile

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


class Recruits:
    """Image processes that begin, most of which is Python's imports, while the engine is still being loaded."""

    def __init__(self, count: int) -> None:
        self.fd = shared_memory()
        self.processes = [start_process(self.fd) for _ in range(count)]


def shared_memory() -> int:
    """Return a file of no size yet, in memory where there is such a thing; a child can inherit it."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("trtjob-ring")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def start_process(fd: int) -> subprocess.Popen[bytes]:
    """Start an image process, which waits for its order. fd: the memory of its ring."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "trtjob.worker.pipeline.image_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        pass_fds=(fd,),
        process_group=0,  # Ctrl-C is for who started the engine process
        env=os.environ | _ENVIRONMENT,
    )


def end_process(process: subprocess.Popen[bytes]) -> str:
    """End an image process. Returns how it ended."""
    process.kill()
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        stream.close()
    try:
        code = process.wait(_END_S)
    except subprocess.TimeoutExpired:  # it waits for a file in the kernel; its death will find it there
        return "it did not end"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"

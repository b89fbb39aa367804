"""How much memory this process may take: what the machine has, or less where a container's limit says so."""

import ctypes
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trtjob.cpus import PROC, cgroup_folders

_LIMITS = ("memory.max", "memory.limit_in_bytes")  # of a control group, version 2 and 1


def usable_bytes(proc: Path = PROC) -> int:
    """Return the least of the machine's memory and of the limits of the process's control groups."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = map(_limit, cgroup_folders(proc, "memory"))
    return min([machine, *(limit for limit in limits if limit is not None)])


def trim_heap() -> None:
    """Hand back to the system what the C library keeps of freed memory, where it can."""
    with suppress(AttributeError):  # glibc's alone
        ctypes.CDLL(None).malloc_trim(0)


def _limit(folder: Path) -> int | None:
    for name in _LIMITS:
        try:
            return int((folder / name).read_text())
        except (OSError, ValueError):  # there is no such file, or it says "max"
            continue
    return None


@contextmanager
def bounded_allocations(most_bytes: int) -> Iterator[None]:
    """Let this process allocate no more than so many bytes in the block: what asks for more gets a MemoryError.

    It counts for all threads, and what was bounded before stays so.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    data_pages = int(Path("/proc/self/statm").read_text().split()[5])
    bound = data_pages * os.sysconf("SC_PAGE_SIZE") + most_bytes
    bounds = [bound, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))

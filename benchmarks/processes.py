"""What a worker process and its image processes take together, as Linux tells it (proc(5))."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Fields of /proc/PID/stat behind the name.
_PARENT, _USER, _SYSTEM = 1, 11, 12


def tree_mb(pid: int) -> float:
    """Return the memory of a process and its descendants, of the latter without what they share with others."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    for child, _ in _descendants(pid):
        with suppress(OSError):
            _, resident, shared, *_ = map(int, (child / "statm").read_text().split())
            pages += resident - shared
    return pages * _PAGE_MB


def tree_cpu_s(pid: int) -> float:
    """Return the CPU time of a process and of its descendants that live."""
    return cpu_s(pid) + sum(_cpu_s(fields) for _, fields in _descendants(pid))


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process alone."""
    return _cpu_s(_fields(Path(f"/proc/{pid}")))


def _cpu_s(fields: list[str]) -> float:
    return (int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS_PER_S


def _descendants(pid: int) -> Iterator[tuple[Path, list[str]]]:
    """Yield those that it has started, and those that these have: image processes are forked by one of them."""
    living = []
    for stat in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            living.append((stat, _fields(stat)))
    above = {pid}
    while children := [(stat, fields) for stat, fields in living if int(fields[_PARENT]) in above]:
        yield from children
        above = {int(stat.name) for stat, _ in children}


def _fields(process: Path) -> list[str]:
    return (process / "stat").read_text().rpartition(")")[2].split()
